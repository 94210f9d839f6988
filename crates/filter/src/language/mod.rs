//! The languages of rules and of signatures (rules with a byte pattern, for the stage `payload`),
//! with one rule or signature per line. docs/filter.md has both grammars.

mod problem;
mod reader;
mod signature;
mod words;
mod write;

use crate::rule::Rule;
use reader::{RULE_KEYWORDS, Reader};

pub use problem::Problem;
pub(crate) use problem::{only_first_if_no_rules, start_of};
pub use signature::{parse_signature, parse_signatures};

/// Returns the rules with their line numbers, from 1. Ignores empty lines and text after `#`.
/// Returns one error for each invalid line, but only the first if no line begins with a verdict.
pub fn parse(text: &str) -> Result<Vec<(usize, Rule)>, Vec<Problem>> {
    let (mut rules, mut problems) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        match parse_rule(line) {
            Ok(Some(rule)) => rules.push((number, rule)),
            Ok(None) => {}
            Err(problem) => problems.push(Problem { line: number, ..problem }),
        }
    }
    if problems.is_empty() {
        return Ok(rules);
    }
    Err(only_first_if_no_rules(problems, text.lines().any(Reader::has_verdict)))
}

/// Parses one rule; returns `None` for an empty line or a comment. Errors have line number 1.
pub fn parse_rule(line: &str) -> Result<Option<Rule>, Problem> {
    let Some(mut reader) = Reader::begin(line)? else { return Ok(None) };
    while let Some(word) = reader.words.next() {
        if !reader.read(word)? {
            return Err(word.problem(format!(
                "unknown word `{}`: expected one of {RULE_KEYWORDS}",
                word.text
            )));
        }
    }
    reader.finish().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(line: &str) -> Rule {
        parse_rule(line).unwrap().unwrap()
    }

    #[test]
    fn parsed_rule_is_displayed_in_canonical_form() {
        for line in [
            "accept",
            "drop src 10.0.0.0/8 dst 192.0.2.1/32 proto tcp sport 1024-65535 dport 443 flags syn,!ack vlan 7 dscp 46",
            "accept ipv6 proto icmpv6 icmp-type 128 icmp-code 0",
            "drop dst 2001:db8::/32 fragment later",
            "continue proto udp dport 53 limit 10kpps burst 64 per src/24 log 1/1000",
            "accept limit 10Mbps burst 120kbit",
            "drop proto 200",
            "drop vlan 7 inner-vlan 4094",
        ] {
            assert_eq!(rule(line).to_string(), line);
        }
        assert_eq!(rule("  accept\tsrc 10.1.2.3  # a host").to_string(), "accept src 10.1.2.3/32");
        assert_eq!(rule("accept flags rst").to_string(), "accept proto tcp flags rst");
        assert_eq!(rule("accept dscp af41").matches.dscp, Some(34));
        assert_eq!(rule("accept dscp cs6").matches.dscp, Some(48));
        assert_eq!(rule("accept limit 100pps").limit.unwrap().burst, 10);
        assert_eq!(parse_rule("   # nothing"), Ok(None));
    }

    #[test]
    fn parse_rule_error_names_column_and_cause() {
        for (line, column, expected) in [
            (
                "allow src 10.0.0.0/8",
                1,
                "unknown verdict `allow`: expected accept, drop or continue",
            ),
            ("accept from 10.0.0.0/8", 8, "unknown word `from`: expected one of ipv4"),
            ("accept src 10.0.0.1/8", 12, "has bits set beyond its length: use 10.0.0.0/8"),
            (
                "accept src 10.0.0.0/33",
                12,
                "invalid prefix `10.0.0.0/33`: expected an address or a prefix",
            ),
            ("accept src", 11, "missing value after `src`"),
            ("accept src 10.0.0.0/8 dst ::1", 23, "different IP versions"),
            ("accept ipv6 src 10.0.0.0/8", 8, "not the IP version of the prefix"),
            ("accept ipv6 ipv4", 13, "duplicate `ipv4`: already set in column 8"),
            ("accept proto tpc", 14, "unknown protocol `tpc`: expected a number"),
            ("accept dport 80-70", 14, "write the smaller port first, 70-80"),
            ("accept dport 80000", 14, "invalid ports `80000`"),
            ("accept dport +80", 14, "invalid ports `+80`"),
            (
                "accept proto icmp dport 80",
                19,
                "protocol 1 has no dport: expected proto tcp, udp or sctp",
            ),
            ("accept icmp-type 8", 8, "`icmp-type` without a protocol: add `proto icmp`"),
            ("accept proto udp flags syn", 18, "protocol 17 has no flags"),
            ("accept flags syn,foo", 14, "unknown flag `foo`"),
            ("accept flags syn,!syn", 14, "duplicate flag `syn`"),
            ("accept vlan 4095", 13, "expected a number from 1 to 4094"),
            ("accept inner-vlan 0", 19, "invalid inner-vlan `0`: expected a number from 1 to 4094"),
            ("accept dscp 64", 13, "invalid DSCP `64`"),
            ("accept fragment later dport 53", 23, "`dport` never matches a later fragment"),
            ("accept fragment second", 17, "expected first, later or any"),
            ("accept limit 10", 14, "invalid rate `10`"),
            ("accept limit 0pps", 14, "invalid rate `0pps`"),
            ("accept burst 10", 8, "without a limit"),
            ("accept limit 1Mbps burst 10", 26, "invalid burst `10`: expected a number of bits"),
            ("accept src 10.0.0.0/8 limit 1pps per src/64", 34, "expected a length from 0 to 32"),
            ("accept log 1000", 12, "expected 1/N, like 1/1000"),
            ("accept ünï vlan", 8, "unknown word `ünï`"),
            ("accept vlan ünï proto", 13, "invalid vlan `ünï`"),
        ] {
            let problem = parse_rule(line).expect_err(line);
            assert_eq!(problem.column, column, "{line}: {problem}");
            assert!(problem.message.contains(expected), "{line}: {problem}");
        }
    }

    /// Errors must not reveal a secret file that is configured as rules, such as /etc/shadow.
    #[test]
    fn errors_about_other_files_quote_few_characters() {
        let shadow = "root:$6$salt$hash:19000::\ndaemon:*:19000::\n";
        let key = "a0f9e8d7c6b5a4938271605f4e3d2c1b0a1b2c3d\n";
        for (text, start) in [(shadow, "roo…"), (key, "a0f…"), ("\u{1b}[2Jx y", "\\u{1b}[2…")]
        {
            let rules = parse(text).unwrap_err();
            let signatures = parse_signatures(text).unwrap_err();
            for problems in [rules, signatures] {
                assert_eq!(problems.len(), 1, "{problems:?}");
                let expected = format!("unknown verdict `{start}`: expected accept");
                assert!(problems[0].message.starts_with(&expected), "{problems:?}");
            }
            let problems = crate::parse_classbench(text, crate::Verdict::Drop).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].message.starts_with(&format!("invalid source `{start}`")));
        }
    }

    #[test]
    fn parse_reports_every_invalid_line() {
        let problems = parse("# rules\naccept\n\ndrop it\nallow\n").unwrap_err();
        assert_eq!(
            problems.iter().map(|problem| (problem.line, problem.column)).collect::<Vec<_>>(),
            [(4, 6), (5, 1)]
        );
        let rules = parse("# rules\r\naccept\r\n\ndrop").unwrap();
        assert_eq!(rules.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4]);
    }
}
