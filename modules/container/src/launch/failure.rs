//! How a start fails: a stable reason, a sentence, and the cause.

use crate::reason::Reason;
use std::error::Error;

/// A container that did not start.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}")]
pub struct Failure {
    /// Code for callers.
    pub reason: Reason,
    /// What was tried, on what.
    pub attempt: String,
    /// Why it failed.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// As it goes over the wire: the reason's code as the name, all causes in the message.
    pub fn to_wire(&self) -> ipc::Failure {
        ipc::Failure::new(self.reason.code(), daemon::chain(self))
    }
}

/// Adds reason and attempt to an error.
pub(super) trait Context<T> {
    fn context(self, reason: Reason, attempt: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E> Context<T> for Result<T, E>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    fn context(self, reason: Reason, attempt: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|source| Failure {
            reason,
            attempt: attempt.into(),
            source: Some(source.into()),
        })
    }
}

/// A failure without a deeper cause.
pub(super) fn fail<T>(reason: Reason, attempt: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { reason, attempt: attempt.into(), source: None })
}
