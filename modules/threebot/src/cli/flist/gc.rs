//! `3bot flist gc`.

use super::{
    super::{
        context::{Usage, now},
        output::Output,
    },
    push,
};
use anyhow::Context as _;
use clap::{Args, ValueHint};
use contract::FlistId;
use serde_json::json;
use std::{collections::BTreeSet, path::PathBuf};
use threebot::{
    gc::{Found, GRACE_MIN_S, Keep},
    place::Place,
    source::{Span, units::show_bytes},
};

#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Directory made by `flist build`, or a bucket as in `s3://bucket/prefix`.
    #[arg(value_hint = ValueHint::AnyPath)]
    place: PathBuf,
    /// An flist that stays; repeat for more.
    #[arg(long, value_name = "ID")]
    keep: Vec<FlistId>,
    /// File with the ids of flists that stay, one in each line; what follows a # is not read.
    #[arg(long, value_name = "FILE")]
    keep_file: Option<PathBuf>,
    /// What was published in this time stays.
    #[arg(long, value_name = "TIME")]
    keep_newer: Option<Span>,
    /// What came in this time stays in any case, for somebody may be publishing; at least 2h.
    #[arg(long, value_name = "TIME", default_value = "1d")]
    grace: Span,
    /// Delete. Without it, what would go is only shown.
    #[arg(long)]
    delete: bool,
}

pub(super) async fn run(output: &Output, gc: Gc) -> anyhow::Result<()> {
    let mut flists: BTreeSet<FlistId> = gc.keep.iter().copied().collect();
    if let Some(file) = &gc.keep_file {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        flists
            .extend(ids(&text).map_err(|problem| Usage(format!("{}: {problem}", file.display())))?);
    }
    if flists.is_empty() && gc.keep_newer.is_none() {
        let text = "say what stays, by --keep, --keep-file or --keep-newer: everything else goes";
        return Err(Usage(text.into()).into());
    }
    let ago = |span: Span| now().plus(-i64::from(span.seconds));
    if ago(gc.grace) > now().plus(-GRACE_MIN_S) {
        let text = "--grace is at least 2h: who publishes meanwhile must not lose anything";
        return Err(Usage(text.into()).into());
    }
    let keep = Keep { flists, after: gc.keep_newer.map(ago), grace: ago(gc.grace) };
    let bucket = gc.place.to_str().map(push::bucket).transpose()?.flatten();
    let place = match bucket {
        Some(bucket) => Place::Bucket(Box::new(bucket)),
        None => Place::open(&gc.place),
    };
    let shown = gc.place.display();
    let alone = if gc.delete { place.alone().await? } else { None };
    let idle = place.idle(&keep).await.with_context(|| format!("looking through {shown}"))?;
    let mut gone: Vec<Found> = Vec::new();
    for one in &idle {
        let goes = !gc.delete
            || place.remove(one).await.with_context(|| format!("clearing up {shown}"))?;
        if goes {
            output.say(one.item.name());
            gone.push(*one);
        }
    }
    drop(alone);
    let bytes: u64 = gone.iter().map(|one| one.bytes).sum();
    let names: Vec<String> = gone.iter().map(|one| one.item.name()).collect();
    output.answer(&json!({ "deleted": gc.delete, "names": names, "bytes": bytes }));
    let (count, size) = (gone.len(), show_bytes(bytes));
    if gc.delete {
        output.say(format_args!("{count} files deleted ({size})"));
    } else {
        output.say(format_args!("{count} files would go ({size}): --delete deletes them"));
    }
    Ok(())
}

/// The ids in a file.
fn ids(text: &str) -> Result<Vec<FlistId>, String> {
    let line = |(number, line): (usize, &str)| {
        let word = line.split('#').next().unwrap_or_default().trim();
        let wrong = |_| format!("line {}: an id has 64 lowercase hexadecimal digits", number + 1);
        (!word.is_empty()).then(|| word.parse().map_err(wrong))
    };
    text.lines().enumerate().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_ids_is_read_or_refused_at_its_line() {
        let id = FlistId([0xab; 32]);
        let text = format!("# ours\n\n {id} # the shop\n{id}\r\n");
        assert_eq!(ids(&text), Ok(vec![id, id]));
        assert_eq!(ids("# nothing\n"), Ok(vec![]));
        let error = ids(&format!("{id}\n{id} {id}\n")).unwrap_err();
        assert!(error.starts_with("line 2: "), "{error}");
    }
}
