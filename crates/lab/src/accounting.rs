//! Accounts for every frame that the generator sent to xdpfwd.

use serde::Serialize;

use crate::{Counters, Report, SinkCounters, VethDropCounts, grouped, report::total};

/// The account of one run of xdpfwd: offered = forwarded + every loss.
///
/// A loss is *counted* by xdpfwd or the kernel where it happened, or is the *difference* of two
/// counters with only a veth pair between them. [`Self::mismatches`] lists contradictions between
/// counters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PacketAccounting {
    /// Frames the generator sent.
    pub offered: u64,
    /// Frames of the generator that arrived at the sink.
    pub forwarded: u64,
    /// Losses between generator and sink, in path order.
    pub losses: Vec<Loss>,
    /// Contradictions between counters; empty if the account balances.
    pub mismatches: Vec<Mismatch>,
    /// Frames of xdpfwd's UMEM that are missing from its counts.
    pub leaked: i64,
}

/// Frames lost at one location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Human-readable location.
    pub location: String,
    /// Number of frames; negative only if a counter is wrong.
    pub packets: i128,
    /// How the number was determined.
    pub basis: LossBasis,
    /// Frames that the veth driver counted as lost here, if known. A lower bound: the driver does
    /// not count a frame to a peer without NAPI.
    pub veth: Option<u64>,
    /// Whether frames arrived faster than they were processed.
    pub overload: bool,
}

/// How the number of a loss was determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LossBasis {
    /// By a counter of this loss.
    Counted,
    /// As the difference of the counters before and after the location.
    Difference,
}

/// Two counters that must agree and do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The frames that are in one counter only.
    pub description: String,
    /// Number of frames; negative if the counter that should be lower is higher.
    pub packets: i128,
}

const INGRESS: &str = "fwd0";
const EGRESS: &str = "fwd1";

impl PacketAccounting {
    /// Computes the account from the frames offered, the sink's counters and xdpfwd's final report.
    /// `veth` adds the veth driver's counts, for comparison with xdpfwd's.
    #[must_use]
    pub fn new(
        offered: Counters,
        seen: &SinkCounters,
        report: &Report,
        veth: Option<&VethDropCounts>,
    ) -> Self {
        let absent = crate::PortReport::default();
        let ingress = report.port(INGRESS).unwrap_or(&absent);
        let egress = report.port(EGRESS).unwrap_or(&absent);
        let kernel = &report.kernel;
        // `fill_ring_empty` and `rx_dropped` both count a frame that finds the fill ring empty;
        // only `rx_dropped` counts a frame that is too long.
        let fill_empty = kernel.fill_ring_empty.min(kernel.rx_dropped.unwrap_or(u64::MAX));
        let too_long = kernel.rx_dropped.unwrap_or(0).saturating_sub(kernel.fill_ring_empty);
        let lost_in_af_xdp = total([fill_empty, kernel.rx_ring_full, too_long]);
        // No XDP program of xdpfwd counts the frames before a packet socket.
        let is_packet_socket = ingress.is_packet_socket();
        let redirected = ingress
            .xdp_redirected
            .filter(|_| !is_packet_socket)
            .unwrap_or(total([ingress.rx_packets, lost_in_af_xdp]));
        let dropped = total(report.drops.values().copied());

        let mut losses = Vec::new();
        // The last argument is `Loss::overload`.
        let mut add = |location: &str, packets: i128, basis, veth, overload| {
            losses.push(Loss { location: location.to_owned(), packets, basis, veth, overload });
        };
        let difference = |from: u64, to: u64| i128::from(from) - i128::from(to);
        add(
            match is_packet_socket {
                false => "in veth, before fwd0's XDP program",
                true => "in veth or the kernel, before fwd0's packet socket",
            },
            difference(
                offered.packets,
                total([redirected, ingress.xdp_passed, total(ingress.xdp_drops.values().copied())]),
            ),
            LossBasis::Difference,
            veth.map(|veth| veth.generator.redirect_out),
            true,
        );
        if !is_packet_socket {
            add(
                "passed to the kernel by fwd0's XDP program",
                ingress.xdp_passed.into(),
                LossBasis::Counted,
                None,
                false,
            );
        }
        for (reason, packets) in ingress.xdp_drops.iter().filter(|(_, packets)| **packets > 0) {
            add(
                &format!("dropped by fwd0's XDP program: {reason}"),
                (*packets).into(),
                LossBasis::Counted,
                None,
                false,
            );
        }
        if !is_packet_socket {
            add("AF_XDP: fill ring empty", fill_empty.into(), LossBasis::Counted, None, true);
        }
        let (ring_full, dropped_by_socket) = match is_packet_socket {
            false => ("AF_XDP: receive ring full", "AF_XDP: longer than a UMEM frame"),
            true => ("packet socket: buffer full", "packet socket: longer than a UMEM frame"),
        };
        add(ring_full, kernel.rx_ring_full.into(), LossBasis::Counted, None, true);
        if too_long > 0 {
            add(dropped_by_socket, too_long.into(), LossBasis::Counted, None, false);
        }
        for (reason, packets) in report.drops.iter().filter(|(_, packets)| **packets > 0) {
            let overload = reason.ends_with("_full");
            add(
                &format!("xdpfwd: {reason}"),
                (*packets).into(),
                LossBasis::Counted,
                None,
                overload,
            );
        }
        if dropped == 0 {
            add("xdpfwd: any reason", 0, LossBasis::Counted, None, false);
        }
        let sent_elsewhere = report.transmitted() - egress.tx_packets;
        if sent_elsewhere > 0 {
            add(
                "sent out of a port other than fwd1",
                sent_elsewhere.into(),
                LossBasis::Counted,
                None,
                false,
            );
        }
        if seen.foreign > 0 {
            add(
                "at the sink, but not recognised",
                seen.foreign.into(),
                LossBasis::Counted,
                None,
                false,
            );
        }
        add(
            "between xdpfwd's transmit and the sink",
            difference(egress.tx_packets, total([seen.arrived.packets, seen.foreign])),
            LossBasis::Difference,
            veth.map(|veth| veth.sink.receive),
            false,
        );

        let mut mismatches = Vec::new();
        let mut expect_zero = |description: &str, packets: i128| {
            if packets != 0 {
                mismatches.push(Mismatch { description: description.to_owned(), packets });
            }
        };
        expect_zero(
            "redirected to AF_XDP on fwd0, but neither received nor counted as lost there",
            difference(redirected, total([ingress.rx_packets, lost_in_af_xdp])),
        );
        // The driver counts these losses only if it runs the XDP program itself.
        if let Some(veth) = veth
            && !is_packet_socket
            && ingress.mode != "skb"
        {
            expect_zero(
                "counted as lost on fwd0 by the veth driver, but not by xdpfwd",
                difference(veth.ingress.receive, lost_in_af_xdp),
            );
        }
        // A packet socket gets every frame that the interface receives; no XDP program counts them
        // before it.
        if let Some(veth) = veth
            && is_packet_socket
        {
            expect_zero(
                "received by fwd0, but neither received by xdpfwd nor lost in its packet socket",
                difference(veth.ingress.received, total([ingress.rx_packets, lost_in_af_xdp])),
            );
        }
        expect_zero(
            "received by xdpfwd, but neither transmitted nor dropped with a reason",
            difference(report.received(), total([report.transmitted(), dropped])),
        );
        expect_zero(
            "received on a port other than fwd0",
            difference(report.received(), ingress.rx_packets),
        );
        for loss in losses.iter().filter(|loss| loss.packets < 0) {
            expect_zero(
                &format!("frames lost (more came out than went in): {}", loss.location),
                loss.packets,
            );
        }
        expect_zero("duplicates at the sink", i128::from(seen.duplicates));
        for interface in [INGRESS, EGRESS] {
            if report.port(interface).is_none() {
                expect_zero(
                    &format!("offered, but xdpfwd's report has no port on {interface}"),
                    offered.packets.into(),
                );
            }
        }
        let lost_in_total: i128 = losses.iter().map(|loss| loss.packets).sum();
        let unexplained = difference(offered.packets, seen.arrived.packets) - lost_in_total;
        // The mismatches found so far may explain the remainder.
        if mismatches.is_empty() && unexplained != 0 {
            mismatches.push(Mismatch {
                description: "offered, but neither forwarded nor lost".into(),
                packets: unexplained,
            });
        }
        Self {
            offered: offered.packets,
            forwarded: seen.arrived.packets,
            losses,
            mismatches,
            leaked: leaked(report),
        }
    }

    /// Returns the number of frames lost: offered − forwarded.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.offered.saturating_sub(self.forwarded)
    }

    /// Returns whether every frame offered is accounted for.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.mismatches.is_empty()
    }

    /// Returns whether xdpfwd forwarded frames, leaked none, and every frame is accounted for.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.forwarded > 0 && self.leaked == 0 && self.is_balanced()
    }

    /// Explains the numbers in one or two sentences. `rate` is the requested rate in packets per
    /// second, or `None` for as fast as possible.
    #[must_use]
    pub fn verdict(&self, rate: Option<u64>) -> String {
        if self.forwarded == 0 {
            return format!("NO frame was forwarded of {} offered.", grouped(self.offered));
        }
        let mut text = if self.is_balanced() {
            format!(
                "Every frame is accounted for: {} offered = {} forwarded + {} lost at the \
                 locations above",
                grouped(self.offered),
                grouped(self.forwarded),
                grouped(self.lost())
            )
        } else {
            let mismatches: Vec<String> = self
                .mismatches
                .iter()
                .map(|mismatch| format!("{} {}", grouped(mismatch.packets), mismatch.description))
                .collect();
            format!("The packet accounting does NOT balance: {}", mismatches.join("; "))
        };
        text += &match self.leaked {
            0 => ", and xdpfwd leaked none of its own buffers.".to_owned(),
            n => format!("; xdpfwd LEAKED {n} of its own buffers."),
        };
        let overload: i128 =
            self.losses.iter().filter(|loss| loss.overload).map(|loss| loss.packets).sum();
        let other = i128::from(self.lost()) - overload;
        if self.lost() == 0 {
            text += " No frame was lost.";
        } else if !self.is_balanced() {
            // An unbalanced account cannot be interpreted.
        } else if overload > 0 && other <= 0 && rate.is_none() {
            text += " The losses are intended overload: the generator sends as fast as it can, \
                     which is more than one core can forward.";
        } else if overload > 0 && other <= 0 {
            text += " The losses are overload: frames arrived faster, or in larger bursts, than \
                     they were processed. Use a lower --rate.";
        } else {
            text += &format!(
                " {} of the lost frames were not lost to overload: see their locations in \
                 the table.",
                grouped(other)
            );
        }
        text
    }
}

/// Returns the reported number of leaked frames or, if that is 0, `total` minus the other counts.
fn leaked(report: &Report) -> i64 {
    let frames = &report.frames;
    let missing =
        i64::try_from(i128::from(frames.total) - i128::from(frames.found())).unwrap_or(i64::MAX);
    if frames.leaked == 0 { missing } else { frames.leaked }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINAL_REPORT: &str = r#"{"schema":1,"type":"final","new":{"unknown":1},
        "ports":[{"name":"lan","interface":"fwd0","queues":1,"mode":"copy","rx_packets":700,"rx_bytes":42000,
                  "tx_packets":0,"tx_bytes":0,"xdp_redirected":990,"xdp_passed":2},
                 {"name":"wan","interface":"fwd1","queues":1,"mode":"copy","rx_packets":0,"tx_packets":690}],
        "drops":{"egress_full":6,"no_room":0,"runt":4},
        "stages":[{"path":"lan>wan","name":"mac-swap","calls":11,"packets":700,"drops":4,"cycles_per_packet":3.5},
                  {"path":"wan>lan","name":"mac-swap","calls":0,"packets":0,"drops":0,"cycles_per_packet":null}],
        "frames":{"total":16,"pool":10,"fill":6,"rx":0,"in_flight":0,"tx":0,"completion":0,"leaked":0},
        "kernel":{"syscalls":70,"rx_ring_full":90,"fill_ring_empty":195,"rx_dropped":200,"tx_invalid":0}}"#;

    fn offered(packets: u64) -> Counters {
        Counters { packets, bytes: packets * 60 }
    }

    fn sink_counters(packets: u64) -> SinkCounters {
        SinkCounters { arrived: offered(packets), ..SinkCounters::default() }
    }

    fn report() -> Report {
        Report::parse(FINAL_REPORT).expect("valid report")
    }

    fn account(sent: u64, arrived: u64, report: &Report) -> PacketAccounting {
        PacketAccounting::new(offered(sent), &sink_counters(arrived), report, None)
    }

    fn lost_at(account: &PacketAccounting, location: &str) -> i128 {
        account
            .losses
            .iter()
            .filter(|loss| loss.location.contains(location))
            .map(|loss| loss.packets)
            .sum()
    }

    #[test]
    fn accounting_lists_each_loss_by_location() {
        let account = account(1000, 689, &report());
        assert_eq!(lost_at(&account, "before fwd0"), 8);
        assert_eq!(lost_at(&account, "passed to the kernel"), 2);
        assert_eq!(lost_at(&account, "fill ring empty"), 195);
        assert_eq!(
            lost_at(&account, "longer than"),
            5,
            "expected rx_dropped minus the packets that found the fill ring empty"
        );
        assert_eq!(lost_at(&account, "receive ring full"), 90);
        assert_eq!(lost_at(&account, "egress_full"), 6);
        assert_eq!(lost_at(&account, "runt"), 4);
        assert_eq!(lost_at(&account, "and the sink"), 1);
        assert_eq!(account.losses.iter().map(|loss| loss.packets).sum::<i128>(), 1000 - 689);
        assert!(account.is_balanced() && account.is_good(), "{:?}", account.mismatches);
    }

    #[test]
    fn frame_lost_inside_xdpfwd_is_a_mismatch() {
        let mut report = report();
        report.drops.remove("runt");
        let account = account(1000, 689, &report);
        assert_eq!(account.mismatches.len(), 1);
        assert_eq!(account.mismatches[0].packets, 4);
        assert!(!account.is_good());
        assert!(account.verdict(None).contains("NOT balance"), "{}", account.verdict(None));
    }

    #[test]
    fn uncounted_loss_in_af_xdp_is_a_mismatch() {
        let mut report = report();
        report.kernel.rx_ring_full = 89;
        assert_eq!(account(1000, 689, &report).mismatches[0].packets, 1);
    }

    #[test]
    fn two_opposite_errors_give_two_mismatches() {
        let mut report = report();
        report.kernel.rx_ring_full -= 3;
        report.drops.insert("runt".into(), 7);
        assert_eq!(account(1000, 689, &report).mismatches.len(), 2);
    }

    #[test]
    fn more_frames_out_than_in_is_a_mismatch() {
        assert!(!account(1000, 691, &report()).is_balanced(), "more arrived than were transmitted");
        assert!(!account(991, 689, &report()).is_balanced(), "more were redirected than offered");
    }

    #[test]
    fn leak_missing_from_the_report_is_found() {
        let mut report = report();
        report.frames.pool = 9;
        let account = account(1000, 689, &report);
        assert_eq!(account.leaked, 1);
        assert!(!account.is_good());
        assert!(account.verdict(None).contains("LEAKED 1"));
    }

    #[test]
    fn empty_report_is_not_a_success() {
        let empty = Report::parse(r#"{"type":"final"}"#).expect("missing fields are optional");
        assert!(!account(10, 0, &empty).is_good());
        assert!(!account(10, 10, &empty).is_good());
        assert_eq!(Report::parse("{}"), None);
        assert_eq!(Report::parse("no JSON"), None);
    }

    #[test]
    fn verdict_separates_overload_from_other_losses() {
        let mut report = report();
        report.drops.clear();
        report.ports[1].tx_packets = 700;
        report.ports[0].xdp_passed = 0;
        report.kernel.fill_ring_empty = 200;
        let overloaded = account(1000, 700, &report);
        assert!(overloaded.is_good(), "{:?}", overloaded.mismatches);
        assert!(
            overloaded.verdict(None).contains("intended overload"),
            "{}",
            overloaded.verdict(None)
        );
        assert!(overloaded.verdict(Some(1000)).contains("lower --rate"));
        let account = account(1000, 699, &report);
        assert!(
            account.verdict(None).contains("1 of the lost frames were not lost to overload"),
            "{}",
            account.verdict(None)
        );
    }

    #[test]
    fn veth_counter_that_disagrees_is_a_mismatch() {
        let mut veth = VethDropCounts::default();
        veth.ingress.receive = 290;
        let compute = |veth: &VethDropCounts| {
            PacketAccounting::new(offered(1000), &sink_counters(689), &report(), Some(veth))
        };
        assert!(compute(&veth).is_balanced());
        veth.ingress.receive = 291;
        assert_eq!(compute(&veth).mismatches[0].packets, 1);
    }

    #[test]
    fn packet_socket_losses_are_those_of_the_socket() {
        let mut report = report();
        for port in &mut report.ports {
            port.mode = "packet-mmsg".into();
            (port.xdp_redirected, port.xdp_passed) = (Some(0), 0);
        }
        report.kernel.fill_ring_empty = 0;
        let mut veth = VethDropCounts::default();
        veth.ingress.received = 990;
        let compute = |veth: &VethDropCounts| {
            PacketAccounting::new(offered(1000), &sink_counters(689), &report, Some(veth))
        };
        let account = compute(&veth);
        assert!(account.is_good(), "{:?}", account.mismatches);
        assert_eq!(lost_at(&account, "before fwd0's packet socket"), 10);
        assert_eq!(lost_at(&account, "packet socket: buffer full"), 90);
        assert_eq!(lost_at(&account, "packet socket: longer than a UMEM frame"), 200);
        assert_eq!(lost_at(&account, "AF_XDP"), 0);
        veth.ingress.received += 3;
        assert_eq!(compute(&veth).mismatches[0].packets, 3);
    }

    #[test]
    fn veth_counts_no_loss_of_generic_xdp() {
        let mut report = report();
        let veth = VethDropCounts::default();
        let mut compute = |mode: &str| {
            report.ports[0].mode = mode.into();
            PacketAccounting::new(offered(1000), &sink_counters(689), &report, Some(&veth))
                .is_balanced()
        };
        assert!(compute("skb"));
        assert!(!compute("copy"));
    }

    #[test]
    fn report_without_redirect_counters_still_balances() {
        let mut report = report();
        report.ports[0].xdp_redirected = None;
        let account = account(1000, 689, &report);
        assert!(account.is_balanced());
        assert_eq!(lost_at(&account, "before fwd0"), 8);
    }
}
