//! The signature language: each line is a rule with a byte pattern.

use super::problem::{Problem, only_first_if_no_rules};
use super::reader::{RULE_KEYWORDS, Reader, number};
use super::words::Word;
use crate::signature::Signature;

const SIGNATURE_KEYWORDS: &str = "text, hex, nocase, offset, depth";
const TEXT: &str =
    r#"a text in double quotes, like "GET /", with the escapes \" \\ \n \r \t and \xHH"#;
const HEX: &str = r#"bytes in double quotes, two hexadecimal digits each, like "de ad be ef""#;

/// Like [`parse`](crate::parse), for signatures.
pub fn parse_signatures(text: &str) -> Result<Vec<(usize, Signature)>, Vec<Problem>> {
    let (mut signatures, mut problems) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        match parse_signature(line) {
            Ok(Some(signature)) => signatures.push((number, signature)),
            Ok(None) => {}
            Err(problem) => problems.push(Problem { line: number, ..problem }),
        }
    }
    if problems.is_empty() {
        return Ok(signatures);
    }
    Err(only_first_if_no_rules(problems, text.lines().any(Reader::has_verdict)))
}

/// Like [`parse_rule`](crate::parse_rule), for a signature.
pub fn parse_signature(line: &str) -> Result<Option<Signature>, Problem> {
    let Some(mut reader) = Reader::begin(line)? else { return Ok(None) };
    let (mut bytes, mut no_case, mut offset, mut depth): (Option<(Word<'_>, Vec<u8>)>, _, u16, _) =
        (None, false, 0, None);
    while let Some(word) = reader.words.next() {
        if reader.read(word)? {
            continue;
        }
        match word.text {
            "text" | "hex" => {
                if let Some((earlier, _)) = &bytes {
                    let message =
                        format!("duplicate pattern: already set in column {}", earlier.column);
                    return Err(word.problem(message));
                }
                let expected = if word.text == "text" { TEXT } else { HEX };
                let pattern = reader.words.value_after(word, expected)?;
                let parsed = if word.text == "text" {
                    text_bytes(pattern.text)
                } else {
                    hex_bytes(pattern.text)
                };
                let parsed = parsed.filter(|bytes| !bytes.is_empty());
                let invalid = || {
                    pattern
                        .problem(format!("invalid pattern `{}`: expected {expected}", pattern.text))
                };
                bytes = Some((word, parsed.ok_or_else(invalid)?));
            }
            "nocase" => {
                // Rejects duplicates.
                reader.record(word)?;
                no_case = true;
            }
            "offset" => {
                reader.record(word)?;
                offset = number(&mut reader.words, word, 0, 65535)?;
            }
            "depth" => {
                reader.record(word)?;
                depth = Some((word, number::<u16>(&mut reader.words, word, 1, 65535)?));
            }
            other => {
                return Err(word.problem(format!(
                    "unknown word `{other}`: expected one of {SIGNATURE_KEYWORDS}, {RULE_KEYWORDS}"
                )));
            }
        }
    }
    let Some((_, bytes)) = bytes else {
        return Err(reader
            .words
            .end()
            .problem("missing pattern: expected text \"…\" or hex \"…\""));
    };
    if let Some((word, depth)) = depth
        && usize::from(depth) < bytes.len()
    {
        let message = format!(
            "depth {depth} is too small for the pattern of {} bytes, which would never match",
            bytes.len()
        );
        return Err(word.problem(message));
    }
    let rule = reader.finish()?;
    Ok(Some(Signature { rule, bytes, no_case, offset, depth: depth.map(|(_, depth)| depth) }))
}

/// Returns the text between the quotes; `None` if `word` is not in quotes.
fn quoted(word: &str) -> Option<&str> {
    word.strip_prefix('"')?.strip_suffix('"').filter(|_| word.len() > 1)
}

/// Returns the bytes of a `text` pattern. Returns `None` if `word` is not in quotes or an escape is
/// invalid.
fn text_bytes(word: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = quoted(word)?.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        bytes.push(match rest.next()? {
            '"' => b'"',
            '\\' => b'\\',
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'x' => {
                let (high, low) = (rest.next()?.to_digit(16)?, rest.next()?.to_digit(16)?);
                (high * 16 + low) as u8
            }
            _ => return None,
        });
    }
    Some(bytes)
}

/// Returns the bytes of a `hex` pattern. Ignores spaces. Returns `None` if `word` is not in quotes
/// or has other characters than pairs of hexadecimal digits.
fn hex_bytes(word: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = quoted(word)?
        .chars()
        .filter(|character| *character != ' ')
        .map(|digit| digit.to_digit(16))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| (high * 16 + low) as u8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(line: &str) -> Signature {
        parse_signature(line).unwrap().unwrap()
    }

    #[test]
    fn parse_signature_reads_text_hex_and_displayed_signature() {
        for line in [
            r#"drop text "GET /admin # not a comment""#,
            r#"accept proto tcp dport 80 limit 10pps burst 1 log 1/10 text "a \"b\" \\ \r\n\t\x00" nocase offset 4 depth 100"#,
            r#"continue hex "de ad be ef" offset 2"#,
        ] {
            assert_eq!(signature(&signature(line).to_string()), signature(line), "{line}");
        }
        let first = signature(r#"drop text "x # y" proto udp # a comment with "quotes""#);
        assert_eq!((&first.bytes[..], first.rule.matches.protocol), (&b"x # y"[..], Some(17)));
        assert_eq!(signature(r#"drop hex "00ff 10""#).bytes, [0, 255, 16]);
        assert_eq!(signature("drop text \"\\x41ä\"").bytes, "Aä".as_bytes());
        assert_eq!(parse_signature("# nothing"), Ok(None));
    }

    #[test]
    fn parse_signature_error_names_column_and_cause() {
        for (line, column, expected) in [
            ("drop proto tcp", 15, "missing pattern: expected text"),
            ("drop text GET", 11, "invalid pattern `GET`: expected a text in double quotes"),
            ("drop text \"open", 11, "invalid pattern"),
            ("drop text \"\"", 11, "invalid pattern"),
            ("drop text \"\\q\"", 11, "invalid pattern"),
            ("drop hex \"abc\"", 10, "invalid pattern `\"abc\"`: expected bytes"),
            ("drop hex \"zz\"", 10, "invalid pattern `\"zz\"`: expected bytes"),
            ("drop text \"a\" hex \"00\"", 15, "duplicate pattern: already set in column 6"),
            ("drop text \"abc\" depth 2", 17, "depth 2 is too small for the pattern of 3 bytes"),
            ("drop text \"abc\" depth 0", 23, "expected a number from 1 to 65535"),
            ("drop text \"abc\" nocase nocase", 24, "duplicate `nocase`"),
            ("drop text \"abc\" regex", 17, "unknown word `regex`: expected one of text, hex"),
            ("drop text \"abc\" proto icmp dport 1", 28, "protocol 1 has no dport"),
            ("text \"abc\"", 1, "unknown verdict `text`"),
        ] {
            let problem = parse_signature(line).expect_err(line);
            assert_eq!(problem.column, column, "{line}: {problem}");
            assert!(problem.message.contains(expected), "{line}: {problem}");
        }
    }
}
