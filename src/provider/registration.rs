//! Setting an instance's webhooks and checking them: the calls of the plan, what the instance shows, and what both amount to.
//! Holds: no more calls than the plan has and one; after a problem that concerns every call no further one is made, unless
//! that would leave own messages switched on which nobody wants.

use super::client::{Api, SetupError};
use super::hooks::{Hook, ME};
use super::plan::{self, Call, Doing, Step, Wanted};
use super::problem::{ApiError, Problem};
use super::verify::{self, Found};
use crate::config::Secret;
use crate::source::Account;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What is known of one webhook in the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowState {
    /// The provider took it, and does not show it.
    Set,
    /// The instance shows exactly what is wanted.
    Verified,
    /// The instance shows something else.
    Differs,
    /// Nothing was set, or could be, and the instance does not show it.
    NotVerifiable,
    /// The provider did not take it.
    Failed,
    /// Not even tried, after a problem that concerns every call.
    NotTried,
}

impl RowState {
    /// For people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            RowState::Set => "set",
            RowState::Verified => "verified",
            RowState::Differs => "differs",
            RowState::NotVerifiable => "not verifiable",
            RowState::Failed => "failed",
            RowState::NotTried => "not tried",
        }
    }
}

/// One webhook.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Row {
    /// Which.
    pub hook: Hook,
    /// What it should be, its secret masked: a URL, `none`, `on` or `off`.
    pub wanted: String,
    /// How it is.
    pub state: RowState,
    /// What there is to say about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How an instance's webhooks are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// Every webhook.
    pub hooks: Vec<Row>,
    /// What went wrong, a sentence each.
    pub problems: Vec<String>,
}

impl Report {
    /// Something could not be done.
    #[must_use]
    pub fn failed(&self) -> bool {
        !self.problems.is_empty()
    }
    /// The instance shows something else than what is wanted.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.hooks.iter().any(|row| row.state == RowState::Differs)
    }
}

/// What the webhooks are set to.
pub struct Target {
    /// The URL with its secret.
    pub url: String,
    /// The same for people.
    pub masked_url: String,
    /// The secret, so that no answer of the provider makes this side repeat it.
    pub path_secret: Option<Secret>,
    /// Messages sent by oneself are notified too.
    pub sent_by_me: bool,
}

/// One source's webhooks at its provider.
pub struct Registration {
    api: Api,
    account: Account,
    wanted: Wanted,
    masked_url: String,
}

/// What became of the call that sets a webhook.
#[derive(Clone, Copy)]
enum Done {
    Taken,
    /// A URL was to be taken away, and the provider would not.
    NotCleared,
    Refused,
    NotTried,
}

impl Registration {
    /// Of every webhook. No call is made yet.
    ///
    /// # Errors
    /// [`SetupError`] where the account lacks a key.
    pub fn new(account: &Account, target: Target) -> Result<Self, SetupError> {
        let Target { url, masked_url, path_secret, sent_by_me } = target;
        let secrets: Vec<&str> = path_secret.iter().map(Secret::expose).collect();
        let api = Api::new(account, &secrets)?;
        Ok(Registration { api, account: account.clone(), wanted: Wanted { url, sent_by_me }, masked_url })
    }

    /// The calls that [`Registration::set`] would make, masked.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        plan::shown(&self.account, self.wanted.sent_by_me, &self.masked_url)
    }

    /// Reads how the instance's webhooks are and sets none.
    pub async fn check(&self) -> Report {
        let documents_all = self.account.documents_all;
        match self.api.get(ME, &verify::fields()).await {
            Ok(me) => self.report(&BTreeMap::new(), Some(&me), Vec::new(), documents_all),
            Err(error) => self.report(&BTreeMap::new(), None, vec![error], documents_all),
        }
    }

    /// Sets every webhook, then reads how they are.
    pub async fn set(&self) -> Report {
        let mut steps = plan::steps(&self.account, &self.wanted);
        let mut documents_all = self.account.documents_all;
        let mut taken = self.take(&steps).await;
        if let (true, Some(Err(error))) = (documents_all, taken.first())
            && error.problem.is_no_such_call()
        {
            // Another brand of the engine, whose API is like the older one.
            documents_all = false;
            steps = plan::one_by_one(&self.wanted);
            taken = self.take(&steps).await;
        }
        let is_whole = taken.len() == steps.len();
        let (done, mut problems) = endings(&steps, taken);
        if !is_whole {
            return self.report(&done, None, problems, documents_all);
        }
        match self.api.get(ME, &verify::fields()).await {
            Ok(me) => self.report(&done, Some(&me), problems, documents_all),
            Err(error) => {
                if documents_all || !is_absent(&error.problem) {
                    note(&mut problems, error);
                }
                self.report(&done, None, problems, documents_all)
            }
        }
    }

    /// Makes the calls, until one shows that the further ones would be in vain.
    async fn take(&self, steps: &[Step]) -> Vec<Result<(), ApiError>> {
        let mut taken = Vec::with_capacity(steps.len());
        for step in steps {
            let result = self.api.put(step.path, &step.body).await;
            let is_first = taken.is_empty();
            let is_vain = result.as_ref().is_err_and(|ApiError { problem, .. }| {
                problem.concerns_every_call() || (is_first && problem.is_no_such_call())
            });
            taken.push(result);
            // Even what failed may have been done, and this switches own messages on: the flag, next, still gets its end.
            if is_vain && step.hooks != [Hook::ReceivedAndSent] {
                break;
            }
        }
        taken
    }

    fn report(
        &self,
        done: &BTreeMap<Hook, Done>,
        me: Option<&Map<String, Value>>,
        problems: Vec<ApiError>,
        documents_all: bool,
    ) -> Report {
        let hooks = Hook::ALL.into_iter().map(|hook| {
            let found = me.map(|me| verify::compare(hook, me, &self.wanted));
            let (state, note) = self.conclude(done.get(&hook), found);
            Row { hook, wanted: self.wanted_of(hook, documents_all), state, note }
        });
        Report { hooks: hooks.collect(), problems: problems.iter().map(ToString::to_string).collect() }
    }

    fn wanted_of(&self, hook: Hook, documents_all: bool) -> String {
        let Wanted { sent_by_me, .. } = self.wanted;
        match hook {
            Hook::SentByMe if sent_by_me => "on".to_owned(),
            Hook::SentByMe => "off".to_owned(),
            Hook::ReceivedAndSent if !sent_by_me && !documents_all => "none".to_owned(),
            _ => self.masked_url.clone(),
        }
    }

    /// `found` is absent where the instance could not be read.
    fn conclude(&self, done: Option<&Done>, found: Option<Found>) -> (RowState, Option<String>) {
        let title = self.account.title;
        let unsaid = || found.as_ref().map(|_| format!("{title} does not show it"));
        match (done, &found) {
            (Some(Done::Refused), _) => (RowState::Failed, None),
            (Some(Done::NotTried), _) => (RowState::NotTried, None),
            (_, Some(Found::Same)) => (RowState::Verified, None),
            (_, Some(Found::Other(what))) => (RowState::Differs, Some(what.clone())),
            (Some(Done::Taken), _) => {
                let why = unsaid().unwrap_or_else(|| "the instance cannot be read back".to_owned());
                (RowState::Set, Some(format!("not verifiable: {why}")))
            }
            (Some(Done::NotCleared), _) => {
                let note =
                    format!("{title} cleared nothing; where own messages arrive, empty it in the panel");
                (RowState::NotVerifiable, Some(note))
            }
            (None, _) => (RowState::NotVerifiable, unsaid()),
        }
    }
}

/// The call to read the instance back is not there, as far as the answer tells.
fn is_absent(problem: &Problem) -> bool {
    problem.is_no_such_call() || matches!(problem, Problem::Refused(..) | Problem::Strange(_))
}

/// What became of every webhook that a step was for, and what went wrong. A step without a result was not tried.
fn endings(steps: &[Step], taken: Vec<Result<(), ApiError>>) -> (BTreeMap<Hook, Done>, Vec<ApiError>) {
    let (mut done, mut problems) = (BTreeMap::new(), Vec::new());
    let mut taken = taken.into_iter();
    for step in steps {
        let ending = match (taken.next(), step.doing) {
            (None, _) => Done::NotTried,
            (Some(Ok(())), _) => Done::Taken,
            (Some(Err(error)), Doing::Clears) if error.problem.is_refusal() => Done::NotCleared,
            (Some(Err(error)), _) => {
                note(&mut problems, error);
                Done::Refused
            }
        };
        done.extend(step.hooks.iter().map(|hook| (*hook, ending)));
    }
    (done, problems)
}

/// One sentence a problem, however many calls met it.
fn note(problems: &mut Vec<ApiError>, error: ApiError) {
    if problems.iter().all(|noted| noted.problem != error.problem) {
        problems.push(error);
    }
}
