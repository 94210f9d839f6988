//! Checks one interface over netlink: XDP features, queues, RSS, offloads.

use std::collections::BTreeSet;
use std::io;

use xdpfwd_engine::{
    Channels, Ethtool, Link, Links, Mode, PortPlan, XdpFeatures, attached_program,
};

use super::{Finding, Subject, Tree};

pub(crate) fn examine(
    subject: &Subject,
    port: &PortPlan,
    tree: &Tree,
    link: &Link,
    veth: Option<VethPeer>,
) -> Vec<Finding> {
    let (name, index) = (&*port.interface, link.index);
    let is_in_sysfs = link.sysfs_folder().is_some();
    let uses_xdp = port.io.uses_xdp();
    let mut findings = Vec::new();
    if uses_xdp {
        findings.push(features(name, subject.plan.mode, XdpFeatures::read(index)));
        findings.push(program(name));
    }
    match Ethtool::open(index) {
        Ok(ethtool) => {
            // Packet sockets receive the packets of all queues, so the queues need no check.
            if uses_xdp {
                let wanted = subject.queues(port);
                findings.push(match ethtool.channels() {
                    Ok(channels) if channels.receive.min(channels.send) > 0 => {
                        queues(name, wanted, &channels, ethtool.rss_queues(), veth.as_ref())
                    }
                    // A tap device that no process has opened has no channels, but it has a queue,
                    // which /sys lists.
                    _ if is_in_sysfs => queues_in_sys(name, wanted, tree),
                    _ => Finding::unknown(
                        "queues",
                        name,
                        "its driver does not report the number of queues, and /sys does not \
                         describe the interface",
                    ),
                });
            }
            match ethtool.offloads() {
                // Do not check VLAN parsing in two cases. Packet sockets receive removed tags as
                // metadata. A veth removes no tags; the check `veth-peer` is about tags that its
                // peer does not put into the frame.
                Ok(enabled) => findings.push(offloads(name, &enabled, uses_xdp && veth.is_none())),
                Err(error) => {
                    findings.push(Finding::unknown("offloads", name, format!("ethtool: {error}")))
                }
            }
        }
        Err(error) => findings.push(Finding::unknown("offloads", name, error.to_string())),
    }
    findings.extend(veth.map(|veth| veth.examine(name)));
    findings
}

/// Compares the configured number of queues with /sys, for a driver that reports no channels.
fn queues_in_sys(name: &str, wanted: Option<u16>, tree: &Tree) -> Finding {
    const CHECK: &str = "queues";
    let names = tree.names(&format!("/sys/class/net/{name}/queues"));
    let count = |direction: &str| names.iter().filter(|queue| queue.starts_with(direction)).count();
    let (receive, active) = (count("rx-"), count("rx-").min(count("tx-")));
    let wanted = wanted.map(usize::from);
    match wanted {
        _ if active == 0 => Finding::unknown(
            CHECK,
            name,
            "neither its driver nor /sys reports the number of queues",
        ),
        Some(wanted) if wanted > active => {
            let found = format!("{wanted} are configured, but its driver has {active}");
            Finding::error(CHECK, name, found, format!("queues = {active} at most"))
        }
        Some(wanted) if wanted < receive => {
            let found =
                format!("{wanted} of {receive} are served; packets on the others go to the kernel");
            Finding::warning(CHECK, name, found, format!("queues = {active}, to serve all"))
        }
        Some(_) => Finding::ok(CHECK, name, format!("all {receive} are served")),
        None => Finding::ok(CHECK, name, format!("{active}; its driver cannot change the number")),
    }
}

fn features(name: &str, mode: Mode, features: io::Result<XdpFeatures>) -> Finding {
    const CHECK: &str = "xdp-features";
    let features = match features {
        Ok(features) => features,
        Err(error) => return Finding::unknown(CHECK, name, error.to_string()),
    };
    let names = features.names();
    let reported = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    if !features.has_native_xdp() && matches!(mode, Mode::Copy | Mode::ZeroCopy) {
        let found =
            format!("its driver reports: {reported}; mode = \"{mode}\" requires native XDP");
        return Finding::error(CHECK, name, found, "[engine] mode = \"skb\" or \"auto\"");
    }
    if !features.has_zero_copy() && mode == Mode::ZeroCopy {
        let found =
            format!("its driver reports: {reported}; mode = \"zero-copy\" requires xsk-zerocopy");
        return Finding::error(CHECK, name, found, "[engine] mode = \"copy\" or \"auto\"");
    }
    if features.has_native_xdp() && !features.has_redirect() && mode != Mode::Skb {
        let found = format!(
            "its driver reports: {reported}; it runs XDP programs but cannot redirect to sockets"
        );
        return Finding::error(CHECK, name, found, "[engine] mode = \"skb\"");
    }
    Finding::ok(CHECK, name, format!("its driver reports: {reported}"))
}

fn program(name: &str) -> Finding {
    const CHECK: &str = "xdp-program";
    match attached_program(name) {
        Err(error) => {
            let why = format!("cannot find out whether another XDP program is attached: {error}");
            Finding::unknown(CHECK, name, why)
        }
        Ok(None) => Finding::ok(CHECK, name, "no other XDP program is attached"),
        Ok(Some(program)) => {
            // The kernel truncates process names to 15 bytes.
            let xdpfwd = crate::program::name();
            let is_held_by_xdpfwd = program
                .to_string()
                .contains(&format!("held by {} (", xdpfwd.get(..15).unwrap_or(xdpfwd)));
            let note = match is_held_by_xdpfwd {
                true => format!(
                    " ({xdpfwd} forwards on this interface; stopping it stops the forwarding)"
                ),
                false => String::new(),
            };
            Finding::error(CHECK, name, format!("{program}{note}"), program.fix())
        }
    }
}

/// Formats numbers as ranges: `0-3, 8`.
fn ranges(numbers: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let shown = ranges.iter().map(|(first, last)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Compares the configured with the active queues, and checks that RSS sends packets only to the
/// configured ones.
fn queues(
    name: &str,
    wanted: Option<u16>,
    channels: &Channels,
    rss: io::Result<BTreeSet<u32>>,
    veth: Option<&VethPeer>,
) -> Finding {
    const CHECK: &str = "queues";
    let (active, wanted_queues) =
        (channels.receive.min(channels.send), wanted.map_or(1, u32::from));
    let set_queues = |queues: u32| {
        let command = |name: &str| match channels.combined {
            true => format!("ethtool -L {name} combined {queues}"),
            false => format!("ethtool -L {name} rx {queues} tx {queues}"),
        };
        // Native XDP fails on a veth with fewer RX queues than its peer has TX queues
        // (`veth_xdp_set`).
        match veth {
            None => command(name),
            Some(VethPeer::Here(peer, _)) => format!("{} && {}", command(peer), command(name)),
            Some(VethPeer::Elsewhere | VethPeer::Unknown(_)) => {
                format!(
                    "{}\nand in the network namespace of its other end: {}",
                    command(name),
                    command("PEER")
                )
            }
        }
    };
    if wanted_queues > active {
        let found = format!(
            "{wanted_queues} are configured, {active} are active, at most {} are possible",
            channels.max
        );
        let fix = match wanted_queues <= channels.max {
            true => set_queues(wanted_queues),
            false => format!("queues = {} at most", channels.max),
        };
        return Finding::error(CHECK, name, found, fix);
    }
    // If the driver does not report its RSS table, packets may arrive on all active queues.
    let is_rss_known = rss.is_ok();
    let receiving: BTreeSet<u32> = rss.unwrap_or_else(|_| (0..channels.receive).collect());
    let unserved: BTreeSet<u32> =
        receiving.iter().copied().filter(|&queue| queue >= wanted_queues).collect();
    let source = if is_rss_known { "RSS sends packets to" } else { "packets may arrive on" };
    match wanted {
        Some(_) if !unserved.is_empty() => {
            let found = format!(
                "{wanted_queues} of {} are served, but {source} queue {} as well; packets there go \
                 to the kernel",
                channels.receive,
                ranges(&unserved)
            );
            // `ethtool -L` refuses to remove queues that a user-defined RSS table uses, so change
            // the table instead.
            let use_fewer = match is_rss_known {
                true => format!("ethtool -X {name} equal {wanted_queues}"),
                false => set_queues(wanted_queues),
            };
            let fix = match channels.receive == active {
                true => {
                    format!("queues = {active}, to serve all\nor, to use only these: {use_fewer}")
                }
                // There are fewer TX than RX queues, and a socket needs both.
                false => set_queues(wanted_queues),
            };
            Finding::warning(CHECK, name, found, fix)
        }
        Some(_) => Finding::ok(CHECK, name, format!("all {active} active queues are served")),
        None if active > 1 => {
            let found = format!(
                "{active} are active, {source} {}: serve all of them (queues = {active})",
                ranges(&receiving)
            );
            Finding::ok(CHECK, name, found)
        }
        None => Finding::ok(CHECK, name, "one"),
    }
}

/// Offloads that change received frames: the kernel's name of the offload, its name for `ethtool
/// -K`, and its effect.
const HARMFUL: [(&str, &str, &str); 4] = [
    ("rx-lro", "lro", MERGES_PACKETS),
    ("rx-gro-hw", "rx-gro-hw", MERGES_PACKETS),
    ("rx-vlan-hw-parse", "rxvlan", REMOVES_TAGS),
    ("rx-vlan-stag-hw-parse", "rx-vlan-stag-hw-parse", REMOVES_TAGS),
];
const MERGES_PACKETS: &str = "several packets arrive merged into one, which XDP does not support";
const REMOVES_TAGS: &str =
    "VLAN tags are removed from the frames, and AF_XDP does not receive them";

fn offloads(name: &str, enabled: &BTreeSet<String>, check_vlan_tags: bool) -> Finding {
    const CHECK: &str = "offloads";
    let is_harmful = |(feature, _, why): &&(&str, &str, &str)| {
        enabled.contains(*feature) && (check_vlan_tags || *why != REMOVES_TAGS)
    };
    let harmful: Vec<_> = HARMFUL.iter().filter(is_harmful).collect();
    if harmful.is_empty() {
        return Finding::ok(
            CHECK,
            name,
            "none that changes received frames (LRO, GRO-HW, VLAN parsing)",
        );
    }
    let found: Vec<_> =
        harmful.iter().map(|(feature, _, why)| format!("{feature}: {why}")).collect();
    let switches: Vec<_> = harmful.iter().map(|(_, name, _)| format!("{name} off")).collect();
    Finding::warning(
        CHECK,
        name,
        found.join("; "),
        format!("ethtool -K {name} {}", switches.join(" ")),
    )
}

/// The other end of a veth.
pub(crate) enum VethPeer {
    /// In this network namespace: its name and index.
    Here(String, u32),
    /// In another network namespace.
    Elsewhere,
    /// The links cannot be read, with the error.
    Unknown(String),
}

impl VethPeer {
    const CHECK: &str = "veth-peer";

    /// Returns `None` if the interface is not a veth.
    pub(crate) fn find(link: &Link, links: &io::Result<Links>) -> Option<Self> {
        if !link.is_veth() {
            return None;
        }
        let peer = match links {
            Ok(links) => links.veth_peer(link.index),
            Err(error) => return Some(Self::Unknown(error.to_string())),
        };
        Some(peer.map_or(Self::Elsewhere, |peer| Self::Here(peer.name.clone(), peer.index)))
    }

    /// Checks that the peer has NAPI, and that it completes checksums and inserts VLAN tags before
    /// it sends a frame: the interface `name` does neither for received frames.
    fn examine(&self, name: &str) -> Finding {
        let (peer, index) = match self {
            Self::Here(peer, index) => (peer, index),
            Self::Elsewhere => {
                let why = "its other end is in another network namespace; if sockets send on it, \
                           run in that namespace: ethtool -K PEER tx off txvlan off";
                return Finding::unknown(Self::CHECK, name, why);
            }
            Self::Unknown(error) => {
                let why = format!("cannot read the links to find its other end: {error}");
                return Finding::unknown(Self::CHECK, name, why);
            }
        };
        let Ok(enabled) = Ethtool::open(*index).and_then(|ethtool| ethtool.offloads()) else {
            return Finding::unknown(
                Self::CHECK,
                name,
                format!("cannot read the offloads of {peer}"),
            );
        };
        let mut found = Vec::new();
        let mut switches = Vec::new();
        if enabled.iter().any(|feature| feature.starts_with("tx-checksum-")) {
            found.push(
                "leaves checksums to the interface, so that AF_XDP forwards packets with \
                 incomplete checksums",
            );
            switches.push("tx off");
        }
        let tags = [
            ("tx-vlan-hw-insert", "txvlan off"),
            ("tx-vlan-stag-hw-insert", "tx-vlan-stag-hw-insert off"),
        ];
        for (_, switch) in tags.iter().filter(|(feature, _)| enabled.contains(*feature)) {
            found.push("passes VLAN tags outside of the frame, where AF_XDP does not see them");
            switches.push(switch);
        }
        found.dedup();
        if !switches.is_empty() {
            let found = format!("{peer}, its other end, {}", found.join(", and "));
            return Finding::warning(
                Self::CHECK,
                name,
                found,
                format!("ethtool -K {peer} {}", switches.join(" ")),
            );
        }
        if !enabled.contains("rx-gro") && matches!(attached_program(peer), Ok(None)) {
            let found = format!(
                "{peer}, its other end, has no NAPI: packets that an XDP program redirects to it \
                 are dropped (packets that xdpfwd sends in copy mode are not)"
            );
            return Finding::warning(Self::CHECK, name, found, format!("ethtool -K {peer} gro on"));
        }
        Finding::ok(
            Self::CHECK,
            name,
            format!("{peer}, its other end, sends complete frames and has NAPI"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn channels(receive: u32, max: u32) -> Channels {
        Channels { receive, send: receive, max, combined: true }
    }

    fn unsupported<T>() -> io::Result<T> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[test]
    fn unserved_queues_are_warning_with_two_fixes() {
        let finding = queues("eth1", Some(2), &channels(8, 16), Ok((0..8).collect()), None);
        assert_eq!(finding.level, Level::Warning);
        assert_eq!(
            finding.finding,
            "2 of 8 are served, but RSS sends packets to queue 2-7 as well; packets there go to \
             the kernel"
        );
        assert_eq!(
            finding.fix.unwrap(),
            "queues = 8, to serve all\nor, to use only these: ethtool -X eth1 equal 2"
        );
        assert_eq!(
            queues("eth1", Some(2), &channels(8, 16), Ok([0, 1].into()), None).level,
            Level::Ok
        );
        assert_eq!(queues("eth1", Some(8), &channels(8, 16), unsupported(), None).level, Level::Ok);
        assert_eq!(
            queues("eth1", Some(1), &channels(2, 2), unsupported(), None).level,
            Level::Warning
        );
        assert_eq!(queues("eth1", None, &channels(2, 2), unsupported(), None).level, Level::Ok);
    }

    /// `veth_xdp_set` refuses a veth with fewer RX queues than its peer has TX queues.
    #[test]
    fn fix_for_queues_of_a_veth_sets_both_ends() {
        let fix = |veth: &VethPeer| {
            queues("near", Some(1), &channels(2, 2), unsupported(), Some(veth)).fix.unwrap()
        };
        let here = fix(&VethPeer::Here("far".into(), 7));
        assert!(
            here.ends_with(
                "or, to use only these: ethtool -L far combined 1 && ethtool -L near combined 1"
            ),
            "{here}"
        );
        assert!(fix(&VethPeer::Elsewhere).ends_with("other end: ethtool -L PEER combined 1"));
    }

    /// Packet sockets receive VLAN tags as metadata, and xdpfwd reinserts them.
    #[test]
    fn vlan_stripping_is_ok_for_packet_sockets() {
        let enabled = ["rx-lro", "rx-vlan-hw-parse"].map(str::to_owned).into();
        let check_vlan_tags = false;
        let finding = offloads("eth1", &enabled, check_vlan_tags);
        assert_eq!(finding.fix.as_deref(), Some("ethtool -K eth1 lro off"));
    }

    #[test]
    fn too_many_queues_are_error_with_fix() {
        let finding = queues("eth1", Some(4), &channels(2, 8), unsupported(), None);
        assert_eq!(
            (finding.level, finding.fix.as_deref()),
            (Level::Error, Some("ethtool -L eth1 combined 4"))
        );
        let finding = queues("eth1", Some(4), &channels(2, 2), unsupported(), None);
        assert_eq!(
            (finding.level, finding.fix.as_deref()),
            (Level::Error, Some("queues = 2 at most"))
        );
    }

    #[test]
    fn fix_for_offloads_is_one_ethtool_command() {
        let enabled = ["rx-gro", "rx-lro", "rx-vlan-hw-parse"].map(str::to_owned).into();
        let check_vlan_tags = true;
        let finding = offloads("eth1", &enabled, check_vlan_tags);
        assert_eq!(finding.fix.as_deref(), Some("ethtool -K eth1 lro off rxvlan off"));
        let harmless = ["rx-gro".to_owned()].into();
        assert_eq!(offloads("eth1", &harmless, check_vlan_tags).level, Level::Ok);
    }

    #[test]
    fn ranges_joins_consecutive_numbers() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8].into()), "0-2, 5, 7-8");
        assert_eq!(ranges(&[].into()), "");
    }
}
