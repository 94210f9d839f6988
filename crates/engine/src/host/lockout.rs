//! Lockout detection: a plan takes all packets of its ports, which may carry an SSH session or the
//! default route.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use procfs::net::TcpState;
use procfs::process::Process;

use crate::host::addresses::{Host, default_routes};
use crate::host::interface::Interface;
use crate::keep::{Keep, KeepRule};
use crate::plan::Plan;

/// Traffic that a port takes from the kernel and that this host may need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lockout {
    /// The port, an index into the plan's.
    pub port: usize,
    /// Port name.
    pub name: String,
    /// Interface name.
    pub interface: String,
    /// The traffic.
    pub what: TrafficUse,
}

/// Traffic of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrafficUse {
    /// The default route, and the port keeps no rule by which this host stays reachable.
    DefaultRoute,
    /// An SSH session, and the port lacks the `keep` rules for it.
    Ssh {
        /// The remote address.
        peer: IpAddr,
        /// The required rules.
        needed: Keep,
    },
}

impl Lockout {
    /// Describes the traffic.
    pub fn carries(&self) -> String {
        match &self.what {
            TrafficUse::DefaultRoute => "has the default route".to_owned(),
            TrafficUse::Ssh { peer, .. } => format!("carries an SSH session from {peer}"),
        }
    }

    /// Returns the required `keep` rules.
    pub fn needed(&self) -> Keep {
        match &self.what {
            TrafficUse::DefaultRoute => Keep::from([KeepRule::Arp, KeepRule::Nd, KeepRule::Local]),
            TrafficUse::Ssh { needed, .. } => needed.clone(),
        }
    }
}

impl fmt::Display for Lockout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (interface, carried, needed) = (&self.interface, self.carries(), self.needed());
        let needed = needed.iter().map(|rule| format!("\"{rule}\"")).collect::<Vec<_>>().join(", ");
        write!(
            f,
            "{interface} {carried}, and this port takes its packets from the kernel; \
             to stay reachable, set keep = [{needed}]"
        )
    }
}

/// Returns the traffic that a plan takes from the kernel and that this host may need. Ports without
/// a path take nothing, nor do packet sockets, which receive copies.
pub fn lockouts(plan: &Plan) -> io::Result<Vec<Lockout>> {
    let host = Host::read()?;
    let defaults = default_routes()?;
    let sessions = ssh_sessions();
    let mut found = Vec::new();
    for (index, port) in plan.ports.iter().enumerate() {
        let takes =
            port.io.uses_xdp() && plan.paths.iter().any(|path| usize::from(path.from.0) == index);
        let Ok(interface) = Interface::find(&port.name, &port.interface) else { continue };
        if !takes {
            continue;
        }
        let stack = host.stack(interface.index);
        let mut add = |what| {
            let (name, interface) = (port.name.clone(), port.interface.clone());
            found.push(Lockout { port: index, name, interface, what });
        };
        let unreachable = |(link, ipv6): &(u32, bool)| {
            stack.contains(link) && !is_reachable(&port.keep, *ipv6, *link != interface.index)
        };
        if defaults.iter().any(unreachable) {
            add(TrafficUse::DefaultRoute);
        }
        let mut peers = BTreeSet::new();
        for Session { local, peer } in &sessions {
            let needed = needed_rules(*local);
            let mut links = host.links_of(local.ip()).filter(|link| stack.contains(link));
            let out =
                links.any(|link| !is_sufficient(&port.keep, &needed, link != interface.index));
            if out && peers.insert(*peer) {
                add(TrafficUse::Ssh { peer: *peer, needed });
            }
        }
    }
    Ok(found)
}

/// A remote login session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Session {
    local: SocketAddr,
    peer: IpAddr,
}

/// Returns the `keep` rules for TCP connections to a local address and port.
fn needed_rules(local: SocketAddr) -> Keep {
    let neighbors = if local.is_ipv4() { KeepRule::Arp } else { KeepRule::Nd };
    Keep::from([neighbors, KeepRule::Tcp(local.port())])
}

/// Returns whether rules satisfy the need. `is_stacked` means that the address is on a stacked
/// interface, such as a VLAN; any `vlan` rule is then assumed to name this VLAN.
fn is_sufficient(keep: &Keep, needed: &Keep, is_stacked: bool) -> bool {
    let local =
        |rule: &KeepRule| matches!(rule, KeepRule::Tcp(_)) && keep.contains(&KeepRule::Local);
    is_stacked && has_vlan(keep) || needed.iter().all(|rule| keep.contains(rule) || local(rule))
}

/// Returns whether the rules keep the host reachable over a default route's address family.
fn is_reachable(keep: &Keep, ipv6: bool, is_stacked: bool) -> bool {
    let neighbors = if ipv6 { KeepRule::Nd } else { KeepRule::Arp };
    let packets = |rule: &KeepRule| {
        matches!(rule, KeepRule::Icmp | KeepRule::Local | KeepRule::Tcp(_) | KeepRule::Udp(_))
    };
    is_stacked && has_vlan(keep) || keep.contains(&neighbors) && keep.iter().any(packets)
}

fn has_vlan(keep: &Keep) -> bool {
    keep.iter().any(|rule| matches!(rule, KeepRule::Vlan(_)))
}

/// Returns the SSH connections of this network namespace: those to port 22, and the one from which
/// this process was started.
fn ssh_sessions() -> BTreeSet<Session> {
    const SSH: u16 = 22;
    let connections = [procfs::net::tcp(), procfs::net::tcp6()];
    let connections = connections.into_iter().flatten().flatten();
    let established = connections
        .filter(|entry| entry.state == TcpState::Established && entry.local_address.port() == SSH);
    let mut sessions: BTreeSet<Session> = established
        .map(|entry| Session {
            local: unmapped(entry.local_address),
            peer: unmapped(entry.remote_address).ip(),
        })
        .collect();
    sessions.extend(own_session());
    sessions
}

/// Converts an IPv4-mapped IPv6 address, as dual-stack sockets show it, to IPv4.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns the SSH session of this process or its ancestors: sudo clears `SSH_CONNECTION`.
fn own_session() -> Option<Session> {
    /// Maximum number of ancestors checked; there are seldom more than three.
    const ANCESTORS: usize = 16;
    let mut process = Process::myself().ok()?;
    for _ in 0..ANCESTORS {
        let environment = process.environ().unwrap_or_default();
        let connection = environment.iter().find(|(name, _)| *name == "SSH_CONNECTION");
        if let Some(session) = connection.and_then(|(_, value)| session(value.to_str()?)) {
            return Some(session);
        }
        process = Process::new(process.stat().ok()?.ppid).ok()?;
    }
    None
}

/// `SSH_CONNECTION` (ssh(1)): client's address and port, server's address and port.
fn session(text: &str) -> Option<Session> {
    let mut words = text.split(' ');
    let (peer, _, ip, port) = (words.next()?, words.next()?, words.next()?, words.next()?);
    // A link-local address has a zone suffix.
    let parse = |text: &str| text.split('%').next().and_then(|ip| ip.parse::<IpAddr>().ok());
    Some(Session { local: SocketAddr::new(parse(ip)?, port.parse().ok()?), peer: parse(peer)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(rules: &[&str]) -> Keep {
        rules.iter().map(|rule| rule.parse().unwrap()).collect()
    }

    #[test]
    fn ssh_connection_is_parsed_or_rejected() {
        let session = |text| {
            session(text).map(|session| (session.local.to_string(), session.peer.to_string()))
        };
        assert_eq!(
            session("192.0.2.7 51234 198.51.100.1 22"),
            Some(("198.51.100.1:22".into(), "192.0.2.7".into()))
        );
        assert_eq!(
            session("fe80::1%eth0 5 fe80::2%eth0 2222"),
            Some(("[fe80::2]:2222".into(), "fe80::1".into()))
        );
        for text in ["", "a b c d", "192.0.2.7 51234", "192.0.2.7 51234 198.51.100.1 99999"] {
            assert_eq!(session(text), None, "{text:?}");
        }
    }

    #[test]
    fn session_needs_tcp_port_and_arp_or_nd() {
        let ipv4 = needed_rules("198.51.100.1:22".parse().unwrap());
        let ipv6 = needed_rules("[2001:db8::1]:2222".parse().unwrap());
        for (rules, four, six) in [
            (&[][..], false, false),
            (&["arp", "tcp/22"], true, false),
            (&["tcp/22"], false, false),
            (&["arp", "nd", "local"], true, true),
            (&["nd", "tcp/2222"], false, true),
            (&["nd", "tcp/22"], false, false),
            (&["vlan/7"], false, false),
        ] {
            let rules = keep(rules);
            assert_eq!(
                (is_sufficient(&rules, &ipv4, false), is_sufficient(&rules, &ipv6, false)),
                (four, six),
                "{rules:?}"
            );
        }
        assert!(is_sufficient(&keep(&["vlan/7"]), &ipv4, true), "on a VLAN device");
    }

    #[test]
    fn default_route_needs_arp_or_nd_and_packet_rule() {
        for (rules, four, six) in [
            (&[][..], false, false),
            (&["lldp", "stp"], false, false),
            (&["arp"], false, false),
            (&["arp", "icmp"], true, false),
            (&["nd", "tcp/22"], false, true),
            (&["local"], false, false),
            (&["vlan/5"], false, false),
        ] {
            let rules = keep(rules);
            let reachable = (is_reachable(&rules, false, false), is_reachable(&rules, true, false));
            assert_eq!(reachable, (four, six), "{rules:?}");
        }
        assert!(is_reachable(&keep(&["vlan/5"]), false, true));
    }
}
