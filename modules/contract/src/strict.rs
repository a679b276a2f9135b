//! The one reader of statement payloads: bounded, and with a single meaning for every input.
//!
//! Refused: more bytes than the kind allows, nesting beyond [`DEPTH_MAX`], unknown and duplicate
//! fields (by the types: `deny_unknown_fields`), floats (no type takes one), trailing bytes.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::fmt;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor},
};

/// Deepest nesting of objects and arrays.
pub const DEPTH_MAX: usize = 32;

/// Why bytes are not the JSON that we read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// More bytes than this kind of statement may have.
    #[error("{size} bytes, where at most {max} are allowed")]
    TooLarge {
        /// Size of the input in bytes.
        size: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// Objects and arrays nested too deeply.
    #[error("nested more than {DEPTH_MAX} levels deep")]
    TooDeep,
    /// Not JSON of the expected shape.
    #[error("not of the expected form")]
    Json(#[source] serde_json::Error),
}

/// Reads a `T` from exactly these bytes.
pub fn read<T: DeserializeOwned>(bytes: &[u8], size_max: usize) -> Result<T, ReadError> {
    if bytes.len() > size_max {
        return Err(ReadError::TooLarge { size: bytes.len(), max: size_max });
    }
    if depth(bytes) > DEPTH_MAX {
        return Err(ReadError::TooDeep);
    }
    serde_json::from_slice(bytes).map_err(ReadError::Json)
}

/// Deepest nesting of brackets outside strings. Right for valid JSON, which is all that passes.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in bytes {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The open part of a statement: any JSON without floats and duplicate keys.
pub type Extensions = StrictMap;

/// A JSON object whose keys are unique.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct StrictMap(pub BTreeMap<String, StrictValue>);

impl StrictMap {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A JSON value without floats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum StrictValue {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<StrictValue>),
    /// An object.
    Map(StrictMap),
}

impl<'de> Deserialize<'de> for StrictMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match StrictValue::deserialize(deserializer)? {
            StrictValue::Map(map) => Ok(map),
            _ => Err(D::Error::custom("an object is expected")),
        }
    }
}

impl<'de> Deserialize<'de> for StrictValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = StrictValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON without floats")
            }
            fn visit_unit<E>(self) -> Result<StrictValue, E> {
                Ok(StrictValue::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<StrictValue, E> {
                Ok(StrictValue::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<StrictValue, E> {
                Ok(StrictValue::Integer(value))
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<StrictValue, E> {
                i64::try_from(value).map(StrictValue::Integer).map_err(E::custom)
            }
            fn visit_str<E>(self, value: &str) -> Result<StrictValue, E> {
                Ok(StrictValue::Text(value.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<StrictValue, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = seq.next_element()? {
                    list.push(value);
                }
                Ok(StrictValue::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<StrictValue, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((key, value)) = access.next_entry::<String, StrictValue>()? {
                    if map.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("duplicate key {key}")));
                    }
                    map.insert(key, value);
                }
                Ok(StrictValue::Map(StrictMap(map)))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, string::ToString as _};

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        a: u32,
        #[serde(default)]
        extensions: Extensions,
    }

    #[test]
    fn a_well_formed_payload_is_read() {
        let sample: Sample = read(br#"{"a":1,"extensions":{"x":[1,{"y":null}]}}"#, 100).unwrap();
        assert_eq!(sample.a, 1);
        assert_eq!(sample.extensions.0.len(), 1);
    }

    #[test]
    fn every_second_meaning_is_refused() {
        for bad in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"b":2}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1} "x""#,
            r#"{"a":1,"extensions":{"x":1,"x":2}}"#,
            r#"{"a":1,"extensions":{"x":1.5}}"#,
            r#"{"a":"1"}"#,
            r#"{"a":1"#,
        ] {
            assert!(
                matches!(read::<Sample>(bad.as_bytes(), 100), Err(ReadError::Json(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let long = format!(r#"{{"a":1,"extensions":{{"x":"{}"}}}}"#, "y".repeat(100));
        assert!(read::<Sample>(long.as_bytes(), 1000).is_ok());
        assert!(matches!(read::<Sample>(long.as_bytes(), 99), Err(ReadError::TooLarge { .. })));

        let nested = |levels: usize| {
            let (open, close) = ("[".repeat(levels), "]".repeat(levels));
            format!(r#"{{"a":1,"extensions":{{"x":{open}{close}}}}}"#)
        };
        assert!(read::<Sample>(nested(DEPTH_MAX - 2).as_bytes(), 1000).is_ok());
        let error = read::<Sample>(nested(DEPTH_MAX - 1).as_bytes(), 1000).unwrap_err();
        assert!(matches!(error, ReadError::TooDeep), "{}", error.to_string());
    }

    #[test]
    fn brackets_inside_strings_do_not_count() {
        let text = format!(r#"{{"a":1,"extensions":{{"x":"\"{}"}}}}"#, "[".repeat(50));
        assert!(read::<Sample>(text.as_bytes(), 1000).is_ok());
    }
}
