//! One interface, by what its driver says over netlink: XDP features, queues and where RSS sends what, offloads.

use std::collections::BTreeSet;
use std::io;

use engine::{Channels, Ethtool, Mode, PortPlan, XdpFeatures, attached_program};
use nix::net::if_::if_indextoname;

use super::{Finding, Subject, Tree};

pub(crate) fn examine(subject: &Subject, port: &PortPlan, tree: &Tree, index: u32) -> Vec<Finding> {
    let name = &*port.interface;
    let mut findings = Vec::new();
    if port.io.takes_by_xdp() {
        findings.push(features(name, subject.plan.mode, XdpFeatures::read(index)));
        findings.push(program(name));
    }
    match Ethtool::open(index) {
        Ok(ethtool) => {
            findings.push(queues(name, subject.queues(port), ethtool.channels(), ethtool.rss_queues()));
            match ethtool.offloads() {
                Ok(on) => findings.push(offloads(name, &on)),
                Err(error) => findings.push(Finding::unknown("offloads", name, format!("ethtool: {error}"))),
            }
        }
        Err(error) => findings.push(Finding::unknown("offloads", name, error.to_string())),
    }
    findings.extend(veth_peer(name, tree, index));
    findings
}

fn features(name: &str, mode: Mode, features: io::Result<XdpFeatures>) -> Finding {
    const CHECK: &str = "xdp-features";
    let features = match features {
        Ok(features) => features,
        Err(error) => return Finding::unknown(CHECK, name, error.to_string()),
    };
    let names = features.names();
    let said = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    if !features.native() && matches!(mode, Mode::Copy | Mode::ZeroCopy) {
        let found = format!("its driver claims: {said}; mode = \"{mode}\" takes native XDP");
        return Finding::error(CHECK, name, found, "[engine] mode = \"skb\" or \"auto\"");
    }
    if !features.zero_copy() && mode == Mode::ZeroCopy {
        let found = format!("its driver claims: {said}; mode = \"zero-copy\" takes xsk-zerocopy");
        return Finding::error(CHECK, name, found, "[engine] mode = \"copy\" or \"auto\"");
    }
    Finding::ok(CHECK, name, format!("its driver claims: {said}"))
}

fn program(name: &str) -> Finding {
    const CHECK: &str = "xdp-program";
    match attached_program(name) {
        None => Finding::ok(CHECK, name, "no other XDP program is attached"),
        Some(program) => Finding::error(CHECK, name, program.to_string(), program.fix()),
    }
}

/// Numbers as a person writes them: `0-3, 8`.
fn ranges(numbers: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let shown =
        ranges.iter().map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") });
    shown.collect::<Vec<_>>().join(", ")
}

/// What is asked for against what there is, and what RSS does with the rest.
fn queues(name: &str, wanted: Option<u16>, channels: io::Result<Channels>, rss: io::Result<BTreeSet<u32>>) -> Finding {
    const CHECK: &str = "queues";
    let channels = match channels {
        Ok(channels) => channels,
        // Many virtual drivers have one queue and nothing to say about it.
        Err(_) => return Finding::ok(CHECK, name, "its driver does not say how many it has (one, as a rule)"),
    };
    let (active, wanted_queues) = (channels.receive.min(channels.send), wanted.map_or(1, u32::from));
    let set = |queues: u32| {
        if channels.combined {
            format!("ethtool -L {name} combined {queues}")
        } else {
            format!("ethtool -L {name} rx {queues} tx {queues}")
        }
    };
    if wanted_queues > active {
        let found = format!("{wanted_queues} are asked for, {active} are active, {} could be", channels.most);
        let fix = if wanted_queues <= channels.most {
            set(wanted_queues)
        } else {
            format!("queues = {} at most", channels.most)
        };
        return Finding::error(CHECK, name, found, fix);
    }
    // Where the driver does not tell its table, packets come to all queues that are active.
    let told = rss.is_ok();
    let hit: BTreeSet<u32> = rss.unwrap_or_else(|_| (0..channels.receive).collect());
    let beyond: BTreeSet<u32> = hit.iter().copied().filter(|&queue| queue >= wanted_queues).collect();
    let table = if told { "RSS sends packets to" } else { "packets may come to" };
    match wanted {
        Some(_) if !beyond.is_empty() => Finding::warning(
            CHECK,
            name,
            format!(
                "{wanted_queues} of {} are served, and {table} queue {} as well: what comes there goes to the kernel",
                channels.receive,
                ranges(&beyond)
            ),
            format!("queues = {active}, to serve all\nor, to have no others: {}", set(wanted_queues)),
        ),
        Some(_) => Finding::ok(CHECK, name, format!("all {active} that are active are served")),
        None if active > 1 => {
            let found = format!("{active} are active, {table} {}: serve all of them (queues = {active})", ranges(&hit));
            Finding::ok(CHECK, name, found)
        }
        None => Finding::ok(CHECK, name, "one"),
    }
}

/// Offloads after which a frame is not what was on the wire.
const HARMFUL: [(&str, &str, &str); 3] = [
    ("rx-lro", "lro", "several packets arrive as one, which XDP does not take"),
    ("rx-gro-hw", "rx-gro-hw", "several packets arrive as one, which XDP does not take"),
    ("rx-vlan-hw-parse", "rxvlan", "VLAN tags are taken out of the frames, and AF_XDP does not get them"),
];

fn offloads(name: &str, on: &BTreeSet<String>) -> Finding {
    const CHECK: &str = "offloads";
    let harmful: Vec<_> = HARMFUL.iter().filter(|(feature, ..)| on.contains(*feature)).collect();
    if harmful.is_empty() {
        return Finding::ok(CHECK, name, "none that changes what arrives (LRO, GRO-HW, VLAN parsing)");
    }
    let found: Vec<_> = harmful.iter().map(|(feature, _, why)| format!("{feature}: {why}")).collect();
    let off: Vec<_> = harmful.iter().map(|(_, name, _)| format!("{name} off")).collect();
    Finding::warning(CHECK, name, found.join("; "), format!("ethtool -K {name} {}", off.join(" ")))
}

/// What a veth's other end leaves to an interface that does not do it: checksums, VLAN tags; and whether it has NAPI.
fn veth_peer(name: &str, tree: &Tree, index: u32) -> Vec<Finding> {
    const CHECK: &str = "veth-peer";
    let folder = format!("/sys/class/net/{name}");
    let (own, peer) =
        (tree.number::<u32>(&format!("{folder}/ifindex")), tree.number::<u32>(&format!("{folder}/iflink")));
    // A veth has no device, and is linked to another interface. (So is a VLAN, which is not linked back.)
    let (Some(own), Some(peer)) = (own, peer) else { return Vec::new() };
    if own != index || own == peer || tree.has(&format!("{folder}/device")) {
        return Vec::new();
    }
    let peer_name = if_indextoname(peer)
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|peer| tree.number::<u32>(&format!("/sys/class/net/{peer}/iflink")) == Some(own));
    let Some(peer_name) = peer_name else {
        // Other interfaces are linked across namespaces, too; only a veth calls itself one.
        let link = tree.text(&format!("{folder}/uevent")).unwrap_or_default();
        let is_other_kind = link.contains("DEVTYPE=");
        let why = "its other end is in another network namespace; there, what is sent by sockets needs: \
                   ethtool -K PEER tx off txvlan off";
        return if is_other_kind { Vec::new() } else { vec![Finding::unknown(CHECK, name, why)] };
    };
    let Ok(on) = Ethtool::open(peer).and_then(|ethtool| ethtool.offloads()) else {
        return vec![Finding::unknown(CHECK, name, format!("the offloads of {peer_name} cannot be read"))];
    };
    let mut found = Vec::new();
    let mut off = Vec::new();
    if on.iter().any(|feature| feature.starts_with("tx-checksum-")) {
        found.push("leaves checksums to be filled in by an interface, and AF_XDP forwards them unfilled");
        off.push("tx off");
    }
    if on.contains("tx-vlan-hw-insert") {
        found.push("leaves VLAN tags beside the frame, where AF_XDP does not see them");
        off.push("txvlan off");
    }
    if !off.is_empty() {
        let found = format!("{peer_name}, its other end, {}", found.join(", and "));
        return vec![Finding::warning(CHECK, name, found, format!("ethtool -K {peer_name} {}", off.join(" ")))];
    }
    if !on.contains("rx-gro") && attached_program(&peer_name).is_none() {
        let found = format!(
            "{peer_name}, its other end, has no NAPI: what an XDP program redirects to it is dropped (what xdpfwd sends in copy \
             mode is not)"
        );
        return vec![Finding::warning(CHECK, name, found, format!("ethtool -K {peer_name} gro on"))];
    }
    vec![Finding::ok(CHECK, name, format!("{peer_name}, its other end, sends whole frames and has NAPI"))]
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn channels(receive: u32, most: u32) -> io::Result<Channels> {
        Ok(Channels { receive, send: receive, most, combined: true })
    }

    fn unsupported<T>() -> io::Result<T> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[test]
    fn queues_that_nobody_serves_are_named_with_both_ways_out() {
        let finding = queues("eth1", Some(2), channels(8, 16), Ok((0..8).collect()));
        assert_eq!(finding.level, Level::Warning);
        assert_eq!(
            finding.finding,
            "2 of 8 are served, and RSS sends packets to queue 2-7 as well: what comes there goes to the kernel"
        );
        assert_eq!(finding.fix.unwrap(), "queues = 8, to serve all\nor, to have no others: ethtool -L eth1 combined 2");
        // Eight queues, and a table that uses two of them.
        assert_eq!(queues("eth1", Some(2), channels(8, 16), Ok([0, 1].into())).level, Level::Ok);
        assert_eq!(queues("eth1", Some(8), channels(8, 16), unsupported()).level, Level::Ok);
        assert_eq!(queues("eth1", Some(1), channels(2, 2), unsupported()).level, Level::Warning);
        assert_eq!(queues("eth1", None, channels(2, 2), unsupported()).level, Level::Ok);
        assert_eq!(queues("lo", None, unsupported(), unsupported()).level, Level::Ok);
    }

    #[test]
    fn more_queues_than_there_are_is_an_error_with_the_command() {
        let finding = queues("eth1", Some(4), channels(2, 8), unsupported());
        assert_eq!((finding.level, finding.fix.as_deref()), (Level::Error, Some("ethtool -L eth1 combined 4")));
        let finding = queues("eth1", Some(4), channels(2, 2), unsupported());
        assert_eq!((finding.level, finding.fix.as_deref()), (Level::Error, Some("queues = 2 at most")));
    }

    #[test]
    fn offloads_that_change_frames_are_switched_off_in_one_command() {
        let on = ["rx-gro", "rx-lro", "rx-vlan-hw-parse"].map(str::to_owned).into();
        let finding = offloads("eth1", &on);
        assert_eq!(finding.fix.as_deref(), Some("ethtool -K eth1 lro off rxvlan off"));
        assert_eq!(offloads("eth1", &["rx-gro".to_owned()].into()).level, Level::Ok);
    }

    #[test]
    fn ranges_are_short() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8].into()), "0-2, 5, 7-8");
        assert_eq!(ranges(&[].into()), "");
    }
}
