//! Tests ESP between xdpfwd and Linux in the test VM (`make vmtest`; crates/vm). Each side must
//! decapsulate the other's packets, and count the packets that it rejects.
//!
//! ```text
//!  left host                     xdpfwd                      right host, ESP in Linux
//! ┌────────────────┐  ┌──────────────────────────────┐  ┌───────────────────┐
//! │ 10.77.0.1 gen0 ╪══╪ fwd0 ─── esp-seal ──► fwd1 ══╪══╪ sink0  10.77.0.2  │
//! │       fd77::1  │  │      ◄── esp-open ───        │  │        fd77::2    │
//! └────────────────┘  └──────────────────────────────┘  └───────────────────┘
//! ```
//!
//! The tunnel endpoints are 192.0.2.1 or fd02::1 for xdpfwd (no interface has them), and 192.0.2.2
//! or fd02::2 on the right host. All neighbour entries are static, so only the test causes IPv4
//! packets on the wires.

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

/// Time without packets after which a test expects no more.
const SETTLE_TIME: Duration = Duration::from_millis(200);

/// SPI of xdpfwd's outbound SA.
const SPI_TO_LINUX: u32 = 0x1001;
/// SPI of Linux's outbound SA.
const SPI_FROM_LINUX: u32 = 0x2001;

const LEFT: usize = 0;
const RIGHT: usize = 1;

/// Returns the latest interval report.
fn latest(running: &Running) -> Value {
    let line = running.forwarder.last_line(|line| line.contains(r#""type":"interval""#)).unwrap();
    serde_json::from_str(&line).unwrap()
}

/// Returns the number of received packets, summed over the ports.
fn received(report: &Value) -> u64 {
    report["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| port["rx_packets"].as_u64().unwrap())
        .sum()
}

fn wait_until_received(running: &Running, count: u64) {
    until(&format!("xdpfwd has received {count} packets"), || received(&latest(running)) >= count);
}

/// Returns the number with these upper 32 bits that is 16 below the wrap of the lower 32 bits.
fn sequence_number_before_wrap(upper: u64) -> u64 {
    (upper << 32) + 0xffff_fff0
}
