//! What the server of a bucket says: of an error, as the command line shows it, and of what it has.

/// One line, and a short one. What stands beside code and message is not shown.
pub fn bucket_error(data: &[u8]) -> bool {
    let said = threebot::place::said(data);
    assert!(said.chars().count() <= 602, "it grows with the answer");
    assert!(!said.chars().any(char::is_control), "more than a line");
    !said.is_empty()
}

/// One that is taken says that it ends, or where it goes on; and what goes on where it began is not taken.
pub fn bucket_listing(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    let is_taken = threebot::place::is_listing(data, None);
    let next = text.split("<NextContinuationToken>").nth(1).and_then(|rest| rest.split('<').next());
    if is_taken {
        let goes_on = next.is_some_and(|token| !token.trim().is_empty());
        assert!(goes_on || text.contains("<IsTruncated>false<"), "cut off, and taken for whole");
    }
    if let Some(token) = next.map(str::trim).filter(|token| !token.is_empty()) {
        assert!(!threebot::place::is_listing(data, Some(token)), "the same part for ever");
    }
    is_taken
}
