//! `hookbus health`: asks `/readyz` or `/livez` of the running daemon, for health checks where nothing else can ask.
//! Holds: exit code 3 where the daemon says no; needs no token, and with `--admin` no configuration, so that a file
//! somebody is editing makes no daemon look sick.

use super::client::Client;
use super::settings::{AdminArguments, Target};
use super::{CliError, Ending, client::ClientError, human};
use std::path::Path;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Whether it takes events, or whether it answers at all
    #[arg(value_enum, default_value_t = Question::Ready)]
    question: Question,
    /// The admin listener's URL; without it: admin.listen of the configuration
    #[arg(long = "admin", value_name = "URL")]
    url: Option<String>,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Question {
    /// It takes events: not while it starts or stops, nor with a full or failed journal
    Ready,
    /// The process answers
    Live,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Question::Ready => "/readyz",
            Question::Live => "/livez",
        }
    }
}

pub(super) async fn health(config: Option<&Path>, arguments: &Arguments) -> Result<Ending, CliError> {
    let Target { url, .. } = AdminArguments::at(arguments.url.clone()).target(config)?;
    let client = Client::new(Target { url, token: None })?;
    match client.probe(arguments.question.path()).await {
        Ok(()) => {
            human::say("ok")?;
            Ok(Ending::Done)
        }
        Err(ClientError::Refused { detail, .. }) => {
            human::complain(&format!("hookbus: {detail}"));
            Ok(Ending::NotHealthy)
        }
        Err(error) => Err(error.into()),
    }
}
