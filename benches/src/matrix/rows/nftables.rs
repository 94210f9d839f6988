//! Filters of nftables with the same rules as xdpfwd's.

use std::{fmt::Write as _, fs, process::Command};

use anyhow::Context as _;
use xdpfwd_bench::classbench::{Ports, Prefix, Rule5};

use super::rule_set::rule_set;
use crate::{
    forwarders::{Environment, find},
    obstacle::Obstacle,
};

/// Remark of rows with such filters.
pub(super) const REMARK: &str = "nftables compares its rules with a packet one after the other; \
                                  sets or verdict maps would be much cheaper.";

/// The reason why these rows have no search for signatures.
pub(super) const NO_SEARCH: &str = "nftables does not search payloads";

/// Writes a ruleset for the hook `forward` of a family (`ip`, `bridge`), and lets nftables check it.
/// Returns the command that loads it.
pub(super) fn filter(
    environment: &Environment,
    family: &str,
    rules: u32,
) -> Result<String, Obstacle> {
    let set = rule_set(environment, rules)?;
    let nft = find("nft", "nftables").map_err(Obstacle::NotInstalled)?;
    let file = environment.scratch.join(format!("matrix-{family}-{rules}.nft"));
    let text = ruleset(family, &set.rules, set.verdict_for_passing());
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let output = Command::new(&nft).args(["--check", "--file"]).arg(&file).output();
    let output = output.with_context(|| format!("cannot start {nft}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let error = stderr.lines().find_map(|line| line.split_once("Error: "));
        let error = error.map_or("no reason was printed", |(_, error)| error);
        return Err(Obstacle::CannotExist(format!("nftables rejects the rules: {error}")));
    }
    Ok(format!("{nft} --file {}", file.display()))
}

fn ruleset(family: &str, rules: &[Rule5], verdict: &str) -> String {
    let mut text = format!(
        "table {family} matrix {{\n\tchain forward {{\n\
         \t\ttype filter hook forward priority 0; policy accept;\n"
    );
    for rule in rules {
        let _ = writeln!(text, "\t\t{}{verdict}", conditions(rule));
    }
    text + "\t}\n}\n"
}

/// Returns the conditions of a rule, each with a space at its end.
fn conditions(rule: &Rule5) -> String {
    let mut text = String::new();
    for (side, prefix) in [("saddr", rule.source), ("daddr", rule.destination)] {
        if prefix.length > 0 {
            let _ = write!(text, "ip {side} {} ", prefix_text(prefix));
        }
    }
    let has_ports = rule.source_ports != Ports::ANY || rule.destination_ports != Ports::ANY;
    if rule.protocol.mask != 0 {
        let _ = write!(text, "meta l4proto {} ", rule.protocol.value);
    } else if has_ports {
        // Only these protocols have ports, for xdpfwd.
        text += "meta l4proto { tcp, udp, sctp } ";
    }
    for (side, ports) in [("sport", rule.source_ports), ("dport", rule.destination_ports)] {
        if ports.low == ports.high {
            let _ = write!(text, "th {side} {} ", ports.low);
        } else if ports != Ports::ANY {
            let _ = write!(text, "th {side} {}-{} ", ports.low, ports.high);
        }
    }
    text
}

fn prefix_text(prefix: Prefix) -> String {
    format!("{}/{}", std::net::Ipv4Addr::from(prefix.address), prefix.length)
}

#[cfg(test)]
mod tests {
    use xdpfwd_bench::classbench::Protocol;

    use super::*;

    fn rule() -> Rule5 {
        Rule5 {
            source: Prefix::new(0x0a00_0000, 8),
            destination: Prefix::new(0, 0),
            source_ports: Ports::ANY,
            destination_ports: Ports { low: 53, high: 53 },
            protocol: Protocol::number(17),
        }
    }

    #[test]
    fn conditions_contain_only_fields_that_the_rule_restricts() {
        assert_eq!(conditions(&rule()), "ip saddr 10.0.0.0/8 meta l4proto 17 th dport 53 ");
        let all = Rule5 {
            source: Prefix::new(0, 0),
            destination_ports: Ports::ANY,
            protocol: Protocol::ANY,
            ..rule()
        };
        assert_eq!(conditions(&all), "");
    }

    #[test]
    fn conditions_with_ports_of_any_protocol_name_the_protocols() {
        let rule = Rule5 {
            protocol: Protocol::ANY,
            destination_ports: Ports { low: 1024, high: 65535 },
            ..rule()
        };
        let expected = "ip saddr 10.0.0.0/8 meta l4proto { tcp, udp, sctp } th dport 1024-65535 ";
        assert_eq!(conditions(&rule), expected);
    }

    #[test]
    fn ruleset_has_a_line_per_rule_with_the_verdict() {
        let text = ruleset("ip", &[rule(), rule()], "drop");
        assert_eq!(text.lines().filter(|line| line.ends_with(" drop")).count(), 2, "{text}");
    }
}
