//! A bundle together with what was verified of it: signatures are checked when it changes, and not
//! when it is judged.
//!
//! The two cannot be changed apart. Nothing of this is stored: after a restart, whatever the state
//! holds is verified again, when it is judged for the first time.

use contract::{
    Bundle, Logged, Proven, StatementId, Timestamp, Trust, Verdict,
    verdict::{Case, Refusal},
};
use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
};

/// Signatures of a contract that are looked at: one of each of 64 stakeholders for each of 64 versions,
/// and as many again. Each takes some 50 µs, so that whoever offers the largest contract keeps the
/// node busy for less than half a second, once. Only what can stop a contract comes on top.
pub(crate) const SIGNATURES_MAX: usize = 8192;

/// A bundle, opened once.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    bundle: Arc<Bundle>,
    /// What of it is known to be in the log, if the node asks.
    logged: Arc<Logged>,
    case: Arc<OnceLock<Result<Case, Refusal>>>,
}

impl Evidence {
    /// A bundle of which nothing was verified yet, and whose log nobody asks.
    pub(crate) fn of(bundle: Bundle) -> Self {
        Self { bundle: Arc::new(bundle), logged: Arc::default(), case: Arc::default() }
    }

    /// A larger bundle, of whose signatures some are known to be right.
    pub(crate) fn grown(&self, bundle: Bundle, known: &Proven) -> Self {
        let case = Case::read_after(&bundle, known, &self.logged);
        let logged = Arc::clone(&self.logged);
        Self { bundle: Arc::new(bundle), logged, case: Arc::new(case.into()) }
    }

    /// The same bundle, and this of it is known to be in the log.
    pub(crate) fn logged(&self, logged: Logged) -> Self {
        let case = match self.case.get() {
            Some(Ok(case)) => Case::read_after(&self.bundle, case.proven(), &logged).into(),
            Some(Err(_)) | None => OnceLock::new(),
        };
        Self { bundle: Arc::clone(&self.bundle), logged: Arc::new(logged), case: Arc::new(case) }
    }

    /// What is known to be in the log.
    pub(crate) fn known_logged(&self) -> &Logged {
        &self.logged
    }

    /// Statements whose proof is all that is missing.
    pub(crate) fn unlogged(&self) -> &[StatementId] {
        self.case().map(Case::unlogged).unwrap_or_default()
    }

    /// The bundle, opened.
    pub(crate) fn case(&self) -> Result<&Case, &Refusal> {
        let read = || Case::read_after(&self.bundle, &Proven::default(), &self.logged);
        self.case.get_or_init(read).as_ref()
    }

    /// What [`contract::verdict`] says of the bundle, with what is known to be in the log.
    pub(crate) fn verdict(&self, trust: &Trust, now: Timestamp) -> Verdict {
        contract::verdict::judge(self.case(), trust, now)
    }

    /// The version that is in force by these statements and what of them is logged; 0: none.
    pub(crate) fn in_force(&self) -> u64 {
        let agreed = self.case().ok().and_then(|case| case.in_force().ok().flatten());
        agreed.map_or(0, |header| header.body.version)
    }
}

impl Deref for Evidence {
    type Target = Bundle;

    fn deref(&self) -> &Bundle {
        &self.bundle
    }
}
