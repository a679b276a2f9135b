//! Signed notes: a text and the signatures of any number of keys (c2sp.org/signed-note), among them
//! the cosignatures of witnesses, which say when they signed (c2sp.org/tlog-cosignature).
//!
//! A text counts only for what a known key has signed. Lines of other keys are carried along and
//! never looked at.

use crate::text::{base64, from_base64};
use alloc::{
    format,
    string::{String, ToString as _},
    vec::Vec,
};
use contract::{
    id::sha256,
    key::{PublicKey, SIGNATURE_BYTES, SigningKey},
};
use core::{fmt, str::FromStr};
use zeroize::Zeroizing;

/// The largest note: some sixteen signatures of the largest kind, and a text.
pub const NOTE_BYTES_MAX: usize = 128 << 10;
/// Signature lines of a note. Readers have to take 16.
pub const SIGNATURES_MAX: usize = 100;
/// The largest name of a key. Newer cosignatures give it one byte for its length.
pub const NAME_BYTES_MAX: usize = 255;
/// What a signature line begins with.
const MARK: &str = "\u{2014} ";

/// How a key signs, by the byte that stands for it in key ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Algorithm {
    /// Ed25519 over the text: a log.
    Ed25519 = 1,
    /// Ed25519 over the text and a time, which stands before the signature: a witness.
    Cosignature = 4,
}

/// Why a text is no note.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNote {
    /// More bytes than [`NOTE_BYTES_MAX`].
    #[error("a note has at most {NOTE_BYTES_MAX} bytes")]
    TooLarge,
    /// A byte that no note holds.
    #[error("a note is UTF-8 without control characters but the newline")]
    Character,
    /// No empty line between text and signatures, or no text, or no signature.
    #[error("a note is a text, an empty line, and signature lines")]
    Shape,
    /// A signature line that does not parse.
    #[error("signature line {number} is not: dash, name of the key, base64")]
    Line {
        /// Counted from 1.
        number: usize,
    },
    /// More signatures than [`SIGNATURES_MAX`].
    #[error("a note has at most {SIGNATURES_MAX} signatures")]
    TooManySignatures,
}

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Not three parts with plus signs between them, or one of them is not as it must be.
    #[error("a key is written as NAME+ID+KEY, the id in hexadecimal and the key in base64")]
    Shape,
    /// A name that could not be told from the rest of a line.
    #[error("the name of a key has 1 to {NAME_BYTES_MAX} bytes, no spaces, and no plus sign")]
    Name,
    /// The id is not that of the name and the key.
    #[error("the id of the key {name} does not fit its name and key")]
    Id {
        /// Name of the key.
        name: String,
    },
    /// A kind of key that is not known here.
    #[error("the key {name} is of type {algorithm}, known are 1 (Ed25519) and 4 (cosignature)")]
    Algorithm {
        /// Name of the key.
        name: String,
        /// The byte that stands for the kind.
        algorithm: u8,
    },
    /// The key itself is refused.
    #[error("the key {name} is refused")]
    Key {
        /// Name of the key.
        name: String,
        /// Why.
        #[source]
        source: contract::key::BadKey,
    },
}

/// A line of a known key whose signature does not fit: the note is not to be used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the signature of the known key {name} does not fit")]
pub struct Forged {
    /// Name of the key.
    pub name: String,
}

/// A text and its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    lines: Vec<Line>,
}

/// A signature and the key that it claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    name: String,
    id: u32,
    signature: Vec<u8>,
}

/// A key that is known by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    algorithm: Algorithm,
    key: PublicKey,
}

/// A secret key with the name under which it signs.
#[derive(Debug)]
pub struct Signer {
    verifier: Verifier,
    key: SigningKey,
}

/// What a known key says of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// Nothing: it has not signed.
    Absent,
    /// It has signed the text.
    Valid,
    /// It has signed the text, last at this time in seconds since 1970.
    At(u64),
}

impl Note {
    /// A text that nobody has signed yet. It ends in a newline.
    pub fn new(text: String) -> Result<Self, BadNote> {
        if text.len() > NOTE_BYTES_MAX {
            return Err(BadNote::TooLarge);
        }
        if !is_plain(&text) {
            return Err(BadNote::Character);
        }
        if !text.ends_with('\n') {
            return Err(BadNote::Shape);
        }
        Ok(Self { text, lines: Vec::new() })
    }

    /// Reads a note from its bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, BadNote> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(BadNote::TooLarge);
        }
        let whole = core::str::from_utf8(bytes).map_err(|_| BadNote::Character)?;
        // The last empty line: a text may have others.
        let (text, _) = whole.rsplit_once("\n\n").ok_or(BadNote::Shape)?;
        let mut note = Self::new(format!("{text}\n"))?;
        note.lines = lines(&whole[text.len() + 2..])?;
        if note.lines.is_empty() { Err(BadNote::Shape) } else { Ok(note) }
    }

    /// What is signed, with its final newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures, in their order.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Adds a signature line, or moves one that is there to the end.
    pub fn add(&mut self, line: Line) -> Result<(), BadNote> {
        self.lines.retain(|other| *other != line);
        if self.lines.len() >= SIGNATURES_MAX {
            return Err(BadNote::TooManySignatures);
        }
        self.lines.push(line);
        Ok(())
    }

    /// Adds the line of a key in place of all older ones of the same key.
    pub fn replace(&mut self, verifier: &Verifier, line: Line) -> Result<(), BadNote> {
        self.lines.retain(|other| !other.is_of(verifier));
        self.add(line)
    }

    /// Whether this key has signed. Every line of the key has to fit.
    pub fn signed_by(&self, verifier: &Verifier) -> Result<Signed, Forged> {
        let mut found = Signed::Absent;
        for line in self.lines.iter().filter(|line| line.is_of(verifier)) {
            let signed = verifier.check(&self.text, &line.signature);
            let signed = signed.ok_or_else(|| Forged { name: verifier.name.clone() })?;
            found = match (found, signed) {
                (Signed::At(one), Signed::At(other)) => Signed::At(one.max(other)),
                (_, signed) => signed,
            };
        }
        Ok(found)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.lines.iter().try_for_each(|line| line.fmt(f))
    }
}

/// Reads signature lines, each with its newline.
pub fn lines(text: &str) -> Result<Vec<Line>, BadNote> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let text = text.strip_suffix('\n').ok_or(BadNote::Shape)?;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.split('\n')) {
        if number > SIGNATURES_MAX {
            return Err(BadNote::TooManySignatures);
        }
        lines.push(line.parse().map_err(|_| BadNote::Line { number })?);
    }
    Ok(lines)
}

impl Line {
    /// Name of the key that it claims.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn is_of(&self, verifier: &Verifier) -> bool {
        self.name == verifier.name && self.id == verifier.id()
    }
}

impl FromStr for Line {
    type Err = BadNote;
    fn from_str(text: &str) -> Result<Self, BadNote> {
        let parse = || {
            let (name, signature) = text.strip_prefix(MARK)?.split_once(' ')?;
            let bytes = from_base64(signature).filter(|_| is_name(name))?;
            let (id, signature) = bytes.split_first_chunk::<4>()?;
            let id = u32::from_be_bytes(*id);
            let line = Self { name: name.into(), id, signature: signature.to_vec() };
            (!signature.is_empty()).then_some(line)
        };
        parse().ok_or(BadNote::Line { number: 1 })
    }
}

/// With its newline.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.id.to_be_bytes().as_slice(), &self.signature].concat();
        writeln!(f, "{MARK}{} {}", self.name, base64(&bytes))
    }
}

impl Verifier {
    /// A key under a name.
    pub fn new(name: &str, algorithm: Algorithm, key: PublicKey) -> Result<Self, BadKey> {
        if !is_name(name) {
            return Err(BadKey::Name);
        }
        Ok(Self { name: name.into(), algorithm, key })
    }

    /// The name under which it signs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key itself.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The number by which a line names the key, together with the name. A hint, never a proof.
    pub fn id(&self) -> u32 {
        id(&self.name, self.algorithm as u8, &self.key.to_bytes())
    }

    fn check(&self, text: &str, signature: &[u8]) -> Option<Signed> {
        match self.algorithm {
            Algorithm::Ed25519 => {
                let signature: &[u8; SIGNATURE_BYTES] = signature.try_into().ok()?;
                self.key.verifies(text.as_bytes(), signature).then_some(Signed::Valid)
            }
            Algorithm::Cosignature => {
                let (time, signature) = signature.split_first_chunk::<8>()?;
                let signature: &[u8; SIGNATURE_BYTES] = signature.try_into().ok()?;
                let time = u64::from_be_bytes(*time);
                let fits = i64::try_from(time).is_ok()
                    && self.key.verifies(cosigned(time, text).as_bytes(), signature);
                fits.then_some(Signed::At(time))
            }
        }
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = typed(self.algorithm as u8, &self.key.to_bytes());
        write!(f, "{}+{:08x}+{}", self.name, self.id(), base64(&key))
    }
}

impl FromStr for Verifier {
    type Err = BadKey;
    fn from_str(text: &str) -> Result<Self, BadKey> {
        let (name, id, algorithm, key) = parts(text)?;
        let key = PublicKey::from_bytes(&key)
            .map_err(|source| BadKey::Key { name: name.clone(), source })?;
        let verifier = Self { name, algorithm, key };
        verifier.has_id(id)?;
        Ok(verifier)
    }
}

impl Verifier {
    fn has_id(&self, id: u32) -> Result<(), BadKey> {
        if self.id() == id { Ok(()) } else { Err(BadKey::Id { name: self.name.clone() }) }
    }
}

/// What a secret key in text begins with.
const SECRET: &str = "PRIVATE+KEY+";

impl Signer {
    /// A secret key under a name.
    pub fn new(name: &str, algorithm: Algorithm, seed: &[u8; 32]) -> Result<Self, BadKey> {
        let key = SigningKey::from_seed(seed);
        Ok(Self { verifier: Verifier::new(name, algorithm, key.public())?, key })
    }

    /// Reads the text that Go's note package writes for a secret key, here also for cosignatures:
    /// `PRIVATE+KEY+NAME+ID+base64(type, seed)`.
    pub fn read(text: &str) -> Result<Self, BadKey> {
        let (name, id, algorithm, seed) = parts(text.strip_prefix(SECRET).ok_or(BadKey::Shape)?)?;
        let signer = Self::new(&name, algorithm, &seed)?;
        signer.verifier.has_id(id)?;
        Ok(signer)
    }

    /// The text that [`Signer::read`] reads, for a seed. It is as secret as the seed.
    pub fn write(
        name: &str,
        algorithm: Algorithm,
        seed: &[u8; 32],
    ) -> Result<Zeroizing<String>, BadKey> {
        let id = Self::new(name, algorithm, seed)?.verifier.id();
        let key = Zeroizing::new(base64(&typed(algorithm as u8, seed)));
        Ok(Zeroizing::new(format!("{SECRET}{name}+{id:08x}+{}", *key)))
    }

    /// The public half.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Signs a text. `time`, in seconds since 1970, counts for a cosignature only.
    pub fn sign(&self, text: &str, time: u64) -> Line {
        let signature = match self.verifier.algorithm {
            Algorithm::Ed25519 => self.key.sign(text.as_bytes()).to_vec(),
            Algorithm::Cosignature => {
                let signature = self.key.sign(cosigned(time, text).as_bytes());
                [time.to_be_bytes().as_slice(), &signature].concat()
            }
        };
        Line { name: self.verifier.name.clone(), id: self.verifier.id(), signature }
    }
}

/// What a cosignature covers.
fn cosigned(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

fn id(name: &str, algorithm: u8, key: &[u8]) -> u32 {
    let hash = sha256(&[name.as_bytes(), b"\n", &[algorithm], key].concat());
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

fn typed(algorithm: u8, key: &[u8; 32]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([&[algorithm], key.as_slice()].concat())
}

/// Name, id, kind and key of a key in text.
type Parts = (String, u32, Algorithm, Zeroizing<[u8; 32]>);

fn parts(text: &str) -> Result<Parts, BadKey> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(BadKey::Shape);
    };
    if !is_name(name) {
        return Err(BadKey::Name);
    }
    if id.len() != 8 || !id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(BadKey::Shape);
    }
    let id = u32::from_str_radix(id, 16).map_err(|_| BadKey::Shape)?;
    let bytes = Zeroizing::new(from_base64(key).ok_or(BadKey::Shape)?);
    let (algorithm, key) = bytes.split_first().ok_or(BadKey::Shape)?;
    let algorithm = match algorithm {
        1 => Algorithm::Ed25519,
        4 => Algorithm::Cosignature,
        other => return Err(BadKey::Algorithm { name: name.into(), algorithm: *other }),
    };
    let key: [u8; 32] = key.try_into().map_err(|_| BadKey::Shape)?;
    Ok((name.to_string(), id, algorithm, Zeroizing::new(key)))
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.chars().any(|c| c.is_whitespace() || c == '+' || c < ' ')
}

fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c >= ' ' || c == '\n')
}
