//! The UMEM: whether there are frames enough, and whether they are long enough.

use std::ops::Range;

use xsk::UmemConfig;

use super::ports::DEFAULT_QUEUES;
use crate::config::diagnostic::Findings;
use crate::config::machine::Interface;
use crate::config::words::count;
use crate::config::written::{PortTable, Several, UmemTable};

/// Frames that a queue needs at the least: one batch each way (`xsk::Builder::open`).
const FRAMES_PER_QUEUE: u64 = 128;

/// Sockets that one UMEM can serve (`xsk::OpenError::Queues`).
pub(super) const MOST_QUEUES: usize = 126;

/// Bytes of a frame that the kernel keeps free in front of a packet (XDP_PACKET_HEADROOM in the kernel's bpf.h).
const HEADROOM: u32 = 256;

/// What an Ethernet frame may have besides what the MTU counts: the header and two VLAN tags.
const HEADER: u32 = 14 + 2 * 4;

/// The packet memory of each worker.
pub(super) fn resolve(umem: &UmemTable) -> UmemConfig {
    let default = UmemConfig::default();
    UmemConfig {
        frame_size: umem.frame_size.or(default.frame_size).unwrap_or(default.frame_size),
        frames: umem.frames.or(default.frames).unwrap_or(default.frames),
        huge_pages: umem.huge_pages.or(default.huge_pages).unwrap_or(default.huge_pages),
    }
}

/// Checks that a worker's UMEM has frames for all its queues.
pub(super) fn check_frames(umem: &UmemTable, ports: &Several<PortTable>, workers: usize, findings: &mut Findings<'_>) {
    let queues = ports.tables.iter().map(|port| port.queues.or(DEFAULT_QUEUES));
    let (Some(queues), Some(first)) = (queues.max().flatten(), ports.tables.first()) else { return };
    let per_worker = u64::from(queues).div_ceil(workers.max(1) as u64);
    let port_count = ports.tables.len() as u64;
    let sockets = port_count * per_worker;
    let wants = format!("{} with {} each per worker", count(port_count, "port"), count(per_worker, "queue"));
    let place = |preferred: Option<Range<usize>>| preferred.unwrap_or_else(|| first.queues.span_or(&first.span));
    if sockets > MOST_QUEUES as u64 {
        let message = format!(
            "{wants} are {sockets} queues on one UMEM, which can serve {MOST_QUEUES}; use fewer, or more cores"
        );
        findings.error(&place(None), message);
        return;
    }
    let least = sockets * FRAMES_PER_QUEUE;
    if let Some(frames) = umem.frames.or(UmemConfig::default().frames)
        && u64::from(frames) < least
    {
        let message = format!("frames = {frames}: {wants} need at least {least}, {FRAMES_PER_QUEUE} for each queue");
        findings.error(&place(umem.frames.is().map(toml::Spanned::span)), message);
    }
}

/// Checks that the longest packet of each interface fits into a frame.
pub(super) fn check_mtu(
    umem: &UmemTable,
    ports: &Several<PortTable>,
    interfaces: &[Option<Interface>],
    findings: &mut Findings<'_>,
) {
    let Some(frame_size) = umem.frame_size.or(UmemConfig::default().frame_size) else { return };
    let fits = |frame_size: u32| frame_size - HEADROOM - HEADER;
    for (port, interface) in ports.tables.iter().zip(interfaces) {
        let (Some(name), Some(mtu)) = (port.interface.is(), interface.as_ref().and_then(|facts| facts.mtu)) else {
            continue;
        };
        if mtu > fits(frame_size) {
            let larger = match frame_size {
                2048 if mtu <= fits(4096) => "set frame_size = 4096 in [umem], or ",
                _ => "",
            };
            let message = format!(
                "{0} has MTU {mtu}, and a frame of {frame_size} bytes has room for MTU {most}; {larger}lower the \
                 MTU with `ip link set {0} mtu {most}`",
                name.get_ref(),
                most = fits(frame_size)
            );
            findings.error(&name.span(), message);
        }
    }
}
