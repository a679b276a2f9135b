//! File system ids, as btrfs stores and prints them.

use std::fmt;

/// A file system id: 16 bytes, printed in the usual 8-4-4-4-12 form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// A version 4 id from 16 random bytes.
    pub fn from_random(mut random: [u8; 16]) -> Self {
        random[6] = random[6] & 0x0f | 0x40;
        random[8] = random[8] & 0x3f | 0x80;
        Self(random)
    }

    /// The id as it stands in a superblock.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id as it stands in a superblock.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads the printed form.
    pub fn parse(text: &str) -> Option<Self> {
        let dashes = [8, 13, 18, 23];
        let shaped = text.len() == 36 && dashes.iter().all(|&at| text.as_bytes()[at] == b'-');
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let bytes = hex::decode(digits).ok()?.try_into().ok()?;
        shaped.then_some(Self(bytes))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = hex::encode(self.0);
        let (a, b, c) = (&digits[..8], &digits[8..12], &digits[12..16]);
        write!(f, "{a}-{b}-{c}-{}-{}", &digits[16..20], &digits[20..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_printing_and_reading() {
        let id = Uuid::from_random([0xff; 16]);
        assert_eq!(id.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(Uuid::parse(&id.to_string()), Some(id));
    }

    #[test]
    fn text_of_another_shape_is_no_id() {
        let id = Uuid::from_random([7; 16]).to_string();
        let moved = format!("{}-{}", &id[..7], id[7..].replacen('-', "", 1));
        for bad in ["", "../../etc", &id[1..], &id.replace('-', ""), &moved, &id.replace('0', "é")]
        {
            assert_eq!(Uuid::parse(bad), None, "{bad}");
        }
    }
}
