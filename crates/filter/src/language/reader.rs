//! Reads a rule from one line, keyword by keyword.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;

use super::problem::{Problem, start_of};
use super::words::{Word, Words};
use super::write::{FLAG_NAMES, PROTOCOLS};
use crate::rule::{FragmentMatch, Limit, Match, Per, Rule, TcpFlags, Unit, Verdict, Version};

pub(super) const RULE_KEYWORDS: &str = "ipv4, ipv6, src, dst, proto, sport, dport, flags, \
    icmp-type, icmp-code, vlan, inner-vlan, fragment, dscp, limit, log";
const PREFIX: &str = "an address or a prefix, like 192.0.2.0/24 or 2001:db8::/32";
const PROTOCOL: &str = "a number from 0 to 255, or one of icmp, igmp, ipip, tcp, udp, ipv6, gre, \
    esp, ah, icmpv6, sctp";
const PORTS: &str = "a port or a range of ports, like 53 or 1024-65535";
const FLAGS: &str = "fin, syn, rst, psh, ack, urg, ece or cwr, separated by commas, with ! before \
    a flag that must not be set, like syn,!ack";
const DSCP: &str = "a number from 0 to 63, or one of ef, cs0 to cs7, af11 to af43";
const RATE: &str = "a rate of at most 1000G, like 1000pps, 5kpps, 2Mpps, 100kbps, 10Mbps or 1Gbps";

const TCP: u8 = 6;
const PROTOCOLS_WITH_PORTS: [u8; 3] = [TCP, 17, 132];
const ICMP_PROTOCOLS: [u8; 2] = [1, 58];

pub(super) struct Reader<'a> {
    pub(super) words: Words<'a>,
    pub(super) rule: Rule,
    /// The keywords read so far.
    seen: Vec<Word<'a>>,
}

impl<'a> Reader<'a> {
    /// Reads the verdict at the start of a line. Returns `None` if the line is empty or a comment.
    pub(super) fn begin(line: &'a str) -> Result<Option<Self>, Problem> {
        let mut words = Words::new(line);
        let Some(first) = words.next() else { return Ok(None) };
        let verdict = match first.text {
            "accept" => Some(Verdict::Accept),
            "drop" => Some(Verdict::Drop),
            "continue" => None,
            other => {
                return Err(first.problem(format!(
                    "unknown verdict `{}`: expected accept, drop or continue",
                    start_of(other)
                )));
            }
        };
        Ok(Some(Self { words, rule: Rule { verdict, ..Rule::default() }, seen: Vec::new() }))
    }

    /// Returns whether the line begins like a rule.
    pub(super) fn has_verdict(line: &str) -> bool {
        let first = Words::new(line).next();
        first.is_some_and(|word| matches!(word.text, "accept" | "drop" | "continue"))
    }

    /// Records a keyword, or returns an error if it is a duplicate.
    pub(super) fn record(&mut self, word: Word<'a>) -> Result<(), Problem> {
        if let Some(earlier) = self.seen.iter().find(|seen| seen.text == word.text) {
            return Err(word.problem(format!(
                "duplicate `{}`: already set in column {}",
                word.text, earlier.column
            )));
        }
        self.seen.push(word);
        Ok(())
    }

    /// Reads a keyword and its value. Returns `false` if `word` is not a keyword of rules.
    pub(super) fn read(&mut self, word: Word<'a>) -> Result<bool, Problem> {
        // `ipv4` and `ipv6` exclude each other, so both are recorded as `ipv4`.
        let recorded_as = if word.text == "ipv6" { "ipv4" } else { word.text };
        if let Err(problem) = self.record(Word { text: recorded_as, ..word }) {
            return Err(Problem {
                message: problem.message.replacen(
                    &format!("`{recorded_as}`"),
                    &format!("`{}`", word.text),
                    1,
                ),
                ..problem
            });
        }
        let Rule { matches, .. } = &mut self.rule;
        match word.text {
            "ipv4" => matches.version = Some(Version::V4),
            "ipv6" => matches.version = Some(Version::V6),
            "src" => matches.source = Some(prefix(self.words.value_after(word, PREFIX)?)?),
            "dst" => matches.destination = Some(prefix(self.words.value_after(word, PREFIX)?)?),
            "proto" => matches.protocol = Some(protocol(self.words.value_after(word, PROTOCOL)?)?),
            "sport" => matches.source_port = Some(ports(self.words.value_after(word, PORTS)?)?),
            "dport" => {
                matches.destination_port = Some(ports(self.words.value_after(word, PORTS)?)?)
            }
            "flags" => matches.flags = Some(flags(self.words.value_after(word, FLAGS)?)?),
            "icmp-type" => matches.icmp_type = Some(number(&mut self.words, word, 0, 255)?),
            "icmp-code" => matches.icmp_code = Some(number(&mut self.words, word, 0, 255)?),
            "vlan" => matches.vlan = Some(number(&mut self.words, word, 1, 4094)?),
            "inner-vlan" => matches.inner_vlan = Some(number(&mut self.words, word, 1, 4094)?),
            "dscp" => matches.dscp = Some(dscp(self.words.value_after(word, DSCP)?)?),
            "fragment" => {
                const WHICH: &str = "first, later or any";
                let which = self.words.value_after(word, WHICH)?;
                matches.fragment = Some(match which.text {
                    "first" => FragmentMatch::First,
                    "later" => FragmentMatch::Later,
                    "any" => FragmentMatch::Any,
                    other => {
                        return Err(
                            which.problem(format!("unknown fragment `{other}`: expected {WHICH}"))
                        );
                    }
                });
            }
            "limit" => {
                let (rate, unit) = rate(self.words.value_after(word, RATE)?)?;
                self.rule.limit = Some(Limit {
                    rate,
                    unit,
                    burst: Limit::default_burst(rate, unit),
                    per: Per::Rule,
                });
            }
            "burst" | "per" => self.read_limit_option(word)?,
            "log" => {
                const SAMPLE: &str = "1/N, like 1/1000 for one of 1000 packets";
                let value = self.words.value_after(word, SAMPLE)?;
                let sample = value
                    .text
                    .strip_prefix("1/")
                    .and_then(digits)
                    .filter(|&sample: &u32| sample > 0);
                let sample = sample.ok_or_else(|| {
                    value.problem(format!("invalid sample `{}`: expected {SAMPLE}", value.text))
                })?;
                self.rule.log = Some(sample);
            }
            _ => {
                self.seen.pop();
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn read_limit_option(&mut self, word: Word<'a>) -> Result<(), Problem> {
        let Some(limit) = &mut self.rule.limit else {
            return Err(word.problem(format!(
                "`{}` without a limit: write `limit RATE` before it",
                word.text
            )));
        };
        if word.text == "burst" {
            let expected = match limit.unit {
                Unit::Packets => "a number of packets, at least 1, like 64 or 2k",
                Unit::Bits => "a number of bits, at least 1, like 12000bit, 100kbit or 1Mbit",
            };
            let value = self.words.value_after(word, expected)?;
            let number = if limit.unit == Unit::Bits {
                value.text.strip_suffix("bit")
            } else {
                Some(value.text)
            };
            let burst = number.and_then(number_with_suffix).filter(|&burst| burst > 0);
            limit.burst = burst.ok_or_else(|| {
                value.problem(format!("invalid burst `{}`: expected {expected}", value.text))
            })?;
        } else {
            const SOURCE: &str =
                "src/LENGTH, like src/24 for one bucket per source prefix of 24 bits";
            let value = self.words.value_after(word, SOURCE)?;
            let length =
                value.text.strip_prefix("src/").and_then(digits).filter(|&len: &u8| len <= 128);
            let length = length.ok_or_else(|| {
                value.problem(format!("invalid `per {}`: expected {SOURCE}", value.text))
            })?;
            limit.per = Per::Source(length);
        }
        Ok(())
    }

    /// Returns the recorded keyword, or an empty word in column 1, for the column of an error.
    pub(super) fn recorded(&self, text: &str) -> Word<'a> {
        self.seen
            .iter()
            .copied()
            .find(|word| word.text == text)
            .unwrap_or(Word { text: "", column: 1 })
    }

    /// Checks conditions that involve several keywords.
    pub(super) fn finish(mut self) -> Result<Rule, Problem> {
        let Match { source, destination, protocol, fragment, .. } = &self.rule.matches;
        let version_of =
            |prefix: &IpNet| if prefix.addr().is_ipv4() { Version::V4 } else { Version::V6 };
        let (source, destination) =
            (source.as_ref().map(version_of), destination.as_ref().map(version_of));
        if let (Some(source), Some(destination)) = (source, destination)
            && source != destination
        {
            return Err(self.recorded("dst").problem(
                "source and destination have different IP versions: the rule would never match",
            ));
        }
        if let (Some(version), Some(prefix_version)) =
            (self.rule.matches.version, source.or(destination))
            && version != prefix_version
        {
            return Err(self
                .recorded("ipv4")
                .problem("not the IP version of the prefix: the rule would never match"));
        }
        let upper_layer_keywords = ["sport", "dport", "flags", "icmp-type", "icmp-code"];
        let upper_layer_word =
            self.seen.iter().copied().find(|word| upper_layer_keywords.contains(&word.text));
        if let Some(word) = upper_layer_word
            && *fragment == Some(FragmentMatch::Later)
        {
            let message = format!(
                "`{}` never matches a later fragment, which has no upper-layer header",
                word.text
            );
            return Err(word.problem(message));
        }
        for (words, protocols, names) in [
            (&["sport", "dport"][..], &PROTOCOLS_WITH_PORTS[..], "tcp, udp or sctp"),
            (&["flags"], &[TCP], "tcp"),
            (&["icmp-type", "icmp-code"], &ICMP_PROTOCOLS, "icmp or icmpv6"),
        ] {
            let Some(word) = self.seen.iter().copied().find(|word| words.contains(&word.text))
            else {
                continue;
            };
            match protocol {
                Some(protocol) if !protocols.contains(protocol) => {
                    let message =
                        format!("protocol {protocol} has no {}: expected proto {names}", word.text);
                    return Err(word.problem(message));
                }
                None if protocols == ICMP_PROTOCOLS => {
                    return Err(word.problem(format!(
                        "`{}` without a protocol: add `proto icmp` or `proto icmpv6`",
                        word.text
                    )));
                }
                _ => {}
            }
        }
        if let Some(Limit { per: Per::Source(length), .. }) = self.rule.limit
            && length > 32
            && self.rule.matches.version() == Some(Version::V4)
        {
            return Err(self
                .recorded("per")
                .problem(format!("src/{length} with IPv4: expected a length from 0 to 32")));
        }
        // A condition on flags implies TCP.
        if self.rule.matches.flags.is_some() {
            self.rule.matches.protocol = Some(TCP);
        }
        Ok(self.rule)
    }
}

/// Reads the value of the keyword `word`.
pub(super) fn number<N: TryFrom<u32>>(
    words: &mut Words<'_>,
    word: Word<'_>,
    min: u32,
    max: u32,
) -> Result<N, Problem> {
    let expected = format!("a number from {min} to {max}");
    let value = words.value_after(word, &expected)?;
    let number = digits(value.text)
        .filter(|number| (min..=max).contains(number))
        .and_then(|n| N::try_from(n).ok());
    number.ok_or_else(|| {
        value.problem(format!("invalid {} `{}`: expected {expected}", word.text, value.text))
    })
}

/// Unlike `str::parse`, accepts no sign.
fn digits<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn prefix(word: Word<'_>) -> Result<IpNet, Problem> {
    let invalid = || word.problem(format!("invalid prefix `{}`: expected {PREFIX}", word.text));
    let prefix: IpNet = match word.text.contains('/') {
        true => word.text.parse().map_err(|_| invalid())?,
        false => IpAddr::from_str(word.text).map_err(|_| invalid())?.into(),
    };
    if prefix.trunc() != prefix {
        return Err(word.problem(format!(
            "prefix `{prefix}` has bits set beyond its length: use {}",
            prefix.trunc()
        )));
    }
    Ok(prefix)
}

fn protocol(word: Word<'_>) -> Result<u8, Problem> {
    let named = PROTOCOLS.iter().find(|(name, _)| *name == word.text).map(|(_, number)| *number);
    named.or_else(|| digits(word.text)).ok_or_else(|| {
        word.problem(format!("unknown protocol `{}`: expected {PROTOCOL}", word.text))
    })
}

fn ports(word: Word<'_>) -> Result<RangeInclusive<u16>, Problem> {
    let (first, last) = word.text.split_once('-').unwrap_or((word.text, word.text));
    let (Some(first), Some(last)) = (digits::<u16>(first), digits::<u16>(last)) else {
        return Err(word.problem(format!("invalid ports `{}`: expected {PORTS}", word.text)));
    };
    if first > last {
        return Err(word.problem(format!(
            "empty range `{}`: write the smaller port first, {last}-{first}",
            word.text
        )));
    }
    Ok(first..=last)
}

fn flags(word: Word<'_>) -> Result<TcpFlags, Problem> {
    let mut flags = TcpFlags { mask: 0, value: 0 };
    for name in word.text.split(',') {
        let (bare, must_be_set) = name.strip_prefix('!').map_or((name, true), |bare| (bare, false));
        let Some((_, bit)) = FLAG_NAMES.iter().find(|(flag, _)| *flag == bare) else {
            return Err(word.problem(format!("unknown flag `{name}`: expected {FLAGS}")));
        };
        if flags.mask & bit != 0 {
            return Err(word.problem(format!("duplicate flag `{bare}`")));
        }
        flags.mask |= bit;
        flags.value |= if must_be_set { *bit } else { 0 };
    }
    Ok(flags)
}

/// Reads a DSCP number or name (RFC 2474, 2597, 3246).
fn dscp(word: Word<'_>) -> Result<u8, Problem> {
    let digits_in =
        |text: &str| text.bytes().map(|byte| byte.wrapping_sub(b'0')).collect::<Vec<_>>();
    let named = match word.text.split_at_checked(2) {
        Some(("ef", "")) => Some(46),
        Some(("cs", class)) => match digits_in(class)[..] {
            [class @ 0..=7] => Some(class * 8),
            _ => None,
        },
        Some(("af", rest)) => match digits_in(rest)[..] {
            [class @ 1..=4, drop @ 1..=3] => Some(class * 8 + drop * 2),
            _ => None,
        },
        _ => None,
    };
    let number = named.or_else(|| digits(word.text).filter(|&number| number < 64));
    number.ok_or_else(|| word.problem(format!("invalid DSCP `{}`: expected {DSCP}", word.text)))
}

/// Reads a number. Accepts the suffixes k (thousand), M (million) and G (billion).
fn number_with_suffix(text: &str) -> Option<u64> {
    let (digits, scale) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 1_000),
        b'M' => (&text[..text.len() - 1], 1_000_000),
        b'G' => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    // `str::parse` would accept a sign.
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse::<u64>().ok()?.checked_mul(scale))
        .flatten()
}

fn rate(word: Word<'_>) -> Result<(u64, Unit), Problem> {
    let units = [("pps", Unit::Packets), ("bps", Unit::Bits)];
    let found = units
        .iter()
        .find_map(|(name, unit)| Some((number_with_suffix(word.text.strip_suffix(name)?)?, *unit)));
    // The token bucket cannot represent rates above 1000G.
    found
        .filter(|(rate, _)| (1..=1_000_000_000_000).contains(rate))
        .ok_or_else(|| word.problem(format!("invalid rate `{}`: expected {RATE}", word.text)))
}

impl Limit {
    /// Returns the packets or bits of a tenth of a second, but at least one packet or the bits of
    /// one frame of 1514 bytes.
    fn default_burst(rate: u64, unit: Unit) -> u64 {
        let min = match unit {
            Unit::Packets => 1,
            Unit::Bits => 1514 * 8,
        };
        (rate / 10).max(min)
    }
}
