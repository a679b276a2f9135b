//! Names that this user has for identities: own keys, contacts, and what statements call them.
//!
//! A name is a convenience of this machine alone. What is signed are ids.

use contract::IdentityId;
use std::collections::BTreeMap;

/// Names and the identities behind them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct People {
    known: BTreeMap<String, IdentityId>,
    told: BTreeMap<IdentityId, String>,
}

impl People {
    /// Adds a name that the user chose. It may be used instead of the id.
    pub fn know(&mut self, name: &str, id: IdentityId) {
        self.known.insert(name.to_owned(), id);
    }

    /// Adds how an identity calls itself. It is shown, and never used to find the identity.
    pub fn told(&mut self, id: IdentityId, name: &str) {
        self.told.insert(id, name.to_owned());
    }

    /// Who is meant by an id or a name of the user's own.
    pub fn find(&self, text: &str) -> Option<IdentityId> {
        text.parse().ok().or_else(|| self.known.get(text).copied())
    }

    /// The same with the full id: a short one can be imitated, so this stands where people judge.
    pub fn show_exactly(&self, id: &IdentityId) -> String {
        match self.name(id) {
            Some(name) => format!("{name} {id}"),
            None => id.to_string(),
        }
    }

    /// For people: the user's name, or what the identity calls itself in quotes, and a short id.
    pub fn show(&self, id: &IdentityId) -> String {
        match self.name(id) {
            Some(name) => format!("{name} ({})", id.short()),
            None => id.short(),
        }
    }

    fn name(&self, id: &IdentityId) -> Option<String> {
        let known = self.known.iter().find(|(_, known)| *known == id).map(|(name, _)| name.clone());
        known.or_else(|| self.told.get(id).map(|name| format!("{name:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_users_own_names_find_an_identity() {
        let (alice, mallory) = (IdentityId([1; 32]), IdentityId([2; 32]));
        let mut people = People::default();
        people.know("alice", alice);
        people.told(mallory, "alice");
        assert_eq!(people.find("alice"), Some(alice));
        assert_eq!(people.find(&mallory.to_string()), Some(mallory));
        assert_eq!(people.find("bob"), None);
        assert_eq!(people.show(&alice), "alice (01010101)");
        assert_eq!(people.show(&mallory), "\"alice\" (02020202)");
    }
}
