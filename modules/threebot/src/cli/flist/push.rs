//! `3bot flist push`.

use super::{
    super::{
        context::{Context, Usage, now},
        output::Output,
    },
    Bar,
};
use anyhow::Context as _;
use clap::Args;
use contract::FlistId;
use flist::Progress as _;
use registry_api::Client;
use serde_json::json;
use std::path::PathBuf;
use threebot::{
    content::{self, Upload},
    place::{Bucket, Sent},
    source::units::show_bytes,
};

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Directory made by `flist build`.
    dir: PathBuf,
    /// Only these flists; all unless given.
    #[arg(long, value_name = "ID")]
    id: Vec<FlistId>,
    /// Another store than that of the registry: URL that ends in /content, or `s3://bucket/prefix`.
    #[arg(long, value_name = "URL")]
    to: Option<String>,
}

enum Store {
    Registry(Client),
    Bucket(Box<Bucket>),
}

pub(super) async fn run(
    context: &impl Fn() -> anyhow::Result<Context>,
    output: &Output,
    push: Push,
) -> anyhow::Result<()> {
    let Push { dir, id, to } = push;
    let store = match to {
        None => Store::Registry(context()?.grid()?.client),
        Some(url) => match bucket(&url)? {
            Some(bucket) => Store::Bucket(Box::new(bucket)),
            // A store of content alone belongs to no network.
            None => Store::Registry(Client::new([url
                .trim_end_matches('/')
                .trim_end_matches("/content")])?),
        },
    };
    let ids = if id.is_empty() { content::published_flists(&dir)? } else { id };
    anyhow::ensure!(!ids.is_empty(), "{} holds no flist", dir.display());
    let files = content::uploads(&dir, &ids)?;
    let bar = Bar::new();
    bar.start("uploading", files.iter().map(|file| file.bytes).sum());
    let (store, sent) = match store {
        Store::Registry(client) => (client.content_url(), upload(&client, &files, &bar).await?),
        Store::Bucket(bucket) => {
            let sent = bucket.push(&files, &now, &bar).await;
            let url = bucket.url().to_owned();
            (url.clone(), sent.with_context(|| format!("uploading to {url}"))?)
        }
    };
    drop(bar);
    output.answer(&json!({
        "flists": ids, "store": store,
        "sent": sent.files, "sent_bytes": sent.bytes, "skipped": sent.skipped,
    }));
    for id in &ids {
        output.say(format_args!("{store}/flists/{id}"));
    }
    let size = show_bytes(sent.bytes);
    output.say(format_args!(
        "{} files sent ({size}), {} were there already",
        sent.files, sent.skipped
    ));
    Ok(())
}

async fn upload(client: &Client, files: &[Upload], bar: &Bar) -> anyhow::Result<Sent> {
    let mut sent = Sent::default();
    for file in files {
        if content::upload(client, file).await? {
            sent.files += 1;
            sent.bytes += file.bytes;
        } else {
            sent.skipped += 1;
        }
        bar.advance(file.bytes);
    }
    Ok(sent)
}

/// The bucket that is meant, if one is. Its key is in the environment: arguments are seen by everybody.
pub(super) fn bucket(place: &str) -> anyhow::Result<Option<Bucket>> {
    if !place.starts_with("s3://") {
        return Ok(None);
    }
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        // What is no text is none of ours.
        Some((name.into_string().ok()?, value.into_string().ok()?))
    });
    // Nobody is asked yet: what is wrong is the address, or the environment.
    Ok(Some(Bucket::open(place, variables).map_err(|error| Usage(error.to_string()))?))
}
