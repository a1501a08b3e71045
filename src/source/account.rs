//! What a dialect knows of the account at its sender's provider, for those who call the provider's API.
//! Absent on purpose: the calls (`provider`); a dialect itself never makes one.

use crate::config::{HttpUrl, Period, Secret};

/// One account at a provider, as far as it is configured.
#[derive(Clone, Debug)]
pub struct Account {
    /// The dialect's section, for messages: `sources.whatsapp.zapi`.
    pub section: String,
    /// The extension `provider` of its events: `zapi`.
    pub provider: &'static str,
    /// The provider as people call it: `Z-API`.
    pub title: &'static str,
    /// Where its API is.
    pub api: HttpUrl,
    /// The instance; without one nothing can be asked of the API.
    pub instance: Option<String>,
    /// The instance's token, the first where several are live; a part of the API's URLs.
    pub token: Option<Secret>,
    /// The account's security token, a header of every call.
    pub client_token: Option<Secret>,
    /// The provider documents that calls without the security token are refused.
    pub needs_client_token: bool,
    /// The provider documents one call that sets every webhook, the flag for messages sent by oneself, and reading the
    /// instance back.
    pub documents_all: bool,
    /// How often to ask for the instance's state; zero: never.
    pub poll: Period,
    /// What the types of its events begin with.
    pub type_prefix: String,
    /// The CloudEvents `source` of its events; empty where the instance is not known.
    pub event_source: String,
}

impl Account {
    /// The account with its secrets as they are now.
    ///
    /// # Errors
    /// A sentence without the secret, where one cannot be read any more.
    pub fn current(&self) -> Result<Account, String> {
        let current = |secret: &Option<Secret>| secret.as_ref().map(Secret::current).transpose();
        Ok(Account {
            token: current(&self.token)?,
            client_token: current(&self.client_token)?,
            ..self.clone()
        })
    }

    /// The keys that calls to the API need and that are not there.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let needed = [
            ("instance", self.instance.is_some()),
            ("token", self.token.is_some()),
            ("client_token", self.client_token.is_some() || !self.needs_client_token),
        ];
        needed.into_iter().filter(|(_, is_there)| !is_there).map(|(key, _)| key).collect()
    }
}
