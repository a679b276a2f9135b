//! Parses the extended headers of tar files (POSIX.1-2001 pax). Pure.

use std::collections::BTreeMap;

/// Keys and raw values of one extended header: `<length> <key>=<value>\n`, length of the whole.
///
/// Refuses everything that two parsers could read in two ways, as a sentence.
pub(super) fn parse(mut bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, &'static str> {
    let mut records = BTreeMap::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(8).position(|c| *c == b' ').ok_or("has no length")?;
        let digits = &bytes[..space];
        if digits.is_empty() || digits[0] == b'0' || !digits.iter().all(u8::is_ascii_digit) {
            return Err("has a malformed length");
        }
        let length: usize =
            str::from_utf8(digits).ok().and_then(|n| n.parse().ok()).ok_or("has no length")?;
        let record = bytes.get(space + 1..length).ok_or("has a wrong length")?;
        let record = record.strip_suffix(b"\n").ok_or("has a record without its end")?;
        let equals = record.iter().position(|c| *c == b'=').ok_or("has a record without a key")?;
        let key = str::from_utf8(&record[..equals]).map_err(|_| "has a key that is no text")?;
        if records.insert(key.to_owned(), record[equals + 1..].to_vec()).is_some() {
            return Err("has a key twice");
        }
        bytes = &bytes[length..];
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_contain_anything() {
        let records = parse(b"12 path=a/b\n14 x.y=1\n=2\n3\n").unwrap();
        assert_eq!(records["path"], b"a/b");
        assert_eq!(records["x.y"], b"1\n=2\n3");
    }

    #[test]
    fn ambiguous_records_are_refused() {
        let rows: &[&[u8]] = &[
            b"path=a",
            b"012 path=a/b\n",
            b"+12 path=ab\n",
            b"11 path=a/b\n",
            b"99 path=a/b\n",
            b"2 ",
            b"8 noval\n",
            b"10 path=a\n10 path=b\n",
            b"999999999999 path=a\n",
        ];
        for row in rows {
            assert!(parse(row).is_err(), "{}", row.escape_ascii());
        }
    }
}
