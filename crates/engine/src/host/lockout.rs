//! Finds ports that take an SSH session or the default route from this host.

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
    /// Index of the port in the plan.
    pub port: usize,
    /// Port name.
    pub name: String,
    /// Interface name.
    pub interface: String,
    /// The traffic.
    pub traffic: TrafficUse,
}

/// The result of [`lockouts`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lockouts {
    /// The traffic that this host may need.
    pub found: Vec<Lockout>,
    /// Why SSH sessions of this host may be missing in `found`, if they could not be read.
    pub sessions_error: Option<String>,
}

/// Traffic by which this host is reachable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrafficUse {
    /// Traffic over the default route, not passed to the kernel by `keep` rules.
    DefaultRoute,
    /// An SSH session, not passed to the kernel by `keep` rules.
    Ssh {
        /// The remote address.
        peer: IpAddr,
        /// The `keep` rules that pass the session.
        needed: Keep,
    },
}

impl Lockout {
    /// Describes the traffic, to follow the interface's name: "has the default route".
    pub fn carries(&self) -> String {
        match &self.traffic {
            TrafficUse::DefaultRoute => "has the default route".to_owned(),
            TrafficUse::Ssh { peer, .. } => format!("carries an SSH session from {peer}"),
        }
    }

    /// Returns `keep` rules that pass the traffic.
    pub fn needed(&self) -> Keep {
        match &self.traffic {
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

/// Returns the traffic that a plan takes from the kernel and that this host may need. Only AF_XDP
/// ports from which a path starts take traffic.
pub fn lockouts(plan: &Plan) -> io::Result<Lockouts> {
    let host = Host::read()?;
    let default_routes = default_routes()?;
    let (sessions, sessions_error) = ssh_sessions();
    let mut found = Vec::new();
    for (index, port) in plan.ports.iter().enumerate() {
        let takes_packets =
            port.io.uses_xdp() && plan.paths.iter().any(|path| usize::from(path.from.0) == index);
        let Ok(interface) = Interface::find(&port.name, &port.interface) else { continue };
        if !takes_packets {
            continue;
        }
        let stack = host.links().stack(interface.index);
        let mut add = |traffic| {
            let (name, interface) = (port.name.clone(), port.interface.clone());
            found.push(Lockout { port: index, name, interface, traffic });
        };
        let is_cut_off = |(link, ipv6): &(u32, bool)| {
            stack.contains(link) && !is_reachable(&port.keep, *ipv6, *link != interface.index)
        };
        if default_routes.iter().any(is_cut_off) {
            add(TrafficUse::DefaultRoute);
        }
        let mut peers = BTreeSet::new();
        for Session { local, peer } in &sessions {
            let needed = needed_rules(*local);
            let mut links = host.links_of(local.ip()).filter(|link| stack.contains(link));
            let is_locked_out =
                links.any(|link| !is_sufficient(&port.keep, &needed, link != interface.index));
            if is_locked_out && peers.insert(*peer) {
                add(TrafficUse::Ssh { peer: *peer, needed });
            }
        }
    }
    Ok(Lockouts { found, sessions_error })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Session {
    local: SocketAddr,
    peer: IpAddr,
}

fn needed_rules(local: SocketAddr) -> Keep {
    let neighbors = if local.is_ipv4() { KeepRule::Arp } else { KeepRule::Nd };
    Keep::from([neighbors, KeepRule::Tcp(local.port())])
}

/// Returns whether the rules `keep` pass everything that the rules `needed` pass. If `is_stacked`,
/// the local address is on an interface above the port's, such as a VLAN. Then any `vlan` rule is
/// assumed to name that VLAN, and is sufficient.
fn is_sufficient(keep: &Keep, needed: &Keep, is_stacked: bool) -> bool {
    let passed_by_local =
        |rule: &KeepRule| matches!(rule, KeepRule::Tcp(_)) && keep.contains(&KeepRule::Local);
    is_stacked && has_vlan(keep)
        || needed.iter().all(|rule| keep.contains(rule) || passed_by_local(rule))
}

/// Returns whether the rules pass address resolution and at least some IP packets, so that this
/// host may be reachable over a default route. `is_stacked` is as in [`is_sufficient`].
fn is_reachable(keep: &Keep, ipv6: bool, is_stacked: bool) -> bool {
    let neighbors = if ipv6 { KeepRule::Nd } else { KeepRule::Arp };
    let passes_packets = |rule: &KeepRule| {
        matches!(rule, KeepRule::Icmp | KeepRule::Local | KeepRule::Tcp(_) | KeepRule::Udp(_))
    };
    is_stacked && has_vlan(keep) || keep.contains(&neighbors) && keep.iter().any(passes_packets)
}

fn has_vlan(keep: &Keep) -> bool {
    keep.iter().any(|rule| matches!(rule, KeepRule::Vlan(_)))
}

/// Returns all TCP connections to port 22 of this network namespace, the session of this process,
/// and why connections may be missing, if they were unreadable.
fn ssh_sessions() -> (BTreeSet<Session>, Option<String>) {
    const SSH: u16 = 22;
    // Without IPv6, the kernel has no /proc/net/tcp6.
    let (ipv4, ipv6) = (procfs::net::tcp(), procfs::net::tcp6().unwrap_or_default());
    let error = ipv4.as_ref().err().map(ToString::to_string);
    let connections = ipv4.unwrap_or_default().into_iter().chain(ipv6);
    let established = connections
        .filter(|entry| entry.state == TcpState::Established && entry.local_address.port() == SSH);
    let mut sessions: BTreeSet<Session> = established
        .map(|entry| Session {
            local: to_canonical(entry.local_address),
            peer: to_canonical(entry.remote_address).ip(),
        })
        .collect();
    sessions.extend(session_of_process());
    (sessions, error)
}

/// Converts IPv4-mapped IPv6 addresses, which dual-stack sockets have, to IPv4.
fn to_canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Reads `SSH_CONNECTION` from the environment of the process or, because sudo clears it, of an
/// ancestor.
fn session_of_process() -> Option<Session> {
    /// Ample: the variable is rarely more than three ancestors away.
    const MAX_PROCESSES: usize = 16;
    let mut process = Process::myself().ok()?;
    for _ in 0..MAX_PROCESSES {
        let environment = process.environ().unwrap_or_default();
        let connection = environment.iter().find(|(name, _)| *name == "SSH_CONNECTION");
        if let Some(session) = connection.and_then(|(_, value)| parse_session(value.to_str()?)) {
            return Some(session);
        }
        process = Process::new(process.stat().ok()?.ppid).ok()?;
    }
    None
}

/// Parses `SSH_CONNECTION` (ssh(1)): the client's address and port, the server's address and port.
fn parse_session(text: &str) -> Option<Session> {
    let mut words = text.split(' ');
    let (peer, _, ip, port) = (words.next()?, words.next()?, words.next()?, words.next()?);
    // Remove the zone of a link-local address (`%eth0`).
    let parse = |text: &str| text.split('%').next().and_then(|ip| ip.parse::<IpAddr>().ok());
    Some(Session { local: SocketAddr::new(parse(ip)?, port.parse().ok()?), peer: parse(peer)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACKED: bool = true;
    const NOT_STACKED: bool = false;

    fn keep(rules: &[&str]) -> Keep {
        rules.iter().map(|rule| rule.parse().unwrap()).collect()
    }

    #[test]
    fn parse_session_returns_none_for_invalid_ssh_connection() {
        let session = |text| {
            parse_session(text).map(|session| (session.local.to_string(), session.peer.to_string()))
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
    fn session_needs_rules_for_its_tcp_port_and_address_resolution() {
        let ipv4 = needed_rules("198.51.100.1:22".parse().unwrap());
        let ipv6 = needed_rules("[2001:db8::1]:2222".parse().unwrap());
        for (rules, ipv4_expected, ipv6_expected) in [
            (&[][..], false, false),
            (&["arp", "tcp/22"], true, false),
            (&["tcp/22"], false, false),
            (&["arp", "nd", "local"], true, true),
            (&["nd", "tcp/2222"], false, true),
            (&["nd", "tcp/22"], false, false),
            (&["vlan/7"], false, false),
        ] {
            let rules = keep(rules);
            let results = [&ipv4, &ipv6].map(|needed| is_sufficient(&rules, needed, NOT_STACKED));
            assert_eq!(results, [ipv4_expected, ipv6_expected], "{rules:?}");
        }
        assert!(
            is_sufficient(&keep(&["vlan/7"]), &ipv4, STACKED),
            "a `vlan` rule must be sufficient for an address on a VLAN interface"
        );
    }

    #[test]
    fn default_route_needs_rules_for_address_resolution_and_packets() {
        for (rules, ipv4_expected, ipv6_expected) in [
            (&[][..], false, false),
            (&["lldp", "stp"], false, false),
            (&["arp"], false, false),
            (&["arp", "icmp"], true, false),
            (&["nd", "tcp/22"], false, true),
            (&["local"], false, false),
            (&["vlan/5"], false, false),
        ] {
            let rules = keep(rules);
            let results = [false, true].map(|ipv6| is_reachable(&rules, ipv6, NOT_STACKED));
            assert_eq!(results, [ipv4_expected, ipv6_expected], "{rules:?}");
        }
        let ipv6 = false;
        assert!(is_reachable(&keep(&["vlan/5"]), ipv6, STACKED));
    }
}
