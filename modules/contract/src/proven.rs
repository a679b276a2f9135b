//! Signatures that were found right, so that nobody has to look at them again.
//!
//! What is remembered stands for one statement, with exactly the signatures that it carries, and one
//! identity: the same question has the same answer for ever.

use crate::{
    envelope::{Signed, Statement},
    id::{IdentityId, sha256},
    identity::{Identity, Signer},
};
use alloc::{collections::BTreeSet, vec::Vec};

/// Which statements are signed by whom.
#[derive(Debug, Clone, Default)]
pub struct Proven(BTreeSet<[u8; 32]>);

impl Proven {
    /// What [`Signer::signed`] says, without a check when it was found to be so before.
    pub fn signed<T: Statement>(&mut self, signer: &Signer, statement: &Signed<T>) -> bool {
        let proof = proof(&signer.id, statement);
        let is_signed = self.0.contains(&proof) || signer.signed(statement);
        if is_signed {
            self.0.insert(proof);
        }
        is_signed
    }

    /// What [`Signer::from_statement`] says, likewise.
    pub fn signer(&mut self, statement: &Signed<Identity>) -> Option<Signer> {
        let signer = Signer { id: IdentityId(statement.id.0), identity: statement.body.clone() };
        self.signed(&signer, statement).then_some(signer)
    }

    /// Takes over from `known` whether it is signed, or finds out.
    pub(crate) fn signed_after<T: Statement>(
        &mut self,
        known: &Self,
        signer: &Signer,
        statement: &Signed<T>,
    ) -> bool {
        let proof = proof(&signer.id, statement);
        if known.0.contains(&proof) {
            self.0.insert(proof);
        }
        self.signed(signer, statement)
    }
}

/// The id of an identity is the hash of its keys, that of a statement the hash of its payload.
fn proof<T: Statement>(signer: &IdentityId, statement: &Signed<T>) -> [u8; 32] {
    let mut text = Vec::new();
    text.extend_from_slice(&signer.0);
    text.extend_from_slice(&statement.id.0);
    text.extend_from_slice(T::KIND.name().as_bytes());
    for entry in statement.signatures() {
        text.push(0);
        text.extend_from_slice(&entry.keyid.0);
        text.extend_from_slice(&entry.sig.len().to_le_bytes());
        text.extend_from_slice(entry.sig.as_bytes());
    }
    sha256(&text)
}
