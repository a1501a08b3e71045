//! Stopping the ingress: whoever has sent a request gets its answer, and every 2xx is in the journal.

use crate::ingress_rig::{Client, Rig, SOON, post};
use hookbus::shutdown::Phase;
use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[tokio::test]
async fn a_request_in_work_is_finished_and_its_connection_closed() {
    let rig = Rig::plain().await;
    let mut client = rig.connect().await;
    let head = "POST /hooks/open HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n";
    client.send(head).await;
    assert_eq!(client.reply().await.unwrap().status, 100);
    let stopping = tokio::spawn({
        let shutdown = rig.shutdown.clone();
        async move { shutdown.stop(Phase::Ingress).await }
    });
    rig.shutdown.token(Phase::Ingress).cancelled().await;
    client.send("one").await;
    let reply = client.reply().await.unwrap();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert!(client.reply().await.is_none());
    drop(client);
    tokio::time::timeout(SOON, stopping).await.unwrap().unwrap();
    assert_eq!(rig.ids().await, ["one"]);
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_stop() {
    let rig = Rig::plain().await;
    let mut kept_alive = rig.connect().await;
    kept_alive.send(post("/hooks/open", &[], b"one")).await;
    assert_eq!(kept_alive.reply().await.unwrap().status, 200);
    let mut silent = rig.connect().await;
    rig.stop_ingress().await;
    assert!(kept_alive.reply().await.is_none());
    assert!(silent.reply().await.is_none());
}

#[tokio::test]
async fn whoever_has_connected_is_served_although_nobody_has_accepted_yet() {
    let rig = Rig::plain().await;
    let mut waiting: Vec<_> = (0..20)
        .map(|sender: u8| {
            // Blocking, so that the accept loop has no turn before the stop.
            let mut tcp = std::net::TcpStream::connect(rig.address).unwrap();
            tcp.write_all(&post("/hooks/open", &[], &[b'a' + sender])).unwrap();
            tcp.set_nonblocking(true).unwrap();
            Client::over(tokio::net::TcpStream::from_std(tcp).unwrap())
        })
        .collect();
    let replies = async {
        for client in &mut waiting {
            let reply = client.reply().await.unwrap();
            assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
        }
    };
    tokio::join!(rig.stop_ingress(), replies);
    assert_eq!(rig.ids().await.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_under_load_resets_nobody_and_keeps_every_promise() {
    let rig = Arc::new(Rig::plain().await);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let senders: Vec<_> = (0..16)
        .map(|sender| {
            let (rig, acknowledged) = (Arc::clone(&rig), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                let mut promised = Vec::new();
                let mut client = rig.connect().await;
                for round in 0.. {
                    let id = format!("{sender}-{round}");
                    client.send(post("/hooks/open", &[], id.as_bytes())).await;
                    match client.next_reply().await {
                        Ok(Some(reply)) => {
                            assert_eq!(reply.status, 200);
                            promised.push(id);
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                            if reply.header("connection") == Some("close") {
                                break;
                            }
                        }
                        Ok(None) => break,
                        Err(error) => {
                            assert_ne!(error.kind(), ErrorKind::ConnectionReset, "nobody is reset");
                            break;
                        }
                    }
                }
                promised
            })
        })
        .collect();
    crate::ingress_rig::eventually("load", || acknowledged.load(Ordering::Relaxed) > 200).await;
    rig.stop_ingress().await;
    let mut promised = Vec::new();
    for sender in senders {
        promised.extend(tokio::time::timeout(SOON, sender).await.unwrap().unwrap());
    }
    let kept = rig.ids().await;
    assert!(promised.iter().all(|id| kept.contains(id)), "every 2xx is in the journal");
}
