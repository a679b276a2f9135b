//! What the image weighs: the file `sizes.json`, which the image's builder wrote.

use super::{Figure, exact};
use crate::media::Image;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::fs;

/// A node fetches the image over the network before it can do anything.
const UKI_BYTES_MAX: f64 = 40e6;

pub(super) fn measure() -> Result<Vec<Figure>> {
    let path = Image::find()?.file("sizes.json");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    figures(&serde_json::from_str(&text).context("reading sizes.json")?)
}

fn figures(sizes: &Value) -> Result<Vec<Figure>> {
    let bytes = |name: &str| {
        let size = sizes[name].as_u64().with_context(|| format!("sizes.json has no {name}"))?;
        Ok::<_, anyhow::Error>(Figure::new(&format!("size.{name}_bytes"), "bytes", exact(size), 1))
    };
    let mut figures = vec![
        bytes("uki")?.at_most(UKI_BYTES_MAX),
        bytes("kernel")?,
        bytes("initramfs")?,
        bytes("initramfs_unpacked")?,
    ];
    let parts = sizes["parts_unpacked"].as_object().context("sizes.json has no parts_unpacked")?;
    for (name, size) in parts {
        let size = size.as_u64().with_context(|| format!("no size of {name}"))?;
        figures.push(Figure::new(&format!("size.{name}_bytes"), "bytes", exact(size), 1));
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_part_is_a_figure_and_a_missing_total_an_error() {
        let mut sizes = json!({
            "uki": 39_000_000, "kernel": 1, "initramfs": 2, "initramfs_unpacked": 3,
            "parts_unpacked": {"init": 4},
        });
        let found = figures(&sizes).unwrap();
        assert_eq!(found.len(), 5);
        assert_eq!((found[0].id.as_str(), found[0].is_kept()), ("size.uki_bytes", Some(true)));
        assert_eq!(found[4].id, "size.init_bytes");
        sizes["uki"] = json!(40_000_001);
        assert_eq!(figures(&sizes).unwrap()[0].is_kept(), Some(false));
        assert!(figures(&json!({"uki": 1})).is_err());
    }
}
