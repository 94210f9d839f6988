//! Tests ESP between xdpfwd and Linux in the test VM (`make vmtest`; crates/vm): each decapsulates
//! the other's packets, and counts those that it rejects.
//!
//! ```text
//!  plain hosts' side             xdpfwd                      Linux's ESP
//! ┌────────────────┐  ┌──────────────────────────────┐  ┌───────────────────┐
//! │ 10.77.0.1 gen0 ╪══╪ fwd0 ─── esp-seal ──► fwd1 ══╪══╪ sink0  10.77.0.2  │
//! │       fd77::1  │  │      ◄── esp-open ───        │  │        fd77::2    │
//! └────────────────┘  └──────────────────────────────┘  └───────────────────┘
//! ```
//!
//! Tunnels lead from 192.0.2.1 or fd02::1, which no interface has, to 192.0.2.2 or fd02::2 on the
//! right host. All neighbours are static, so over IPv4 only test packets are on the wires.

#[path = "../support/mod.rs"]
mod support;

mod case;
mod interoperation;
mod lab;
mod limits;
mod packets;
mod rejection;
mod sequence;

use std::time::Duration;

use serde_json::Value;
use support::{Running, until};

/// Time without packets after which no more are expected.
const SETTLE_TIME: Duration = Duration::from_millis(200);

/// The SPIs of packets from xdpfwd and from Linux.
const TO_LINUX: u32 = 0x1001;
const FROM_LINUX: u32 = 0x2001;

/// Array indices of the hosts.
const LEFT: usize = 0;
const RIGHT: usize = 1;

/// Returns the latest report of a running xdpfwd.
fn latest(running: &Running) -> Value {
    let line = running.forwarder.last_line(|line| line.contains(r#""type":"interval""#)).unwrap();
    serde_json::from_str(&line).unwrap()
}

fn received(report: &Value) -> u64 {
    report["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| port["rx_packets"].as_u64().unwrap())
        .sum()
}

/// Waits until xdpfwd has received `count` packets.
fn until_received(running: &Running, count: u64) {
    until(&format!("xdpfwd has received {count} packets"), || received(&latest(running)) >= count);
}

/// Returns the sequence number 16 below the next 32-bit wrap.
fn below_wrap(high: u64) -> u64 {
    (high << 32) + 0xffff_fff0
}
