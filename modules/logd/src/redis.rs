//! The two words of Redis that we speak: PUBLISH, and its answers (RESP 2).
//!
//! Refuses every answer but a number and an error.

/// Longest answer in bytes, with its end.
pub const ANSWER_MAX: usize = 512;

/// What the bytes begin with that a server has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Too few bytes; more may come.
    Short,
    /// It took the message; so many bytes say so.
    Taken(usize),
    /// It did not, and says why.
    Refused(String),
    /// Nothing that answers a PUBLISH.
    Bad,
}

/// Adds the request to publish `message`.
pub fn publish(channel: &str, message: &str, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(b"*3\r\n");
    for word in ["PUBLISH", channel, message] {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
}

/// Understands what a server has sent.
pub fn answer(bytes: &[u8]) -> Answer {
    let window = &bytes[..bytes.len().min(ANSWER_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < ANSWER_MAX { Answer::Short } else { Answer::Bad };
    };
    match window[..end].split_first() {
        Some((b':', number)) if !number.is_empty() && number.iter().all(u8::is_ascii_digit) => {
            Answer::Taken(end + 2)
        }
        Some((b'-', text)) => Answer::Refused(String::from_utf8_lossy(text).into_owned()),
        _ => Answer::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_become_another_request() {
        let mut bytes = Vec::new();
        publish("c", "ä\r\nFLUSHALL\r\n", &mut bytes);
        let text = "*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$14\r\nä\r\nFLUSHALL\r\n\r\n";
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }

    #[test]
    fn only_numbers_and_errors_are_answers() {
        let rows: [(&[u8], Answer); 12] = [
            (b":0\r\n", Answer::Taken(4)),
            (b":12\r\n:1\r\n", Answer::Taken(5)),
            (b"", Answer::Short),
            (b":1\r", Answer::Short),
            (b"-NOAUTH who?\r\n", Answer::Refused("NOAUTH who?".into())),
            (b"-\r\n", Answer::Refused(String::new())),
            (b":\r\n", Answer::Bad),
            (b":-1\r\n", Answer::Bad),
            (b"+OK\r\n", Answer::Bad),
            (b"\r\n", Answer::Bad),
            (b"$5\r\nhello\r\n", Answer::Bad),
            (&[b':'; ANSWER_MAX], Answer::Bad),
        ];
        for (bytes, want) in rows {
            assert_eq!(answer(bytes), want, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
