//! What a long call tells while it works, and how it is told to stop.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Hears how far a long call is. Called from several threads.
pub trait Progress: Sync {
    /// A stage begins; `total` bytes will be done in it.
    fn begin(&self, stage: Stage, total: u64);
    /// `bytes` more are done.
    fn advance(&self, bytes: u64);
}

/// Tells nobody.
impl Progress for () {
    fn begin(&self, _stage: Stage, _total: u64) {}
    fn advance(&self, _bytes: u64) {}
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Compressing and hashing content.
    Packing,
    /// Reading published chunks, or a tree.
    Reading,
    /// Fetching missing content, counted in plain bytes.
    Fetching,
    /// Having the kernel hash new objects.
    Sealing,
}

/// Stops a call from another thread. Copies stop together.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<(Mutex<bool>, Condvar)>);

impl Cancel {
    /// Stops every call that has this one or a copy; they end with `cancelled`.
    pub fn cancel(&self) {
        *self.lock() = true;
        self.0.1.notify_all();
    }

    /// Whether it was stopped.
    pub fn is_cancelled(&self) -> bool {
        *self.lock()
    }

    /// Waits for `delay`, or less when stopped.
    pub(crate) fn wait(&self, delay: Duration) {
        let waiting = self.0.1.wait_timeout_while(self.lock(), delay, |stopped| !*stopped);
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
