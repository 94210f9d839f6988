//! The meaning of each loss counter, and what to do. docs/operations.md has the long form.

/// What a growing counter means for the operator, the least urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Concern {
    /// Packets are dropped as configured.
    Configured,
    /// Packets are dropped because of their content.
    Content,
    /// Packets are lost.
    Loss,
    /// A bug in xdpfwd or in the kernel.
    Bug,
}

/// Returns the concern and the remedy of a counter.
pub(super) fn remedy(counter: &str) -> (Concern, &'static str) {
    use Concern::{Bug, Configured, Content, Loss};
    match counter {
        "rx_ring_full" => (
            Loss,
            "workers do not keep up: more queues and workers, cheaper stages, no other load on \
             their cores",
        ),
        "fill_ring_empty" => (Loss, "no free frame: increase umem.frames"),
        "rx_dropped" => {
            (Loss, "no free frame, or longer than a frame: check the sender's MTU and umem.frames")
        }
        "tx_dropped" => (
            Loss,
            "dropped by an interface: no carrier, full device queue, or longer than the other end \
             accepts",
        ),
        "port_down" => (Loss, "the egress port is down: ctl status shows the reason"),
        "tx_lost" => (Loss, "in transmission when a port was closed"),
        "egress_full" => (Loss, "the egress port is slower than the traffic, down, or paused"),
        "no_room" => (Loss, "no headroom or tailroom: lower the MTU, or set frame_size = 4096"),
        "hold_quota" => (Loss, "stages hold too many frames: increase umem.frames"),
        "no_such_port" => (Loss, "a stage sent the packet to a port that the worker does not have"),
        "rx_invalid" | "tx_invalid" | "invalid_descriptors" | "foreign_frame" | "unregistered" => {
            (Bug, "a bug: report it with the final report")
        }
        "policy" => (Configured, "rejected by the rules: ctl rules"),
        "rate_limit" => (Configured, "above the limit of a rule: ctl rules"),
        "signature" => (Configured, "matched a signature: ctl rules"),
        "shutdown" => (Configured, "not sent before the worker stopped"),
        "malformed" | "runt" => (Content, "invalid headers: find the sender with a mirror port"),
        "ttl_expired" => (Content, "TTL used up: a routing loop, or a traceroute"),
        "not_ip" | "vlan_stack" | "extension_chain" | "ip_options" | "routing_header"
        | "later_fragment" => (Content, "the filter cannot match such packets: docs/filter.md"),
        "no_sa" | "unprotected" | "replay" | "late" | "bad_tag" | "bad_length" | "bad_padding"
        | "wrong_queue" | "sa_limit" | "state_file" | "too_big" | "esp_fragment" | "dummy"
        | "ecn" => (Content, "rejected by ESP: ctl sa, docs/esp.md"),
        _ => (Content, "dropped by a stage"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each drop reason in docs/architecture.md has a remedy of its own; only a custom stage's
    /// reasons have the general one.
    #[test]
    fn remedy_covers_every_documented_drop_reason() {
        let page = include_str!("../../../../docs/architecture.md");
        let (_, table) = page.split_once("| reason | meaning |\n").unwrap();
        let rows = table.lines().skip(1).take_while(|line| line.starts_with("| `"));
        let mut count = 0;
        for row in rows {
            let cell = row[2..].split(" | ").next().unwrap();
            for reason in cell.split([' ', ',', '`']).filter(|word| !word.is_empty()) {
                assert_ne!(remedy(reason).1, remedy("custom").1, "{reason}");
                count += 1;
            }
        }
        assert!(count > 20, "{count}");
    }
}
