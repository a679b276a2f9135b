//! What the text formats share: numbers in one form, hashes in base64.

use alloc::{string::String, vec::Vec};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use contract::merkle::Hash;

/// A decimal number without sign, leading zeros or anything else.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let is_plain =
        text.bytes().all(|c| c.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_plain { text.parse().ok() } else { None }
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Padded, and with no bits left over: each value has one text.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

pub(crate) fn hash(text: &str) -> Option<Hash> {
    from_base64(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_form() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("18446744073709551615"), Some(u64::MAX));
        for bad in ["", "00", "01", "+1", "-1", " 1", "1 ", "1_0", "0x1", "18446744073709551616"] {
            assert_eq!(decimal(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_hash_has_one_form() {
        let text = base64(&[7; 32]);
        assert_eq!(hash(&text), Some([7; 32]));
        assert_eq!(hash(text.trim_end_matches('=')), None, "without padding");
        assert_eq!(hash(&text.replace("c=", "d=")), None, "bits left over");
        assert_eq!(hash(&base64(&[7; 31])), None);
    }
}
