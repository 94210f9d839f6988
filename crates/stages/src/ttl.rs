//! `ttl`: decrements the TTL or hop limit, as a router does.

use std::sync::Arc;

use serde::Deserialize;

use xdpfwd_pipeline::{
    BuildCx, Cx, PlanCx, PlanError, Reason, Stage, StageConfig, StagePlan, Verdicts, View,
};
use xdpfwd_wire::{IpVersion, Status, ipv4, ipv6};

/// Decrements the IPv4 TTL or the IPv6 hop limit.
///
/// Updates the IPv4 header checksum incrementally (RFC 1624). Drops a packet with a TTL of 1 or 0
/// as [`Reason::TTL_EXPIRED`] (RFC 1812, 5.3.1; RFC 8200, 3), without an ICMP message.
///
/// Packets that are not IP pass unchanged. Packets that may be IP but cannot be parsed (truncated
/// header, too many VLAN tags) are dropped as [`Reason::MALFORMED`]: with an unchanged TTL, they
/// could loop forever.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ttl {
    expired: u64,
    /// Packets that passed because they are not IP.
    not_ip: u64,
}

/// `kind = "ttl"` has no further keys.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TtlConfig {}

#[derive(Debug)]
struct TtlPlan;

impl StageConfig for TtlConfig {
    const KIND: &'static str = "ttl";

    fn plan(self, _: &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, PlanError> {
        Ok(Arc::new(TtlPlan))
    }
}

impl StagePlan for TtlPlan {
    fn build(&self, _: &BuildCx<'_>) -> Box<dyn Stage> {
        Box::new(Ttl::default())
    }

    fn verdicts(&self) -> Verdicts {
        // All stages of this kind drop the same packets.
        Verdicts::Key("ttl".into())
    }

    fn summary(&self) -> String {
        "decrements TTL or hop limit, drops expired packets".into()
    }
}

enum Outcome {
    Decremented,
    NotIp,
    Expired,
    Malformed,
}

impl Stage for Ttl {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for mut packet in view.packets() {
            let headers = &packet.meta.headers;
            let l3 = packet.frame.get_mut(headers.l2_len()..).unwrap_or_default();
            let outcome = match headers.ip_version {
                Some(IpVersion::V4) => match ipv4::Packet::new_checked(l3) {
                    Ok(mut ip) => {
                        ip.decrement_ttl().map_or(Outcome::Expired, |_| Outcome::Decremented)
                    }
                    Err(_) => Outcome::Malformed,
                },
                Some(IpVersion::V6) => match ipv6::Packet::new_checked(l3) {
                    Ok(mut ip) => {
                        ip.decrement_hop_limit().map_or(Outcome::Expired, |_| Outcome::Decremented)
                    }
                    Err(_) => Outcome::Malformed,
                },
                None if headers.status == Status::NotIp => Outcome::NotIp,
                None => Outcome::Malformed,
            };
            match outcome {
                Outcome::Decremented => {}
                Outcome::NotIp => self.not_ip += 1,
                Outcome::Expired => {
                    self.expired += 1;
                    packet.drop(Reason::TTL_EXPIRED);
                }
                Outcome::Malformed => packet.drop(Reason::MALFORMED),
            }
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("expired", self.expired), ("not_ip", self.not_ip)]
    }
}
