//! The exact difference between two JSON texts, member by member. Pure.
//!
//! Every value of a text stands in one line with the way to it, so that a field that somebody adds
//! to a format tomorrow is shown tomorrow. Members of a list stand under what names them, and
//! under their number where nothing does.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Values of one text that are compared. A text may be of millions of small ones.
pub const LEAVES_MAX: usize = 20_000;

/// The way to a value. Its words are shared, because a long one may lead to many values.
pub type Way = Vec<Arc<str>>;
/// What a text says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leaves {
    /// Its values, as JSON, by the way to each.
    values: BTreeMap<Way, String>,
    /// The names of the members of lists that have names, in their order.
    orders: BTreeMap<Way, Vec<String>>,
}

impl Leaves {
    /// How many values there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Adds those of another text.
    pub fn extend(&mut self, other: Self) {
        self.values.extend(other.values);
        self.orders.extend(other.orders);
    }
}

/// Fields that name a member of a list, when all its members have it and no two the same.
const NAMES: [&str; 5] = ["name", "identity", "role", "path", "to"];

/// One value that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The way to it.
    pub way: Way,
    /// What it was, as JSON; `None` when it is new.
    pub old: Option<String>,
    /// What it would be, as JSON; `None` when it is gone.
    pub new: Option<String>,
}

/// More values than are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

/// Adds every value of a text, below a way. The depth of the text is the caller's to bound.
pub fn flatten(value: &Value, way: &[Arc<str>], leaves: &mut Leaves) -> Result<(), TooMany> {
    let below = |word: &str| -> Way { way.iter().cloned().chain([word.into()]).collect() };
    match value {
        Value::Object(members) if !members.is_empty() => {
            members.iter().try_for_each(|(name, member)| flatten(member, &below(name), leaves))
        }
        Value::Array(members) if !members.is_empty() => {
            let names = names(members);
            if let Some(names) = &names {
                let names = names.iter().map(|name| (*name).to_owned()).collect();
                leaves.orders.insert(way.to_vec(), names);
            }
            members.iter().enumerate().try_for_each(|(index, member)| {
                let number = (index + 1).to_string();
                let name = names.as_ref().map_or(number.as_str(), |names| names[index]);
                flatten(member, &below(name), leaves)
            })
        }
        Value::Object(_)
        | Value::Array(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_) => {
            if leaves.len() >= LEAVES_MAX {
                return Err(TooMany);
            }
            leaves.values.insert(way.to_vec(), value.to_string());
            Ok(())
        }
    }
}

fn names(members: &[Value]) -> Option<Vec<&str>> {
    NAMES.iter().find_map(|field| {
        let names: Option<Vec<&str>> = members.iter().map(|one| one.get(field)?.as_str()).collect();
        names.filter(|names| names.iter().collect::<BTreeSet<_>>().len() == names.len())
    })
}

/// What changed, in the order of the ways.
pub fn changes(old: &Leaves, new: &Leaves) -> Vec<Change> {
    let ways: BTreeSet<&Way> = old.values.keys().chain(new.values.keys()).collect();
    let all = ways.into_iter().map(|way| Change {
        way: way.clone(),
        old: old.values.get(way).cloned(),
        new: new.values.get(way).cloned(),
    });
    let mut found: Vec<Change> = all.filter(|change| change.old != change.new).collect();
    found.extend(old.orders.iter().filter_map(|(way, before)| {
        let after = new.orders.get(way)?;
        // Who came or went has lines already.
        let stay = |one: &[String], other: &[String]| -> Vec<String> {
            let other: BTreeSet<&String> = other.iter().collect();
            one.iter().filter(|name| other.contains(name)).cloned().collect()
        };
        (stay(before, after) != stay(after, before)).then(|| Change {
            way: way.iter().cloned().chain(["order".into()]).collect(),
            old: Some(Value::from(before.clone()).to_string()),
            new: Some(Value::from(after.clone()).to_string()),
        })
    }));
    found.sort_by(|one, other| one.way.cmp(&other.way));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn leaves(value: &Value) -> Leaves {
        let mut found = Leaves::default();
        flatten(value, &[], &mut found).unwrap();
        found
    }

    fn show(old: &Value, new: &Value) -> Vec<String> {
        let changes = changes(&leaves(old), &leaves(new));
        let value = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
        let line =
            |one: Change| format!("{}: {} → {}", one.way.join("/"), value(one.old), value(one.new));
        changes.into_iter().map(line).collect()
    }

    #[test]
    fn every_value_that_differs_is_a_line_and_no_other() {
        let check = |old: Value, new: Value, wanted: &[&str]| {
            assert_eq!(show(&old, &new), wanted, "{old} {new}");
        };
        check(json!({"a": 1, "b": {"c": "x"}}), json!({"a": 1, "b": {"c": "x"}}), &[]);
        check(
            json!({"a": 1, "b": 2}),
            json!({"a": 3, "c": 2}),
            &["a: 1 → 3", "b: 2 → –", "c: – → 2"],
        );
        check(json!({"a": 1}), json!({"a": "1"}), &["a: 1 → \"1\""]);
        check(json!({"a": null}), json!({}), &[": – → {}", "a: null → –"]);
        check(json!({"a": []}), json!({"a": {}}), &["a: [] → {}"]);
        check(json!([]), json!(["x"]), &[": [] → –", "1: – → \"x\""]);
        check(json!(["x", "y"]), json!(["x", "z"]), &["2: \"y\" → \"z\""]);
        // What has a name stays itself, wherever it stands.
        let old = json!([{"name": "web", "n": 1}, {"name": "zdb", "n": 2}]);
        let new = json!([{"name": "db", "n": 0}, {"name": "web", "n": 1}]);
        let wanted =
            ["db/n: – → 0", "db/name: – → \"db\"", "zdb/n: 2 → –", "zdb/name: \"zdb\" → –"];
        check(old, new, &wanted);
    }

    #[test]
    fn a_new_order_of_a_list_is_a_line() {
        let list = |paths: &[&str]| {
            Value::Array(paths.iter().map(|path| json!({ "path": path })).collect())
        };
        let show = |old: &[&str], new: &[&str]| show(&list(old), &list(new));
        assert_eq!(show(&["/a", "/b"], &["/a", "/b"]), [""; 0]);
        let turned = "order: [\"/a\",\"/b\"] → [\"/b\",\"/a\"]";
        assert_eq!(show(&["/a", "/b"], &["/b", "/a"]), [turned]);
        // One that comes first moves nobody else.
        assert_eq!(show(&["/a", "/b"], &["/0", "/a", "/b"]), ["/0/path: – → \"/0\""]);
    }

    #[test]
    fn a_name_that_two_have_names_nobody() {
        let twice = json!([{"name": "a", "n": 1}, {"name": "a", "n": 2}]);
        let ways: Vec<_> = leaves(&twice).values.into_keys().map(|way| way.join("/")).collect();
        assert_eq!(ways, ["1/n", "1/name", "2/n", "2/name"]);
    }

    #[test]
    fn a_text_of_very_many_values_is_not_compared() {
        let list = |count: usize| Value::Array(vec![json!(""); count]);
        let mut found = Leaves::default();
        assert_eq!(flatten(&list(LEAVES_MAX), &[], &mut found), Ok(()));
        assert_eq!(found.len(), LEAVES_MAX);
        assert_eq!(flatten(&list(LEAVES_MAX + 1), &[], &mut Leaves::default()), Err(TooMany));
    }

    #[test]
    fn a_way_is_not_a_text_that_a_name_could_imitate() {
        let one = json!({"a/b": 1});
        let other = json!({"a": {"b": 1}});
        assert_eq!(show(&one, &other).len(), 2, "they are two values");
    }
}
