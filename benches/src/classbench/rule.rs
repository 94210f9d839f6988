//! A rule over five header fields, and its text format.

use std::{
    fmt,
    io::{self, BufRead, Write},
    net::Ipv4Addr,
    str::FromStr,
};

use anyhow::{Context, Error, Result, bail, ensure};

/// An IPv4 prefix; the bits of `address` past `length` are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// The first address, in host byte order.
    pub address: u32,
    /// Length in bits, 0 (every address) to 32 (one address).
    pub length: u8,
}

impl Prefix {
    /// Creates a prefix. Clears the bits past `length`; a length above 32 becomes 32.
    pub fn new(address: u32, length: u8) -> Self {
        let length = length.min(32);
        Self { address: address & mask(length), length }
    }

    /// Returns the first and the last address.
    pub fn bounds(self) -> (u32, u32) {
        (self.address, self.address | !mask(self.length))
    }

    /// Returns whether the prefix contains all addresses of `other`.
    pub fn covers(self, other: Self) -> bool {
        self.length <= other.length && other.address & mask(self.length) == self.address
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

/// An inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    /// The first port.
    pub low: u16,
    /// The last port, not below the first.
    pub high: u16,
}

impl Ports {
    /// Every port.
    pub const ANY: Self = Self { low: 0, high: u16::MAX };

    fn covers(self, other: Self) -> bool {
        self.low <= other.low && other.high <= self.high
    }
}

/// A protocol number if `mask` is 0xff, any protocol if it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol {
    /// Protocol number of the IPv4 header; 0 with a mask of 0.
    pub value: u8,
    /// 0xff or 0.
    pub mask: u8,
}

impl Protocol {
    /// Every protocol.
    pub const ANY: Self = Self { value: 0, mask: 0 };

    /// Returns the field of a rule that matches one protocol.
    pub fn number(value: u8) -> Self {
        Self { value, mask: 0xff }
    }
}

/// A rule: a packet matches if all five fields match. The first matching rule applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule5 {
    /// Source address.
    pub source: Prefix,
    /// Destination address.
    pub destination: Prefix,
    /// Source ports.
    pub source_ports: Ports,
    /// Destination ports.
    pub destination_ports: Ports,
    /// Protocol.
    pub protocol: Protocol,
}

impl Rule5 {
    /// Returns whether the rule matches every packet that `other` matches.
    pub fn covers(&self, other: &Self) -> bool {
        self.source.covers(other.source)
            && self.destination.covers(other.destination)
            && self.source_ports.covers(other.source_ports)
            && self.destination_ports.covers(other.destination_ports)
            && (self.protocol.mask == 0 || self.protocol == other.protocol)
    }

    /// Returns whether some packet matches both rules.
    pub fn overlaps(&self, other: &Self) -> bool {
        let prefixes = |a: Prefix, b: Prefix| a.covers(b) || b.covers(a);
        let ports = |a: Ports, b: Ports| a.low <= b.high && b.low <= a.high;
        (self.protocol.mask & other.protocol.mask == 0 || self.protocol == other.protocol)
            && prefixes(self.destination, other.destination)
            && prefixes(self.source, other.source)
            && ports(self.destination_ports, other.destination_ports)
            && ports(self.source_ports, other.source_ports)
    }
}

/// A line of a ClassBench filter set, without newline. TCP flags and mask are always "any".
impl fmt::Display for Rule5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, source_ports, destination_ports, protocol } = self;
        write!(
            f,
            "@{}/{}\t{}/{}\t{} : {}\t{} : {}\t0x{:02x}/0x{:02x}\t0x0000/0x0000",
            Ipv4Addr::from(source.address),
            source.length,
            Ipv4Addr::from(destination.address),
            destination.length,
            source_ports.low,
            source_ports.high,
            destination_ports.low,
            destination_ports.high,
            protocol.value,
            protocol.mask
        )
    }
}

/// Ignores columns after the protocol, as `dpdk-test-acl` does.
impl FromStr for Rule5 {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let Some(line) = line.trim().strip_prefix('@') else {
            bail!("invalid rule {line:?}: a rule starts with @")
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        let [
            source,
            destination,
            source_low,
            ":",
            source_high,
            destination_low,
            ":",
            destination_high,
            protocol,
            ..,
        ] = words[..]
        else {
            bail!(
                "invalid rule {line:?}: use @source/length destination/length low : high \
                 low : high protocol/mask"
            );
        };
        Ok(Self {
            source: prefix(source)?,
            destination: prefix(destination)?,
            source_ports: ports(source_low, source_high)?,
            destination_ports: ports(destination_low, destination_high)?,
            protocol: self::protocol(protocol)?,
        })
    }
}

fn prefix(word: &str) -> Result<Prefix> {
    let parse = || {
        let (address, length) = word.split_once('/')?;
        Some(Prefix {
            address: address.parse::<Ipv4Addr>().ok()?.into(),
            length: length.parse().ok()?,
        })
    };
    let Some(prefix) = parse() else {
        bail!("invalid IPv4 prefix {word:?}: use for example 192.0.2.0/24")
    };
    ensure!(
        prefix.length <= 32 && Prefix::new(prefix.address, prefix.length) == prefix,
        "invalid IPv4 prefix {word:?}: the length exceeds 32, or bits beyond the length are set"
    );
    Ok(prefix)
}

fn ports(low: &str, high: &str) -> Result<Ports> {
    let port = |word: &str| {
        word.parse::<u16>().with_context(|| format!("invalid port {word:?}: use 0 to 65535"))
    };
    let ports = Ports { low: port(low)?, high: port(high)? };
    ensure!(
        ports.low <= ports.high,
        "invalid ports {low} : {high}: the range is in the wrong order"
    );
    Ok(ports)
}

fn protocol(word: &str) -> Result<Protocol> {
    let byte = |word: &str| u8::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    match word.split_once('/').map(|(value, mask)| (byte(value), byte(mask))) {
        Some((Some(value), Some(0xff))) => Ok(Protocol::number(value)),
        Some((Some(_), Some(0))) => Ok(Protocol::ANY),
        _ => bail!("invalid protocol {word:?}: use for example 0x06/0xff or 0x00/0x00"),
    }
}

/// Writes one rule per line, in order.
pub fn write_rules(mut output: impl Write, rules: &[Rule5]) -> io::Result<()> {
    rules.iter().try_for_each(|rule| writeln!(output, "{rule}"))?;
    output.flush()
}

/// Reads rules as [`write_rules`] and ClassBench write them. Skips empty lines and lines that start
/// with `#`.
pub fn read_rules(input: impl BufRead) -> Result<Vec<Rule5>> {
    let mut rules = Vec::new();
    for (number, line) in input.lines().enumerate() {
        let line = line?;
        if !line.trim().is_empty() && !line.starts_with('#') {
            rules.push(line.parse().with_context(|| format!("line {}", number + 1))?);
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        "@192.0.2.0/24\t0.0.0.0/0\t0 : 65535\t1024 : 65535\t0x06/0xff\t0x0000/0x0000";

    #[test]
    fn rule_line_round_trips() {
        let rule: Rule5 = LINE.parse().unwrap();
        assert_eq!(rule.source, Prefix { address: 0xc000_0200, length: 24 });
        assert_eq!(rule.source.bounds(), (0xc000_0200, 0xc000_02ff));
        assert_eq!((rule.source_ports, rule.destination_ports.low), (Ports::ANY, 1024));
        assert_eq!(rule.protocol, Protocol::number(6));
        assert_eq!(rule.to_string(), LINE);
        // classbench-ng writes a final tab instead of flags.
        assert_eq!(LINE.replace("\t0x0000/0x0000", "\t").parse::<Rule5>().unwrap(), rule);
    }

    #[test]
    fn invalid_rule_error_names_the_problem() {
        for (from, to, word) in [
            ("@", "", "starts with @"),
            ("/24", "/33", "length"),
            ("192.0.2.0", "192.0.2.1", "length"),
            ("1024", "70000", "70000"),
            ("1024 : 65535", "1024 : 80", "wrong order"),
            ("0x06/0xff", "6", "protocol"),
            (" : ", ":", "use @source"),
        ] {
            let error = LINE.replacen(from, to, 1).parse::<Rule5>().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let error = read_rules(format!("# a comment\n\n{LINE}\n@\n").as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "line 4");
    }

    #[test]
    fn covers_and_overlaps_compare_all_fields() {
        let wide: Rule5 = LINE.parse().unwrap();
        let narrow = Rule5 { source: Prefix::new(0xc000_0207, 32), ..wide };
        assert!(wide.covers(&narrow) && !narrow.covers(&wide) && narrow.overlaps(&wide));
        let other = Rule5 { protocol: Protocol::number(17), ..narrow };
        assert!(!other.overlaps(&wide) && Rule5 { protocol: Protocol::ANY, ..wide }.covers(&other));
        let crossing =
            Rule5 { destination: Prefix::new(1 << 31, 1), source: Prefix::new(0, 0), ..wide };
        assert!(crossing.overlaps(&wide) && !crossing.covers(&wide) && !wide.covers(&crossing));
    }
}
