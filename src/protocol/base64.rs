//! Bytes in base64 (RFC 4648, with padding), as memcached's meta commands may name keys and JSON carries what is no text. Tested below.

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The value of a letter.
fn sextet(letter: u8) -> Option<u32> {
    Some(u32::from(match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

/// The text that stands for `bytes`.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for n in 0..4 {
            let is_padding = n > three.len();
            let letter = LETTERS[(bits >> (18 - 6 * n) & 63) as usize];
            text.push(if is_padding { '=' } else { char::from(letter) });
        }
    }
    text
}

/// The bytes that `text` stands for. Only what stands for at least a byte is taken.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|letter| **letter == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.chunks_exact(4) {
        let is_last = bytes.len() / 3 == text.len() / 4 - 1;
        let padded = if is_last { padding } else { 0 };
        let mut bits = 0;
        for letter in &four[..4 - padded] {
            bits = bits << 6 | sextet(*letter)?;
        }
        bits <<= 6 * padded as u32;
        bytes.extend_from_slice(&bits.to_be_bytes()[1..4 - padded]);
    }
    Some(bytes)
}

/// The bytes that `text` stands for as memcached reads it: what is no letter is passed over, and what follows a group of four with padding in
/// it, wherever in the group, does not count.
pub fn decode_what_is(text: &[u8]) -> Option<Vec<u8>> {
    let letters: Vec<u8> = text.iter().copied().filter(|letter| *letter == b'=' || sextet(*letter).is_some()).collect();
    if letters.is_empty() || !letters.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(letters.len() / 4 * 3);
    for four in letters.chunks_exact(4) {
        let padding = four.iter().filter(|letter| **letter == b'=').count();
        let bits = four.iter().fold(0, |bits, letter| bits << 6 | sextet(*letter).unwrap_or(0));
        match padding {
            0 => bytes.extend_from_slice(&bits.to_be_bytes()[1..]),
            1 | 2 => {
                bytes.extend_from_slice(&bits.to_be_bytes()[1..4 - padding]);
                break;
            }
            _ => return None,
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_encoded_decodes(bytes in prop::collection::vec(any::<u8>(), 1..80)) {
            prop_assert_eq!(decode(encode(&bytes).as_bytes()), Some(bytes));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes: Vec<u8>) {
            if let Some(decoded) = decode(&bytes) {
                prop_assert!(!decoded.is_empty() && decoded.len() <= bytes.len());
                prop_assert_eq!(decode_what_is(&bytes), Some(decoded));
            }
            if let Some(decoded) = decode_what_is(&bytes) {
                prop_assert!(!decoded.is_empty() && decoded.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn bad_text_is_refused() {
        for bad in ["", "a", "ab", "abc", "====", "a===", "ab=c", "ab!=", "YWI=YWI="] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(decode(b"YWI=").as_deref(), Some(&b"ab"[..]));
    }

    #[test]
    fn what_is_in_base64_is_found_among_what_is_not() {
        for (text, bytes) in [
            ("Y!W\0I=", Some("ab")),
            ("YWI=YWI=", Some("ab")),
            ("YWJj", Some("abc")),
            ("YW=j", Some("a`")),
            ("====", None),
            ("YWI", None),
            ("!!", None),
        ] {
            assert_eq!(decode_what_is(text.as_bytes()).as_deref(), bytes.map(str::as_bytes), "{text}");
        }
    }
}
