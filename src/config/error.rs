//! A problem in the configuration: which key, from which layer, what is expected instead.

use std::fmt;

/// One problem. `problem` never contains the value: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Dotted path: `sinks.orders.http.url`.
    pub key: String,
    /// The layer that said it: `hookbus.toml`, `environment variable HOOKBUS__…`, `built-in default`.
    pub origin: Option<String>,
    /// What is wrong or expected, lower case, no full stop.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)?;
        match &self.origin {
            Some(origin) => write!(f, " (from {origin})"),
            None => Ok(()),
        }
    }
}

/// All problems found in one reading of the configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        ConfigErrors(vec![error])
    }
}

/// Runs independent readings and keeps every error: `let (a, b) = both(read_a(), read_b())?;` is not enough for lists.
impl ConfigErrors {
    /// Adds the errors of `result` to `errors` and returns its value where there is one.
    pub fn collect<T>(errors: &mut Vec<ConfigError>, result: Result<T, ConfigErrors>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(ConfigErrors(more)) => {
                errors.extend(more);
                None
            }
        }
    }
}
