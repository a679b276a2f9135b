//! What others have published of envelopes and signatures, and what another implementation says of it.
//!
//! The other one is `ring` (`BoringSSL`). Whatever we take, it takes; where it takes more, the reason
//! stands beside the case.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "the whole file is tests, and a vector that cannot be read fails them"
)]

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use contract::{PublicKey, SigningKey, envelope::pae, key::BadKey};
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
use serde_json::Value;

fn bytes(hexadecimal: &str) -> Vec<u8> {
    hex::decode(hexadecimal).unwrap()
}

fn key(bytes: &[u8]) -> Result<PublicKey, BadKey> {
    PublicKey::from_bytes(bytes.try_into().unwrap())
}

fn ours(key_bytes: &[u8], message: &[u8], signature: &[u8]) -> bool {
    key(key_bytes).is_ok_and(|key| key.verifies(message, signature.try_into().unwrap()))
}

fn theirs(key_bytes: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key_bytes).verify(message, signature).is_ok()
}

#[test]
fn the_signature_of_the_dsse_specification_is_over_what_we_encode() {
    // From protocol.md of github.com/secure-systems-lab/dsse, ECDSA over P-256 with SHA-256.
    let mut point = vec![4];
    point.extend(bytes("67cd390f77aa359cb08c2235f652270493a9ed832b0abcc01f70954c0390d238"));
    point.extend(bytes("0c782bd54e269125a44f4433aff1432ce94e12bca73aa67ac80cea12608ddf74"));
    let signature =
        "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA==";
    let signature = BASE64.decode(signature).unwrap();
    let verifies = |kind: &str, payload: &[u8]| {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point);
        key.verify(&pae(kind, payload), &signature).is_ok()
    };
    assert!(verifies("http://example.com/HelloWorld", b"hello world"));
    assert!(!verifies("http://example.com/HelloWorld", b"hello worlds"));
    // The lengths hold type and payload apart, and count bytes.
    assert!(!verifies("http://example.com/HelloWorld 11", b"hello world"));
    assert_eq!(pae("é", b""), "DSSEv1 2 é 0 ".as_bytes());
}

#[test]
fn keys_and_signatures_are_those_of_rfc_8032() {
    // Section 7.1: secret seed, public key, message, signature.
    for [seed, public, message, signature] in [
        [
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ],
        [
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ],
        [
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ],
        [
            "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
        ],
    ] {
        let (message, signature) = (bytes(message), bytes(signature));
        let signer = SigningKey::from_seed(&bytes(seed).try_into().unwrap());
        assert_eq!(signer.public().to_string(), public);
        assert_eq!(signer.sign(&message), *signature);
        assert!(ours(&bytes(public), &message, &signature));
        assert!(theirs(&bytes(public), &message, &signature));
        // `s` and `s + L` fulfil the same equation: only the smaller one is a signature.
        let second = plus_order(&signature);
        assert!(!ours(&bytes(public), &message, &second));
        assert!(!theirs(&bytes(public), &message, &second));
    }
}

/// The signature with the order of the group added to its second half.
fn plus_order(signature: &[u8]) -> Vec<u8> {
    let order = bytes("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut sum = signature.to_vec();
    let mut carry = 0;
    for (byte, addend) in sum[32..].iter_mut().zip(order) {
        let total = u16::from(*byte) + u16::from(addend) + carry;
        *byte = total.to_le_bytes()[0];
        carry = total >> 8;
    }
    assert_eq!(carry, 0);
    sum
}

/// What is done about a case of the published set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Both,
    Neither,
    /// We are stricter.
    Theirs,
}

#[test]
fn we_take_no_edge_case_that_another_does_not() {
    use Taken::{Both, Neither, Theirs};
    let expected = [
        (Theirs, "a key of small order fits any message: we know no such key"),
        (Theirs, "the same, with another commitment"),
        (Theirs, "a commitment of small order: anybody could have made it for some message"),
        (Both, "key and commitment have a part of small order, and the equation holds with it"),
        (Neither, "the equation holds only when it is multiplied by the cofactor"),
        (Neither, "the same, with a commitment of full order"),
        (Neither, "the scalar is above the order of the group"),
        (Neither, "the scalar is far above the order of the group"),
        (Neither, "a second encoding of the commitment, hashed as the first"),
        (Neither, "a second encoding of the commitment, hashed as it is"),
        (Neither, "a second encoding of a key of small order, hashed as the first"),
        (Theirs, "a second encoding of a key of small order, hashed as it is"),
    ];
    let lines = include_str!("data/ed25519-speccheck.jsonl").lines();
    let cases: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(cases.len(), expected.len());
    for (case, (wanted, why)) in cases.iter().zip(expected) {
        let [public, message, signature] =
            ["pub_key", "message", "signature"].map(|name| bytes(case[name].as_str().unwrap()));
        let taken =
            match (ours(&public, &message, &signature), theirs(&public, &message, &signature)) {
                (true, true) => Both,
                (false, false) => Neither,
                (false, true) => Theirs,
                (true, false) => panic!("we alone take it: {why}"),
            };
        assert_eq!(taken, wanted, "{why}");
    }
}

#[test]
fn no_point_of_small_order_is_a_key_however_it_is_written() {
    // The eight points, then the six second encodings that 32 bytes leave room for.
    let first = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    ];
    let second = [
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ];
    for point in first {
        assert_eq!(key(&bytes(point)), Err(BadKey::Weak), "{point}");
    }
    for point in second {
        assert_eq!(key(&bytes(point)), Err(BadKey::NotAPoint), "{point}");
    }
}

#[test]
fn both_agree_on_every_bit_of_what_both_sign() {
    let seed = [42; 32];
    let (mine, message) = (SigningKey::from_seed(&seed), b"zero-os");
    let other = ring::signature::Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    let (public, signature) = (mine.public().to_bytes(), mine.sign(message));
    assert_eq!(other.sign(message).as_ref(), signature);
    assert!(ours(&public, message, &signature) && theirs(&public, message, &signature));
    for bit in 0..signature.len() * 8 {
        let mut changed = signature;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!ours(&public, message, &changed), "bit {bit} of the signature");
        assert!(!theirs(&public, message, &changed), "bit {bit} of the signature");
    }
    for bit in 0..public.len() * 8 {
        let mut changed = public;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!ours(&changed, message, &signature), "bit {bit} of the key");
        assert!(!theirs(&changed, message, &signature), "bit {bit} of the key");
    }
}
