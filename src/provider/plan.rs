//! Which calls bring an instance's webhooks to what is wanted: pure.
//! The URL for received-and-sent takes precedence over the one for received once it is set, until the flag is put to false.
//! So both always get an end: where the provider has the flag, both get the URL and the flag decides, last; where it has
//! none, the first is set or cleared. Otherwise a forgotten URL of another program would go on receiving.

use super::hooks::{EVERY, Hook, ME};
use crate::source::Account;
use serde_json::{Value, json};

/// What an instance's webhooks should be.
#[derive(Clone)]
pub(super) struct Wanted {
    /// The URL of every webhook, its secret included.
    pub(super) url: String,
    /// Messages sent by oneself are notified too.
    pub(super) sent_by_me: bool,
}

/// What a step does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doing {
    /// Sets what is documented.
    Sets,
    /// Takes a URL away, which no page documents: a refusal is no failure.
    Clears,
}

/// One call.
pub(super) struct Step {
    pub(super) path: &'static str,
    pub(super) body: Value,
    pub(super) hooks: Vec<Hook>,
    pub(super) doing: Doing,
}

impl Step {
    fn sets(hook: Hook, body: Value) -> Self {
        Step { path: hook.path(), body, hooks: vec![hook], doing: Doing::Sets }
    }
}

/// The calls for a provider that documents one for all, and the flag.
pub(super) fn all_at_once(wanted: &Wanted) -> Vec<Step> {
    let (url, flag) = (&wanted.url, wanted.sent_by_me);
    let every = Step {
        path: EVERY,
        body: json!({"value": url, "notifySentByMe": flag}),
        hooks: Hook::PLAIN.to_vec(),
        doing: Doing::Sets,
    };
    vec![
        every,
        Step::sets(Hook::ReceivedAndSent, json!({"value": url})),
        Step::sets(Hook::SentByMe, json!({"notifySentByMe": flag})),
    ]
}

/// The calls for a provider that documents one for each webhook and no more.
pub(super) fn one_by_one(wanted: &Wanted) -> Vec<Step> {
    let plain = Hook::PLAIN.into_iter().map(|hook| Step::sets(hook, json!({"value": wanted.url})));
    let both = if wanted.sent_by_me {
        Step::sets(Hook::ReceivedAndSent, json!({"value": wanted.url}))
    } else {
        Step { doing: Doing::Clears, ..Step::sets(Hook::ReceivedAndSent, json!({"value": ""})) }
    };
    plain.chain([both]).collect()
}

/// The calls for this account.
pub(super) fn steps(account: &Account, wanted: &Wanted) -> Vec<Step> {
    if account.documents_all { all_at_once(wanted) } else { one_by_one(wanted) }
}

/// A call as it may be shown: nothing in it is secret.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Call {
    /// The HTTP method.
    pub method: &'static str,
    /// The URL, its token masked.
    pub url: String,
    /// The JSON body, its URL masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
}

/// What would be done, masked. `masked_url` stands for the wanted one.
pub(super) fn shown(account: &Account, sent_by_me: bool, masked_url: &str) -> Vec<Call> {
    let instance = account.instance.as_deref().unwrap_or_default();
    let url = |path: &str| format!("{}/instances/{instance}/token/***/{path}", account.api);
    let wanted = Wanted { url: masked_url.to_owned(), sent_by_me };
    let sets = steps(account, &wanted);
    let mut calls: Vec<Call> = sets
        .into_iter()
        .map(|step| Call { method: "PUT", url: url(step.path), body: Some(step.body) })
        .collect();
    calls.push(Call { method: "GET", url: url(ME), body: None });
    calls
}
