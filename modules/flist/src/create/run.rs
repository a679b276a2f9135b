//! The run configuration: what the image says, what the caller changes, who the user is.

use super::{
    CreateError,
    tree::{Tree, TreeNode},
};
use crate::body::Run;
use std::io::Read as _;

/// Nobody's user database is larger.
const DATABASE_MAX: u64 = 1 << 20;

/// Changes to the run configuration of the input. `None` keeps what it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Program and first arguments. Also empties the arguments, unless they are given as well.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments behind the entry point.
    pub arguments: Option<Vec<String>>,
    /// `NAME=value`, added or replaced.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// `user[:group]`, names of the image or numbers.
    pub user: Option<String>,
}

impl Overrides {
    pub(super) fn apply(&self, run: &mut Run, user: &mut String) {
        if let Some(entrypoint) = &self.entrypoint {
            run.entrypoint.clone_from(entrypoint);
            run.arguments.clear();
        }
        if let Some(arguments) = &self.arguments {
            run.arguments.clone_from(arguments);
        }
        if let Some(cwd) = &self.cwd {
            run.cwd.clone_from(cwd);
        }
        if let Some(new) = &self.user {
            user.clone_from(new);
        }
        for variable in &self.env {
            set_variable(&mut run.env, variable);
        }
    }
}

/// Adds a variable, or replaces the one with its name where it stands.
pub(super) fn set_variable(env: &mut Vec<String>, variable: &str) {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let known = env.iter().position(|known| name(known) == name(variable));
    match known {
        Some(known) => variable.clone_into(&mut env[known]),
        None => env.push(variable.to_owned()),
    }
}

/// User and group by the tree's own `/etc/passwd` and `/etc/group`. Empty means root.
pub(super) fn resolve_user(tree: &Tree, user: &str) -> Result<(u32, u32), CreateError> {
    if user.is_empty() {
        return Ok((0, 0));
    }
    let (user, group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };
    let users = database(tree, "etc/passwd")?;
    let entry = find(&users, user);
    let number = |fields: &[String], field: usize| fields.get(field).and_then(|n| n.parse().ok());
    let uid = user.parse().ok().or_else(|| number(entry?, 2)).ok_or_else(|| {
        CreateError::input(format!("user {user}"), "is not in /etc/passwd of the image")
    })?;
    let Some(group) = group else {
        return Ok((uid, entry.and_then(|entry| number(entry, 3)).unwrap_or(0)));
    };
    let groups = database(tree, "etc/group")?;
    let gid = group.parse().ok().or_else(|| number(find(&groups, group)?, 2)).ok_or_else(|| {
        CreateError::input(format!("group {group}"), "is not in /etc/group of the image")
    })?;
    Ok((uid, gid))
}

/// By name, or by number.
fn find<'a>(lines: &'a [Vec<String>], wanted: &str) -> Option<&'a Vec<String>> {
    let with = |field: usize| {
        lines.iter().find(move |line| line.get(field).is_some_and(|value| value == wanted))
    };
    with(0).or_else(|| with(2))
}

fn database(tree: &Tree, path: &str) -> Result<Vec<Vec<String>>, CreateError> {
    let Some(TreeNode::File(file)) = tree.nodes.get(path.as_bytes()) else { return Ok(Vec::new()) };
    let mut text = Vec::new();
    let read = file.bytes.open().and_then(|file| file.take(DATABASE_MAX).read_to_end(&mut text));
    read.map_err(CreateError::io("reading", path.as_ref()))?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::{super::spool::Source, super::tree::TreeFile, *};
    use crate::body::Meta;
    use std::rc::Rc;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        let files = [
            ("etc/passwd", "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/false\n"),
            ("etc/group", "root:x:0:\nwww:x:35:\n"),
        ];
        for (path, text) in files {
            let bytes = Source::Memory(text.into());
            let file = Rc::new(TreeFile { meta: Meta::default(), bytes });
            tree.put(path.into(), TreeNode::File(file)).unwrap();
        }
        tree
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        let rows = [
            ("", Some((0, 0))),
            ("web", Some((33, 34))),
            ("33", Some((33, 34))),
            ("web:www", Some((33, 35))),
            ("web:7", Some((33, 7))),
            ("1000", Some((1000, 0))),
            ("1000:1001", Some((1000, 1001))),
            ("nobody", None),
            ("web:staff", None),
            ("-1", None),
        ];
        for (user, expected) in rows {
            assert_eq!(resolve_user(&tree(), user).ok(), expected, "user {user}");
        }
    }

    #[test]
    fn a_new_entry_point_drops_the_old_arguments() {
        let mut run = Run { arguments: vec!["old".into()], ..Run::default() };
        let env = vec!["A=2".into(), "B=3".into()];
        run.env = vec!["A=1".into()];
        let change =
            Overrides { entrypoint: Some(vec!["/new".into()]), env, ..Overrides::default() };
        change.apply(&mut run, &mut String::new());
        assert_eq!(run.entrypoint, ["/new"]);
        assert!(run.arguments.is_empty());
        assert_eq!(run.env, ["A=2", "B=3"]);
    }
}
