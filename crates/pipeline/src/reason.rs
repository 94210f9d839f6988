//! Why packets are dropped: a closed list, and its counters.

use std::fmt;
use std::ops::{AddAssign, Index};

/// Why a packet was dropped. The list is closed: every drop in user space is counted under one of these, and what is
/// not in user space's hands is counted by the kernel ([`xsk::KernelCounters`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The egress queue was full: more came than the port could send. The queue never blocks the others.
    EgressFull,
    /// A stage's decision, by its rules: the packet is well-formed and not wanted.
    Policy,
    /// The TTL (RFC 791) or hop limit (RFC 8200) was used up.
    TtlExpired,
    /// A header that a stage needs is cut short or contradicts itself.
    Malformed,
    /// It is not IP, and a filter wants nothing else.
    NotIp,
    /// More VLAN tags than are walked over: what is behind them is not known.
    VlanStack,
    /// More IPv6 extension headers than are walked over (RFC 8200, 4): the upper protocol is not known.
    ExtensionChain,
    /// IPv4 options (RFC 791, 3.1), which a filter does not want.
    IpOptions,
    /// A later fragment, which has no ports to be filtered by.
    LaterFragment,
    /// Beyond a filter's rate limit.
    RateLimit,
    /// A signature was found in its payload, or none where one was wanted.
    Signature,
    /// ESP: no security association is for it.
    NoSa,
    /// Not ESP, where nothing else was wanted.
    Unprotected,
    /// ESP: received before (RFC 4303, 3.4.3).
    Replay,
    /// ESP: behind the anti-replay window.
    Late,
    /// ESP: its integrity check value is wrong.
    BadTag,
    /// ESP: too short, or no multiple of four bytes.
    BadLength,
    /// ESP: its padding is longer than it, or not 1, 2, 3, … (RFC 4303, 2.4).
    BadPadding,
    /// ESP: it came to another worker than the one that its security association belongs to.
    WrongQueue,
    /// ESP: the security association's hard limit is reached, or its sequence numbers are used up.
    SaLimit,
    /// ESP: numbers that it needs are not written down yet.
    StateFile,
    /// Too large for the way to the peer once it is sealed, and its sender could not be told.
    TooBig,
    /// A fragment, where ESP wants a whole packet.
    EspFragment,
    /// ESP: a dummy packet (RFC 4303, 2.6), or a NAT keepalive (RFC 3948, 2.3): there is nothing in it.
    Dummy,
    /// Marked as "congestion experienced" in a tunnel, and its sender does not know of that (RFC 6040, 4.2).
    Ecn,
    /// A stage left fewer bytes than an Ethernet header, or sent an empty frame.
    Runt,
    /// A stage sent it to a port that this worker does not have.
    NoSuchPort,
    /// A stage wanted room in front or behind that the frame does not have.
    NoRoom,
    /// Stages wanted to hold more frames than they may: a quarter of the worker's, all together.
    HoldQuota,
    /// A frame of another UMEM turned up: a bug in a stage.
    ForeignFrame,
    /// The worker stopped while the packet was on its way.
    Shutdown,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 31] = [
        Self::EgressFull,
        Self::Policy,
        Self::TtlExpired,
        Self::Malformed,
        Self::NotIp,
        Self::VlanStack,
        Self::ExtensionChain,
        Self::IpOptions,
        Self::LaterFragment,
        Self::RateLimit,
        Self::Signature,
        Self::NoSa,
        Self::Unprotected,
        Self::Replay,
        Self::Late,
        Self::BadTag,
        Self::BadLength,
        Self::BadPadding,
        Self::WrongQueue,
        Self::SaLimit,
        Self::StateFile,
        Self::TooBig,
        Self::EspFragment,
        Self::Dummy,
        Self::Ecn,
        Self::Runt,
        Self::NoSuchPort,
        Self::NoRoom,
        Self::HoldQuota,
        Self::ForeignFrame,
        Self::Shutdown,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::EgressFull => "egress_full",
            Self::Policy => "policy",
            Self::TtlExpired => "ttl_expired",
            Self::Malformed => "malformed",
            Self::NotIp => "not_ip",
            Self::VlanStack => "vlan_stack",
            Self::ExtensionChain => "extension_chain",
            Self::IpOptions => "ip_options",
            Self::LaterFragment => "later_fragment",
            Self::RateLimit => "rate_limit",
            Self::Signature => "signature",
            Self::NoSa => "no_sa",
            Self::Unprotected => "unprotected",
            Self::Replay => "replay",
            Self::Late => "late",
            Self::BadTag => "bad_tag",
            Self::BadLength => "bad_length",
            Self::BadPadding => "bad_padding",
            Self::WrongQueue => "wrong_queue",
            Self::SaLimit => "sa_limit",
            Self::StateFile => "state_file",
            Self::TooBig => "too_big",
            Self::EspFragment => "esp_fragment",
            Self::Dummy => "dummy",
            Self::Ecn => "ecn",
            Self::Runt => "runt",
            Self::NoSuchPort => "no_such_port",
            Self::NoRoom => "no_room",
            Self::HoldQuota => "hold_quota",
            Self::ForeignFrame => "foreign_frame",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A counter per reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops([u64; Reason::ALL.len()]);

impl Drops {
    /// Counts one.
    #[inline]
    pub fn count(&mut self, reason: Reason) {
        self.0[reason as usize] += 1;
    }

    /// All reasons together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Every reason with its count, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().map(|reason| (reason, self[reason]))
    }
}

impl Index<Reason> for Drops {
    type Output = u64;

    fn index(&self, reason: Reason) -> &u64 {
        &self.0[reason as usize]
    }
}

impl AddAssign for Drops {
    fn add_assign(&mut self, other: Self) {
        for (mine, others) in self.0.iter_mut().zip(other.0) {
            *mine += others;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_place_and_a_name_of_its_own() {
        let mut drops = Drops::default();
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert!(Reason::ALL[..index].iter().all(|other| other.name() != reason.name()));
            drops.count(reason);
            assert_eq!(drops[reason], 1);
        }
        assert_eq!(drops.total(), Reason::ALL.len() as u64);
    }
}
