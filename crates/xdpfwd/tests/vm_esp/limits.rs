//! Limits of SAs, and the last sequence number.

use crate::case::Case;
use crate::lab::Lab;
use crate::packets::{UdpPair, message};
use crate::{LEFT, RIGHT, wait_until_received};

/// Payload length of a UDP message, in bytes.
const MESSAGE_LEN: usize = 100;
/// Length of a message's IPv4 packet, in bytes.
const PACKET_LEN: u64 = 128;
/// Packets that the limit of an SA allows.
const ALLOWED: u32 = 10;
/// Packets that a host sends in each run.
const SENT: u32 = 15;

#[test]
fn linux_sas_stop_at_their_packet_limit() {
    let limit = format!("limit packet-hard {ALLOWED}");
    let lab = Lab::new(Case { linux_in: limit.clone(), ..Case::ipv4_tunnel() });
    let hosts = UdpPair::new(&lab);
    lab.configure_linux();
    let running = lab.start();
    hosts.send(LEFT, 1..=SENT, MESSAGE_LEN);
    hosts.assert_arrive(RIGHT, 1..=ALLOWED, "packets up to the limit of Linux's inbound SA");
    wait_until_received(&running, u64::from(SENT));
    lab.assert_dropped(running, &[]);
    let error_counters = lab.xfrm_stat();
    // Linux keeps an expired SA for a moment, so it may use several counters.
    let after_expiry = ["XfrmInStateExpired", "XfrmInNoStates", "XfrmInStateInvalid"];
    assert!(
        error_counters.keys().all(|name| after_expiry.contains(&name.as_str())),
        "{error_counters:?}"
    );
    assert_eq!(
        error_counters.values().sum::<u64>(),
        u64::from(SENT - ALLOWED),
        "{error_counters:?}"
    );
    println!("case: {limit} of Linux's inbound SA: {error_counters:?}");
    let lab = Lab::new(Case { linux_out: limit.clone(), ..Case::ipv4_tunnel() });
    let hosts = UdpPair::new(&lab);
    lab.configure_linux();
    let running = lab.start();
    let mut failed_sends = 0;
    for number in 1..=SENT {
        failed_sends += u32::from(hosts.0[RIGHT].send(&message(number, MESSAGE_LEN)).is_err());
    }
    hosts.assert_arrive(LEFT, 1..=ALLOWED, "packets up to the limit of Linux's outbound SA");
    let final_report = lab.assert_dropped(running, &[]);
    assert_eq!(final_report.parsed.received(), u64::from(ALLOWED), "{}", final_report.json);
    println!(
        "case: {limit} of Linux's outbound SA: {failed_sends} sends failed, {:?}",
        lab.xfrm_stat()
    );
}

#[test]
fn xdpfwd_sas_stop_at_their_hard_limit() {
    let limits = [
        format!("hard_packets = {ALLOWED}"),
        format!("hard_bytes = {}", u64::from(ALLOWED) * PACKET_LEN),
    ];
    for (side, limit) in
        [LEFT, RIGHT].into_iter().flat_map(|side| limits.iter().map(move |limit| (side, limit)))
    {
        let mut case = Case::ipv4_tunnel();
        let lines = if side == LEFT { &mut case.seal } else { &mut case.open };
        lines.clone_from(limit);
        let lab = Lab::new(case);
        let hosts = UdpPair::new(&lab);
        lab.configure_linux();
        let over_limit = [("sa_limit", u64::from(SENT - ALLOWED))];
        let running = lab.start();
        hosts.send(side, 1..=SENT, MESSAGE_LEN);
        hosts.assert_arrive(1 - side, 1..=ALLOWED, limit);
        wait_until_received(&running, u64::from(SENT));
        lab.assert_dropped(running, &over_limit);
        // A restart resets the count of an inbound SA, but not of an outbound SA.
        let running = lab.start();
        hosts.send(side, 1..=SENT, MESSAGE_LEN);
        if side == LEFT {
            hosts.assert_arrive(RIGHT, [], limit);
            wait_until_received(&running, u64::from(SENT));
            lab.assert_dropped(running, &[("sa_limit", u64::from(SENT))]);
            // A packet that the byte limit rejects may have used a sequence number.
            let max_used = if limit.starts_with("hard_bytes") { 2 * SENT } else { ALLOWED };
            let (next, min_next) = (lab.state_value("next"), u64::from(ALLOWED) + 1);
            assert!(
                (min_next..=u64::from(max_used) + 1).contains(&next),
                "{limit}: next sequence number {next}"
            );
            assert_eq!(lab.state_value("bytes"), u64::from(ALLOWED) * PACKET_LEN, "{limit}");
        } else {
            hosts.assert_arrive(LEFT, 1..=ALLOWED, limit);
            wait_until_received(&running, u64::from(SENT));
            lab.assert_dropped(running, &over_limit);
        }
        lab.assert_xfrm_stat(&[]);
        println!(
            "case: {limit} of xdpfwd's {} SA: {over_limit:?}",
            if side == LEFT { "outbound" } else { "inbound" }
        );
    }
}

/// Without ESN, 2^32 - 1 is the last sequence number. A restart of xdpfwd does not change this.
#[test]
fn sa_without_esn_stops_after_last_sequence_number() {
    const REMAINING: u32 = 6;
    let start = (1_u64 << 32) - u64::from(REMAINING);
    let mut case = Case::ipv4_tunnel().without_esn();
    case.linux_in = format!("replay-seq {}", start - 1);
    let lab = Lab::new(case);
    let hosts = UdpPair::new(&lab);
    lab.configure_linux();
    lab.write_state(&[("next", start)]);
    for allowed in [REMAINING, 0] {
        let running = lab.start();
        hosts.send(LEFT, 1..=SENT, MESSAGE_LEN);
        hosts.assert_arrive(RIGHT, 1..=allowed, "packets up to the last sequence number");
        wait_until_received(&running, u64::from(SENT));
        lab.assert_dropped(running, &[("sa_limit", u64::from(SENT - allowed))]);
        println!(
            "case: from sequence number {start}, without ESN: {allowed} of {SENT} packets sent"
        );
    }
    lab.assert_xfrm_stat(&[]);
}
