//! Detects whether received frames still contain their VLAN tags when an XDP program reads them.
//!
//! The kernel and drivers can move a tag from the frame to the packet's metadata. XDP programs and
//! AF_XDP do not see metadata: the packet looks untagged.

use std::collections::BTreeSet;
use std::io;

use nix::net::if_::if_indextoname;

use crate::host::driver::Ethtool;
use crate::host::link::Link;

/// Why packets can lose their VLAN tags before an XDP program reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanTagLoss {
    /// The cause.
    pub cause: String,
    /// The remedy.
    pub fix: String,
    /// Whether the loss depends on the other end of a veth: only packets that it sends with the tag
    /// in the metadata are affected.
    pub depends_on_sender: bool,
}

/// Features (`ethtool -k`) with which a driver moves tags of received frames to the metadata.
const RECEIVE: [&str; 2] = ["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];
/// Features with which the sending end of a veth leaves tags in the metadata.
const SEND: [&str; 2] = ["tx-vlan-hw-insert", "tx-vlan-stag-hw-insert"];

/// Kinds of interfaces whose packets first pass the kernel's network stack at the interface below.
const DEVICES_ABOVE: [&str; 5] = ["macvlan", "macvtap", "ipvlan", "ipvtap", "bridge"];

impl VlanTagLoss {
    /// Examines an interface. Returns `None` if frames contain their tags.
    pub fn find(name: &str, ifindex: u32) -> io::Result<Option<Self>> {
        let link = Link::read(ifindex)?;
        if let Some(device) = link.kind.as_deref().filter(|kind| DEVICES_ABOVE.contains(kind)) {
            return Ok(Some(Self {
                cause: format!("{name} is a {device}: the kernel removes VLAN tags before it"),
                fix: format!("use the interface below {name} as the port's interface"),
                depends_on_sender: false,
            }));
        }
        let enabled = Ethtool::open(ifindex)?.offloads()?;
        if !link.is_veth() {
            return Ok(Self::of_driver(name, &enabled));
        }
        let Some(peer) = link.peer else {
            return Ok(Self::of_veth(name, &enabled, None));
        };
        let peer_name = if_indextoname(peer).ok().and_then(|name| name.into_string().ok());
        let peer_enabled = Ethtool::open(peer)?.offloads()?;
        Ok(Self::of_veth(name, &enabled, peer_name.as_deref().zip(Some(&peer_enabled))))
    }

    fn of_driver(name: &str, enabled: &BTreeSet<String>) -> Option<Self> {
        let features = enabled_of(&RECEIVE, enabled)?;
        Some(Self {
            cause: format!("its driver removes VLAN tags from received frames ({features})"),
            fix: format!("run `{}`", keep_received_tags(name)),
            depends_on_sender: false,
        })
    }

    /// `peer` is the name of the other end and its enabled features; `None` if the other end is in
    /// another network namespace. The `RECEIVE` features of a veth have no effect: it passes
    /// packets on with their metadata. Disabled `RECEIVE` features only show that somebody has run
    /// the commands of `fix`, one of which makes the other end leave tags in frames.
    fn of_veth(
        name: &str,
        enabled: &BTreeSet<String>,
        peer: Option<(&str, &BTreeSet<String>)>,
    ) -> Option<Self> {
        let peer_sends_metadata =
            peer.and_then(|(peer, enabled)| enabled_of(&SEND, enabled).map(|_| peer));
        let peer_fix =
            |peer: &str| format!("`ethtool -K {peer} txvlan off tx-vlan-stag-hw-insert off`");
        match (enabled_of(&RECEIVE, enabled), peer_sends_metadata) {
            (None, None) => None,
            (None, Some(peer)) => Some(Self {
                cause: format!("{peer}, its other end, can send VLAN tags outside of frames"),
                fix: format!("run {}", peer_fix(peer)),
                depends_on_sender: true,
            }),
            (Some(features), _) => {
                let own = keep_received_tags(name);
                let fix = match peer {
                    Some((peer, _)) => format!("run `{own}` and {}", peer_fix(peer)),
                    None => format!(
                        "run `{own}` and, in the network namespace of its other end, {}",
                        peer_fix("PEER")
                    ),
                };
                Some(Self {
                    cause: format!("a veth can receive VLAN tags outside of frames ({features})"),
                    fix,
                    depends_on_sender: false,
                })
            }
        }
    }
}

fn enabled_of(features: &[&str], enabled: &BTreeSet<String>) -> Option<String> {
    let enabled: Vec<&str> =
        features.iter().copied().filter(|feature| enabled.contains(*feature)).collect();
    (!enabled.is_empty()).then(|| enabled.join(", "))
}

fn keep_received_tags(name: &str) -> String {
    format!("ethtool -K {name} rxvlan off rx-vlan-stag-hw-parse off")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(features: &[&str]) -> BTreeSet<String> {
        features.iter().map(|feature| (*feature).to_owned()).collect()
    }

    #[test]
    fn driver_that_parses_tags_loses_them() {
        assert_eq!(VlanTagLoss::of_driver("eth1", &set(&["rx-gro", "tx-vlan-hw-insert"])), None);
        for feature in RECEIVE {
            let loss = VlanTagLoss::of_driver("eth1", &set(&[feature])).unwrap();
            assert!(loss.cause.contains(&format!("({feature})")), "{loss:?}");
            assert_eq!(loss.fix, "run `ethtool -K eth1 rxvlan off rx-vlan-stag-hw-parse off`");
            assert!(!loss.depends_on_sender);
        }
    }

    #[test]
    fn veth_loses_tags_that_its_other_end_leaves_in_metadata() {
        let (all, none) = (set(&[RECEIVE, SEND].concat()), set(&[]));
        let find = |enabled, peer| VlanTagLoss::of_veth("v0", enabled, peer);
        assert_eq!(find(&none, None), None);
        assert_eq!(find(&none, Some(("v1", &none))), None);
        let loss = find(&none, Some(("v1", &all))).unwrap();
        assert!(
            loss.depends_on_sender && loss.fix.contains("ethtool -K v1 txvlan off"),
            "{loss:?}"
        );
        for (peer, name) in
            [(None, "PEER"), (Some(("v1", &none)), "v1"), (Some(("v1", &all)), "v1")]
        {
            let loss = find(&all, peer).unwrap();
            assert!(!loss.depends_on_sender);
            let fixes = [
                "ethtool -K v0 rxvlan off rx-vlan-stag-hw-parse off",
                &format!("ethtool -K {name} txvlan off tx-vlan-stag-hw-insert off"),
            ];
            assert!(fixes.iter().all(|fix| loss.fix.contains(fix)), "{loss:?}");
        }
    }
}
