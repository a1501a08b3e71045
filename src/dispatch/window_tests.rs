//! The window against rows of sentences and against a model of what order means.

use super::*;
use proptest::prelude::*;
use std::time::Duration;

fn window(order: Order) -> Window<(Option<&'static str>, u32)> {
    Window::new(order, 100, 1000)
}

fn add(window: &mut Window<(Option<&'static str>, u32)>, key: Option<&'static str>, number: u32) -> Ticket {
    window.add((key, number), key, 1, None)
}

#[test]
fn without_order_all_may_be_out_at_once() {
    let now = Instant::now();
    let mut window = window(Order::None);
    for number in 0..3 {
        add(&mut window, Some("a"), number);
    }
    assert!((0..3).all(|_| window.send_next(now).is_some()));
    assert_eq!((window.in_flight, window.held()), (3, 0));
}

#[test]
fn a_key_waits_for_its_own_predecessor_and_for_no_other() {
    let now = Instant::now();
    let mut window = window(Order::Key);
    let first = add(&mut window, Some("a"), 1);
    add(&mut window, Some("a"), 2);
    let other = add(&mut window, Some("b"), 3);
    let keyless = add(&mut window, None, 4);
    assert_eq!(window.send_next(now), Some(first));
    assert_eq!(window.send_next(now), Some(other));
    assert_eq!(window.send_next(now), Some(keyless));
    assert_eq!(window.send_next(now), None, "a's second waits for a's first");
    window.wait(first, now + Duration::from_secs(1));
    assert_eq!(window.send_next(now), None, "also while the first waits for its next attempt");
    assert_eq!(window.send_next(now + Duration::from_secs(1)), Some(first));
    window.settled(first);
    assert!(window.send_next(now).is_some());
}

#[test]
fn what_comes_back_goes_again_in_the_order_in_which_it_came() {
    let now = Instant::now();
    let mut window = window(Order::Key);
    let tickets: Vec<Ticket> = (0..6).map(|number| add(&mut window, None, number)).collect();
    let out: Vec<Ticket> = (0..4).filter_map(|_| window.send_next(now)).collect();
    assert_eq!(out, tickets[..4]);
    window.again(out[2]);
    window.wait(out[1], now);
    window.again(out[0]);
    window.again_last(out[3]);
    let again: Vec<Ticket> = std::iter::from_fn(|| window.send_next(now)).collect();
    let expected = [0, 1, 2, 4, 5, 3].map(|place| tickets[place]);
    assert_eq!(again, expected, "all in their old places, but the one that was sent to the end");
}

#[test]
fn strict_order_is_one_at_a_time() {
    let now = Instant::now();
    let mut window = window(Order::Strict);
    let first = add(&mut window, Some("a"), 1);
    let second = add(&mut window, Some("b"), 2);
    assert_eq!(window.send_next(now), Some(first));
    assert_eq!(window.send_next(now), None);
    window.again_last(first);
    assert_eq!(window.send_next(now), Some(first), "nobody overtakes, not even a rejected one");
    window.settled(first);
    assert_eq!(window.send_next(now), Some(second));
}

#[test]
fn room_ends_with_the_count_or_the_bytes() {
    let mut window: Window<u32> = Window::new(Order::None, 2, 100);
    assert_eq!((window.room(), window.room_bytes()), (2, 100));
    window.add(1, None, 120, None);
    assert_eq!((window.room(), window.room_bytes()), (0, 0), "one event over the bytes fills it");
    let mut window: Window<u32> = Window::new(Order::None, 2, 100);
    window.add(1, None, 1, None);
    window.add(2, None, 1, None);
    assert_eq!(window.room(), 0);
}

#[test]
fn taking_out_the_head_of_a_chain_lets_the_next_go() {
    let now = Instant::now();
    let mut window = window(Order::Key);
    for number in 1..=3 {
        add(&mut window, Some("a"), number);
    }
    let taken = window.take_held(|(_, number)| *number <= 2);
    assert_eq!(taken.len(), 2);
    let ticket = window.send_next(now).unwrap();
    assert_eq!(window.get(ticket).map(|item| item.1), Some(3));
    assert!(window.take_held(|_| true).is_empty(), "what is out is never taken");
}

proptest! {
    #[test]
    fn whatever_happens_each_key_settles_in_order_and_nothing_is_left_behind(
        keys in prop::collection::vec(prop::option::of(prop::sample::select(vec!["a", "b", "c"])), 1..60),
        choices in prop::collection::vec(0_u8..5, 1..400),
        order in prop::sample::select(vec![Order::None, Order::Key, Order::Strict]),
    ) {
        let start = Instant::now();
        let mut now = start;
        let mut window = window(order);
        for (number, key) in keys.iter().enumerate() {
            add(&mut window, *key, u32::try_from(number).unwrap());
        }
        let mut out = VecDeque::new();
        let mut settled: Vec<(Option<&str>, u32)> = Vec::new();
        let mut choices = choices.into_iter();
        while !window.slots.is_empty() {
            if let Some(ticket) = window.send_next(now) {
                out.push_back(ticket);
            }
            now += Duration::from_millis(10);
            let Some(ticket) = out.pop_front() else { continue };
            match choices.next().unwrap_or(0) {
                0 | 1 => settled.extend(window.settled(ticket)),
                2 => window.again(ticket),
                3 => window.again_last(ticket),
                _ => window.wait(ticket, now + Duration::from_millis(25)),
            }
        }
        prop_assert_eq!(settled.len(), keys.len());
        prop_assert_eq!((window.in_flight, window.held(), window.room_bytes()), (0, 0, 1000));
        let ordered = |run: Vec<u32>| run.is_sorted();
        match order {
            Order::None => {}
            Order::Key => for key in ["a", "b", "c"] {
                prop_assert!(ordered(settled.iter().filter(|(of, _)| *of == Some(key)).map(|(_, n)| *n).collect()));
            },
            Order::Strict => prop_assert!(ordered(settled.iter().map(|(_, n)| *n).collect())),
        }
    }
}

#[test]
fn what_comes_in_with_a_time_waits_for_its_turn_and_for_that() {
    let (mut window, now) = (Window::new(Order::Key, 10, 100), Instant::now());
    let second = Duration::from_secs(1);
    let first = window.add("first", Some("a"), 1, Some(now + second));
    window.add("behind it", Some("a"), 1, Some(now + 5 * second));
    let other = window.add("other", Some("b"), 1, None);
    assert_eq!(
        (window.send_next(now), window.send_next(now)),
        (Some(other), None),
        "its chain waits with it"
    );
    assert_eq!(window.next_due(), Some(now + second));
    assert_eq!(window.send_next(now + second), Some(first));
    window.settled(first);
    assert_eq!(window.send_next(now + 4 * second), None, "its turn has come, its time has not");
    assert_eq!(window.next_due(), Some(now + 5 * second));
    assert_eq!(window.take_held(|item| *item == "behind it"), ["behind it"], "it can be given up meanwhile");
    assert_eq!((window.next_due(), window.held()), (None, 0));
}
