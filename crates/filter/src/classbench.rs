//! The rule format of the benchmark ClassBench (Taylor and Turner, 2007), such as
//! `@10.0.0.0/8 192.0.2.0/24 0 : 65535 80 : 80 0x06/0xFF`.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use crate::language::{Problem, only_first_if_no_rules, start_of};
use crate::rule::{Match, Rule, Verdict, Version};

/// The rules of a ClassBench file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassBench {
    /// Rules with their line numbers, from 1.
    pub rules: Vec<(usize, Rule)>,
    /// Number of rules with (ignored) columns after the protocol.
    pub rules_with_extra_columns: usize,
}

/// Parses a ClassBench file; all rules get `verdict`. Ignores empty lines and text after `#`.
/// Returns one error for each invalid line, but only the first if no line begins with `@`.
///
/// The prefix `0.0.0.0/0` and the port range `0 : 65535` are no conditions: such port ranges
/// also match packets without ports.
pub fn parse_classbench(text: &str, verdict: Verdict) -> Result<ClassBench, Vec<Problem>> {
    let (mut rules, mut problems, mut rules_with_extra_columns) = (Vec::new(), Vec::new(), 0);
    for (line, text) in (1..).zip(text.lines()) {
        let mut columns =
            Columns { line, text: text.split('#').next().unwrap_or_default(), offset: 0 };
        if columns.text.trim().is_empty() {
            continue;
        }
        match columns.rule() {
            Ok((matches, has_extra_columns)) => {
                rules_with_extra_columns += usize::from(has_extra_columns);
                rules.push((line, Rule { matches, verdict: Some(verdict), ..Rule::default() }));
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(ClassBench { rules, rules_with_extra_columns })
    } else {
        let has_rules = text.lines().any(|line| line.trim_start().starts_with('@'));
        Err(only_first_if_no_rules(problems, has_rules))
    }
}

struct Columns<'a> {
    line: usize,
    text: &'a str,
    offset: usize,
}

impl<'a> Columns<'a> {
    /// Returns the next word and its offset or, at the end of the line, an error with `expected`.
    fn next(&mut self, expected: &str) -> Result<(&'a str, usize), Problem> {
        let rest = &self.text[self.offset..];
        let Some(start) = rest.find(|character: char| !character.is_whitespace()) else {
            return Err(self.problem(
                self.text.trim_end().len(),
                format!("the line is too short: expected {expected}"),
            ));
        };
        let start = self.offset + start;
        let length =
            self.text[start..].find(char::is_whitespace).unwrap_or(self.text.len() - start);
        self.offset = start + length;
        Ok((&self.text[start..self.offset], start))
    }

    fn problem(&self, offset: usize, message: String) -> Problem {
        Problem { line: self.line, column: self.text[..offset].chars().count() + 1, message }
    }

    /// Returns the conditions of the rule, and whether further columns follow.
    fn rule(&mut self) -> Result<(Match, bool), Problem> {
        const SOURCE: &str = "@ and the source prefix, like @10.0.0.0/8";
        let (word, offset) = self.next(SOURCE)?;
        let Some(source) = word.strip_prefix('@') else {
            let start = start_of(word);
            return Err(
                self.problem(offset, format!("invalid source `{start}`: expected {SOURCE}"))
            );
        };
        let source = self.prefix(source, offset + 1)?; // after the @
        let (word, offset) = self.next("the destination prefix")?;
        let destination = self.prefix(word, offset)?;
        let source_port = self.range()?;
        let destination_port = self.range()?;
        const PROTOCOL: &str = "the protocol and its mask, like 0x06/0xFF or 0x00/0x00";
        let (word, offset) = self.next(PROTOCOL)?;
        let hexadecimal = |text: &str| u8::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        let protocol = word
            .split_once('/')
            .and_then(|(value, mask)| Some((hexadecimal(value)?, hexadecimal(mask)?)));
        let protocol = match protocol {
            Some((_, 0)) => None,
            Some((protocol, 0xff)) => Some(protocol),
            _ => {
                return Err(
                    self.problem(offset, format!("invalid protocol `{word}`: expected {PROTOCOL}"))
                );
            }
        };
        let prefix_condition =
            |prefix: Ipv4Net| Some(IpNet::V4(prefix)).filter(|prefix| prefix.prefix_len() > 0);
        let range_condition =
            |range: RangeInclusive<u16>| Some(range).filter(|range| *range != (0..=u16::MAX));
        let matches = Match {
            version: Some(Version::V4),
            source: prefix_condition(source),
            destination: prefix_condition(destination),
            protocol,
            source_port: range_condition(source_port),
            destination_port: range_condition(destination_port),
            ..Match::default()
        };
        Ok((matches, !self.text[self.offset..].trim().is_empty()))
    }

    fn prefix(&self, word: &str, offset: usize) -> Result<Ipv4Net, Problem> {
        let invalid = || {
            self.problem(offset, format!("invalid prefix `{word}`: expected one like 192.0.2.0/24"))
        };
        let (address, length) = word.split_once('/').ok_or_else(invalid)?;
        let address = Ipv4Addr::from_str(address).map_err(|_| invalid())?;
        let prefix =
            Ipv4Net::new(address, length.parse().map_err(|_| invalid())?).map_err(|_| invalid())?;
        // Clear the bits beyond the prefix length: the ClassBench generator may set them.
        Ok(prefix.trunc())
    }

    fn range(&mut self) -> Result<RangeInclusive<u16>, Problem> {
        const RANGE: &str = "a range of ports, like 0 : 65535";
        let (first, offset) = self.next(RANGE)?;
        let (colon, _) = self.next(RANGE)?;
        let (last, _) = self.next(RANGE)?;
        match (first.parse::<u16>(), colon, last.parse::<u16>()) {
            (Ok(first), ":", Ok(last)) if first <= last => Ok(first..=last),
            _ => Err(self.problem(
                offset,
                format!("invalid ports `{first} {colon} {last}`: expected {RANGE}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_classbench_reads_generated_rules() {
        let text = "@10.1.0.0/16\t192.0.2.7/32\t0 : 65535\t80 : 80\t0x06/0xFF\t0x0000/0x0200\t\n\
                    @0.0.0.0/0 0.0.0.0/0 0 : 65535 0 : 65535 0x00/0x00\n";
        let ClassBench { rules, rules_with_extra_columns } =
            parse_classbench(text, Verdict::Drop).unwrap();
        let displayed: Vec<_> = rules.iter().map(|(line, rule)| format!("{line} {rule}")).collect();
        assert_eq!(
            displayed,
            ["1 drop ipv4 src 10.1.0.0/16 dst 192.0.2.7/32 proto tcp dport 80", "2 drop ipv4"]
        );
        assert_eq!(rules_with_extra_columns, 1);
    }

    #[test]
    fn parse_classbench_error_names_column() {
        for (line, column) in [
            ("10.0.0.0/8 0.0.0.0/0 0 : 1 0 : 1 0x06/0xFF", 1),
            ("@10.0.0.0/40 0.0.0.0/0 0 : 1 0 : 1 0x06/0xFF", 2),
            ("@10.0.0.0/8 0.0.0.0/0 5 : 1 0 : 1 0x06/0xFF", 23),
            ("@10.0.0.0/8 0.0.0.0/0 0 : 1 0 : 1 0x06/0x0F", 35),
            ("@10.0.0.0/8 0.0.0.0/0 0 : 1", 28),
        ] {
            let problems = parse_classbench(line, Verdict::Drop).unwrap_err();
            assert_eq!(problems[0].column, column, "{problems:?}");
        }
    }
}
