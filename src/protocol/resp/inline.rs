//! Splits an inline command into arguments with Redis's quoting rules (`sdssplitargs`). Sees whole lines only. Tested below.

use bytes::Bytes;

use super::Args;

/// A quote was left open, or something other than a space follows a closing one.
#[derive(Debug, PartialEq, Eq)]
pub struct UnbalancedQuotes;

/// The arguments of `line`, which carries no line end. A blank line has none.
///
/// # Errors
/// [`UnbalancedQuotes`].
pub fn split(line: &[u8]) -> Result<Args, UnbalancedQuotes> {
    let mut args = Args::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        // Vertical tab is a space to C's isspace and not to Rust.
        if let [0x0b, after @ ..] = rest {
            rest = after;
            continue;
        }
        if rest.is_empty() {
            return Ok(args);
        }
        let (arg, after) = argument(rest)?;
        args.push(Bytes::from(arg));
        rest = after;
    }
}

/// One argument from the start of `rest`, and what follows it.
fn argument(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), UnbalancedQuotes> {
    let mut arg = Vec::new();
    loop {
        match rest {
            [] => return Ok((arg, rest)),
            [b' ' | b'\n' | b'\r' | b'\t' | 0, after @ ..] => return Ok((arg, after)),
            [b'"', after @ ..] => return double_quoted(after, arg),
            [b'\'', after @ ..] => return single_quoted(after, arg),
            [byte, after @ ..] => {
                arg.push(*byte);
                rest = after;
            }
        }
    }
}

fn double_quoted(mut rest: &[u8], mut arg: Vec<u8>) -> Result<(Vec<u8>, &[u8]), UnbalancedQuotes> {
    loop {
        let (byte, after) = match rest {
            [] => return Err(UnbalancedQuotes),
            [b'"', after @ ..] => return closed(arg, after),
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex(*high) << 4 | hex(*low), after)
            }
            [b'\\', escaped, after @ ..] => (unescaped(*escaped), after),
            [byte, after @ ..] => (*byte, after),
        };
        arg.push(byte);
        rest = after;
    }
}

fn single_quoted(mut rest: &[u8], mut arg: Vec<u8>) -> Result<(Vec<u8>, &[u8]), UnbalancedQuotes> {
    loop {
        let (byte, after) = match rest {
            [] => return Err(UnbalancedQuotes),
            [b'\\', b'\'', after @ ..] => (b'\'', after),
            [b'\'', after @ ..] => return closed(arg, after),
            [byte, after @ ..] => (*byte, after),
        };
        arg.push(byte);
        rest = after;
    }
}

/// A closing quote ends the argument: a space or the end of the line must follow.
fn closed(arg: Vec<u8>, after: &[u8]) -> Result<(Vec<u8>, &[u8]), UnbalancedQuotes> {
    match after {
        [] | [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, ..] => Ok((arg, after)),
        _ => Err(UnbalancedQuotes),
    }
}

fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        letter => (letter | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &str) -> Result<Vec<Vec<u8>>, UnbalancedQuotes> {
        Ok(split(line.as_bytes())?.iter().map(|arg| arg.to_vec()).collect())
    }

    #[test]
    fn quotes_and_escapes_are_those_of_redis() {
        for (line, expected) in [
            ("", vec![]),
            (" \t ", vec![]),
            ("set  a b ", vec!["set", "a", "b"]),
            (r"echo 'a\'b\n' ", vec!["echo", r"a'b\n"]),
            (r#"echo "a\x41\n\q\"""#, vec!["echo", "aA\nq\""]),
            (r#"echo a"b""#, vec!["echo", "ab"]),
            (r#"echo """#, vec!["echo", ""]),
            (r#""\xzz""#, vec!["xzz"]),
        ] {
            let expected: Vec<Vec<u8>> = expected.into_iter().map(|word: &str| word.as_bytes().to_vec()).collect();
            assert_eq!(words(line), Ok(expected), "{line}");
        }
        for bad in [r#"set "a"#, r#""PING"x"#, r#""a""b""#, "'a", r#""a\""#] {
            assert_eq!(words(bad), Err(UnbalancedQuotes), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_split_or_refused(line: Vec<u8>) {
            let _ = split(&line);
        }

        #[test]
        fn what_is_quoted_comes_back(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 0..5)) {
            let line: Vec<String> = words.iter().map(|word| {
                let escaped: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
                format!("\"{escaped}\"")
            }).collect();
            let split: Vec<Vec<u8>> = split(line.join(" ").as_bytes()).unwrap().iter().map(|arg| arg.to_vec()).collect();
            prop_assert_eq!(split, words);
        }
    }
}
