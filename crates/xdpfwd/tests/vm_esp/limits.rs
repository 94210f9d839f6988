//! Limits of SAs, and the end of their sequence numbers.

use crate::case::Case;
use crate::lab::Lab;
use crate::packets::{UdpPair, message};
use crate::{LEFT, RIGHT, until_received};

/// Messages of 100 bytes are packets of 128 bytes.
const LENGTH: usize = 100;
const PACKET: u64 = 128;
const ALLOWED: u32 = 10;
const SENT: u32 = 15;

#[test]
fn linux_sas_stop_at_their_packet_limit() {
    // Linux's inbound SA.
    let limit = format!("limit packet-hard {ALLOWED}");
    let lab = Lab::new(Case { linux_in: limit.clone(), ..Case::plain() });
    let hosts = UdpPair::new(&lab);
    lab.configure_linux();
    let running = lab.start();
    hosts.send(LEFT, 1..=SENT, LENGTH);
    hosts.assert_arrive(RIGHT, 1..=ALLOWED, "packets up to the limit of Linux's inbound SA");
    until_received(&running, u64::from(SENT));
    lab.assert_dropped(running, &[]);
    let counted = lab.xfrm_stat();
    // Linux keeps an expired SA for a moment.
    let ended = ["XfrmInStateExpired", "XfrmInNoStates", "XfrmInStateInvalid"];
    assert!(counted.keys().all(|name| ended.contains(&name.as_str())), "{counted:?}");
    assert_eq!(counted.values().sum::<u64>(), u64::from(SENT - ALLOWED), "{counted:?}");
    println!("case: {limit} of Linux's inbound SA: {counted:?}");
    // Linux's outbound SA.
    let lab = Lab::new(Case { linux_out: limit.clone(), ..Case::plain() });
    let hosts = UdpPair::new(&lab);
    lab.configure_linux();
    let running = lab.start();
    let mut rejected = 0;
    for number in 1..=SENT {
        rejected += u32::from(hosts.0[RIGHT].send(&message(number, LENGTH)).is_err());
    }
    hosts.assert_arrive(LEFT, 1..=ALLOWED, "packets up to the limit of Linux's outbound SA");
    let last = lab.assert_dropped(running, &[]);
    assert_eq!(last.report.received(), u64::from(ALLOWED), "{}", last.json);
    println!("case: {limit} of Linux's outbound SA: {rejected} not sent, {:?}", lab.xfrm_stat());
}

#[test]
fn xdpfwd_sas_stop_at_their_hard_limit() {
    let limits = [
        format!("hard_packets = {ALLOWED}"),
        format!("hard_bytes = {}", u64::from(ALLOWED) * PACKET),
    ];
    for (side, limit) in
        [LEFT, RIGHT].into_iter().flat_map(|side| limits.iter().map(move |limit| (side, limit)))
    {
        let mut case = Case::plain();
        let lines = if side == LEFT { &mut case.seal } else { &mut case.open };
        lines.clone_from(limit);
        let lab = Lab::new(case);
        let hosts = UdpPair::new(&lab);
        lab.configure_linux();
        let over = [("sa_limit", u64::from(SENT - ALLOWED))];
        let running = lab.start();
        hosts.send(side, 1..=SENT, LENGTH);
        hosts.assert_arrive(1 - side, 1..=ALLOWED, limit);
        until_received(&running, u64::from(SENT));
        lab.assert_dropped(running, &over);
        // xdpfwd counts outbound packets across restarts, but not inbound ones.
        let running = lab.start();
        hosts.send(side, 1..=SENT, LENGTH);
        if side == LEFT {
            hosts.assert_arrive(RIGHT, [], limit);
            until_received(&running, u64::from(SENT));
            lab.assert_dropped(running, &[("sa_limit", u64::from(SENT))]);
            // A packet rejected by the byte limit may already have used a sequence number.
            let max_used = if limit.starts_with("hard_bytes") { 2 * SENT } else { ALLOWED };
            let (next, min_next) = (lab.state("next"), u64::from(ALLOWED) + 1);
            assert!(
                (min_next..=u64::from(max_used) + 1).contains(&next),
                "{limit}: next sequence number {next}"
            );
            assert_eq!(lab.state("bytes"), u64::from(ALLOWED) * PACKET, "{limit}");
        } else {
            hosts.assert_arrive(LEFT, 1..=ALLOWED, limit);
            until_received(&running, u64::from(SENT));
            lab.assert_dropped(running, &over);
        }
        lab.assert_xfrm_stat(&[]);
        println!(
            "case: {limit} of xdpfwd's {} SA: {over:?}",
            if side == LEFT { "outbound" } else { "inbound" }
        );
    }
}

/// Without ESN, 2^32 - 1 is the last sequence number.
#[test]
fn sa_without_esn_stops_after_its_last_number() {
    const REMAINING: u32 = 6;
    let start = (1_u64 << 32) - u64::from(REMAINING);
    let mut case = Case::plain().without_esn();
    case.linux_in = format!("replay-seq {}", start - 1);
    let lab = Lab::new(case);
    let hosts = UdpPair::new(&lab);
    lab.configure_linux();
    lab.start_with_state(&[("next", start)]);
    for allowed in [REMAINING, 0] {
        let running = lab.start();
        hosts.send(LEFT, 1..=SENT, LENGTH);
        hosts.assert_arrive(RIGHT, 1..=allowed, "packets up to the last sequence number");
        until_received(&running, u64::from(SENT));
        lab.assert_dropped(running, &[("sa_limit", u64::from(SENT - allowed))]);
        println!("case: from number {start} on, without ESN: {allowed} of {SENT} sent");
    }
    lab.assert_xfrm_stat(&[]);
}
