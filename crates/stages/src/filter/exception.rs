//! Packet exceptions: kinds of packets that can mislead a filter, and what a filter does with each.

use xdpfwd_filter::Verdict;
use xdpfwd_pipeline::{Cell, Reason, Table, Unit};

/// A kind of packet that can mislead a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketException {
    /// The packet is not IP and not ARP: LLC, MPLS, PPPoE, …
    NotIp,
    /// A header is truncated or inconsistent.
    Malformed,
    /// More VLAN tags than the parser follows.
    VlanStack,
    /// More IPv6 extension headers than the parser follows.
    ExtensionChain,
    /// The IPv4 header has options.
    IpOptions,
    /// An IPv6 routing header has segments left, so the destination address is not the final one.
    RoutingHeader,
    /// A fragment other than the first, which has no ports. For
    /// [`inspect_gtpu`](super::inspect_gtpu), also the first fragment of a GTP-U packet.
    LaterFragment,
    /// ARP. Shares the key, the reason and the counters of [`Self::NotIp`].
    Arp,
}

impl PacketException {
    /// The kinds with their own configuration key, in declaration order.
    pub const WITH_KEY: [Self; 7] = [
        Self::NotIp,
        Self::Malformed,
        Self::VlanStack,
        Self::ExtensionChain,
        Self::IpOptions,
        Self::RoutingHeader,
        Self::LaterFragment,
    ];

    /// Returns the key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Self::LaterFragment => "later_fragments",
            other => other.reason().name(),
        }
    }

    /// Returns the drop reason. The counters of accepted and of dropped packets use its name.
    pub fn reason(self) -> Reason {
        match self {
            Self::NotIp | Self::Arp => Reason::NOT_IP,
            Self::Malformed => Reason::MALFORMED,
            Self::VlanStack => Reason::VLAN_STACK,
            Self::ExtensionChain => Reason::EXTENSION_CHAIN,
            Self::IpOptions => Reason::IP_OPTIONS,
            Self::RoutingHeader => Reason::ROUTING_HEADER,
            Self::LaterFragment => Reason::LATER_FRAGMENT,
        }
    }

    /// Returns the warning for a filter that drops by default, but accepts these packets.
    pub(super) fn warning_if_accepted(self) -> String {
        let (packets, alternatives) = match self {
            Self::NotIp | Self::Arp => (
                "all packets that are not IP, also IP inside PPPoE, MPLS or MACsec,",
                "\"arp\" or \"drop\"",
            ),
            Self::Malformed => ("all packets with truncated or contradictory headers", "\"drop\""),
            Self::VlanStack => ("all packets with more than two VLAN tags", "\"drop\""),
            Self::ExtensionChain => {
                ("all packets with more than eight IPv6 extension headers", "\"drop\"")
            }
            Self::IpOptions => ("all packets with IPv4 options", "\"judge\" or \"drop\""),
            Self::RoutingHeader => (
                "all packets with an IPv6 routing header with segments left",
                "\"judge\" or \"drop\"",
            ),
            Self::LaterFragment => ("all fragments other than the first", "\"judge\" or \"drop\""),
        };
        let key = self.key();
        format!(
            "{key} = \"accept\" lets {packets} pass without a rule, although the default is to \
             drop; set {key} = {alternatives}"
        )
    }

    /// Returns the position in [`Self::WITH_KEY`] of the kind with the same key.
    fn position(self) -> usize {
        if self == Self::Arp { Self::NotIp as usize } else { self as usize }
    }
}

/// What a filter does with the packets of an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExceptionAction {
    /// Matches them against the rules.
    MatchRules,
    Accept,
    /// Accepts ARP, and drops all other packets that are not IP.
    AcceptArp,
    Drop,
}

impl ExceptionAction {
    /// Returns the value in the configuration.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::MatchRules => "judge",
            Self::Accept => "accept",
            Self::AcceptArp => "arp",
            Self::Drop => "drop",
        }
    }
}

/// The action for each packet exception, in the order of [`PacketException::WITH_KEY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExceptionPolicy(pub(super) [ExceptionAction; PacketException::WITH_KEY.len()]);

impl ExceptionPolicy {
    /// Returns the verdict; `None` if rules apply.
    pub(super) fn verdict(&self, exception: PacketException) -> Option<Verdict> {
        match self.0[exception.position()] {
            ExceptionAction::MatchRules => None,
            ExceptionAction::Accept => Some(Verdict::Accept),
            ExceptionAction::AcceptArp if exception == PacketException::Arp => {
                Some(Verdict::Accept)
            }
            ExceptionAction::AcceptArp | ExceptionAction::Drop => Some(Verdict::Drop),
        }
    }
}

/// For each packet exception, the packets that its key accepted and dropped.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ExceptionCounters([[u64; 2]; PacketException::WITH_KEY.len()]);

impl ExceptionCounters {
    pub(super) fn count(&mut self, exception: PacketException, verdict: Verdict) {
        self.0[exception.position()][usize::from(verdict == Verdict::Drop)] += 1;
    }

    /// Returns the counters in the order of [`counter_keys`], which is also that of the XDP
    /// program's counters.
    pub(super) fn rows(self) -> impl Iterator<Item = u64> {
        self.0.into_iter().flatten()
    }
}

/// Number of [`counter_keys`].
pub(super) const COUNTERS: usize = 2 * PacketException::WITH_KEY.len();

/// Keys of the row counters: for each exception, accepted and dropped. They differ from the keys of
/// rules, which are rule texts.
pub(super) fn counter_keys() -> impl Iterator<Item = String> {
    PacketException::WITH_KEY.into_iter().flat_map(|exception| {
        let name = exception.reason().name();
        ["accepted", "dropped"].map(|verdict| format!("({name} {verdict})"))
    })
}

/// Returns the inspection table with the columns `exception`, `accepted` and `dropped`.
pub(super) fn table(counters: &[u64]) -> Table {
    let mut table = Table::new("exceptions", &[])
        .columns(["exception"])
        .columns_in(Unit::Packets, ["accepted", "dropped"]);
    let counters = counters.chunks(2).chain(std::iter::repeat(&[][..]));
    for (exception, counters) in PacketException::WITH_KEY.into_iter().zip(counters) {
        let packets = |index: usize| Cell::Number(counters.get(index).copied().unwrap_or(0));
        table.push((exception.reason().name(), packets(0), packets(1)));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exception_counters_and_keys_have_the_order_of_the_table() {
        let mut counters = ExceptionCounters::default();
        counters.count(PacketException::Arp, Verdict::Accept);
        counters.count(PacketException::NotIp, Verdict::Drop);
        counters.count(PacketException::NotIp, Verdict::Drop);
        counters.count(PacketException::LaterFragment, Verdict::Drop);
        let rows: Vec<u64> = counters.rows().collect();
        assert_eq!(rows, [1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let keys: Vec<String> = counter_keys().collect();
        assert_eq!(keys.len(), COUNTERS);
        assert_eq!(keys[..2], ["(not_ip accepted)", "(not_ip dropped)"]);
        assert_eq!(keys[13], "(later_fragment dropped)");
        let table = table(&rows);
        let texts: Vec<String> =
            table.rows.iter().map(|row| format!("{} {} {}", row[0], row[1], row[2])).collect();
        assert_eq!((&*texts[0], &*texts[6]), ("not_ip 1 2", "later_fragment 0 1"));
        assert_eq!(super::table(&[]).rows.len(), PacketException::WITH_KEY.len());
    }

    #[test]
    fn exception_position_is_that_of_its_key() {
        for (position, exception) in PacketException::WITH_KEY.into_iter().enumerate() {
            assert_eq!(exception.position(), position);
        }
        assert_eq!(PacketException::Arp.key(), "not_ip");
        assert_eq!(PacketException::LaterFragment.key(), "later_fragments");
    }
}
