//! Resolves the UMEM configuration, and checks the number and the size of frames.

use std::collections::BTreeSet;
use std::ops::Range;

use xdpfwd_engine::Io;
use xdpfwd_xsk::{HugePages, UmemConfig};

use super::ports::DEFAULT_QUEUES;
use crate::config::findings::Findings;
use crate::config::machine::{Interface, Machine, Memory};
use crate::config::parsed::{PortTable, Tables, UmemTable};
use crate::config::words::count;

/// Minimum number of frames for each queue: a batch of 64 in each direction
/// (`xdpfwd_xsk::Builder::open`).
const FRAMES_PER_QUEUE: u64 = 128;

/// Maximum number of sockets on one UMEM (`xdpfwd_xsk::OpenError::Queues`).
pub(super) const MAX_SOCKETS: usize = 126;

/// Bytes that the kernel reserves in each frame before the packet (XDP_PACKET_HEADROOM).
const HEADROOM: u32 = 256;

/// Bytes that the MTU does not count: the Ethernet header and up to two VLAN tags.
const LINK_HEADER: u32 = 14 + 2 * 4;

pub(super) fn resolve(umem: &UmemTable) -> UmemConfig {
    let default = UmemConfig::default();
    // `or` replaces a missing key, and `unwrap_or` an invalid value, by the default.
    UmemConfig {
        frame_size: umem.frame_size.or(default.frame_size).unwrap_or(default.frame_size),
        frames: umem.frames.or(default.frames).unwrap_or(default.frames),
        huge_pages: umem.huge_pages.or(default.huge_pages).unwrap_or(default.huge_pages),
    }
}

pub(super) fn check_frames(
    umem: &UmemTable,
    ports: &Tables<PortTable>,
    workers: usize,
    findings: &mut Findings<'_>,
) {
    let queues = ports.tables.iter().map(|port| port.queues.or(DEFAULT_QUEUES));
    let (Some(queues), Some(first_port)) = (queues.max().flatten(), ports.tables.first()) else {
        return;
    };
    let queues_per_worker = u64::from(queues).div_ceil(workers.max(1) as u64);
    let port_count = ports.tables.len() as u64;
    let sockets = port_count * queues_per_worker;
    let demand = format!(
        "{} with {} each per worker",
        count(port_count, "port"),
        count(queues_per_worker, "queue")
    );
    let span = |preferred: Option<Range<usize>>| {
        preferred.unwrap_or_else(|| first_port.queues.span_or(&first_port.span))
    };
    if sockets > MAX_SOCKETS as u64 {
        let message = format!(
            "{demand} need {sockets} sockets on one UMEM, which has at most {MAX_SOCKETS}; use \
             fewer queues or more cores"
        );
        findings.error(&span(None), message);
        return;
    }
    let minimum = sockets * FRAMES_PER_QUEUE;
    if let Some(frames) = umem.frames.or(UmemConfig::default().frames)
        && u64::from(frames) < minimum
    {
        let message = format!(
            "frames = {frames}: {demand} need at least {minimum}, {FRAMES_PER_QUEUE} for each queue"
        );
        findings.error(&span(umem.frames.value().map(toml::Spanned::span)), message);
    }
}

/// Compares the packet memory with total memory and free huge pages. With too little memory, the
/// kernel's OOM killer would end xdpfwd or another process.
pub(super) fn check_available(
    umem: &UmemTable,
    workers: usize,
    machine: &dyn Machine,
    findings: &mut Findings<'_>,
) {
    let config = resolve(umem);
    let machine_memory = machine.memory();
    let frames_span = umem.frames.span_or(&umem.frame_size.span_or(&(0..0)));
    let needed = RequiredMemory::new(&config, workers);
    if machine.is_real() {
        warn_of_unknown_memory(&config, machine_memory, umem, findings);
    }
    if let Some(total_bytes) = machine_memory.bytes
        && total_bytes < needed.bytes
    {
        let message = format!(
            "packet memory of {} MiB for {} exceeds the {} MiB of this machine; use fewer frames \
             or cores",
            needed.bytes >> 20,
            count(workers as u64, "worker"),
            total_bytes >> 20
        );
        findings.error(&frames_span, message);
    }
    if config.huge_pages == HugePages::On
        && let Some(pages) = machine_memory.huge_pages
        && pages.free < needed.huge_pages
    {
        let message = format!(
            "huge_pages = \"on\": {} of 2 MiB needed, {} free; reserve them with `sysctl -w \
             vm.nr_hugepages={}`, or set \"auto\"",
            count(needed.huge_pages, "page"),
            pages.free,
            pages.total + needed.huge_pages - pages.free
        );
        findings.warning(&umem.huge_pages.span_or(&(0..0)), message);
    }
}

fn warn_of_unknown_memory(
    config: &UmemConfig,
    known: Memory,
    umem: &UmemTable,
    findings: &mut Findings<'_>,
) {
    if known.bytes.is_none() {
        let message = "cannot check whether the packet memory fits into this machine (sysinfo)";
        findings.warning(&umem.frames.span_or(&(0..0)), message.to_owned());
    }
    if config.huge_pages == HugePages::On && known.huge_pages.is_none() {
        let message = "cannot check whether enough huge pages are free: cannot read \
                       /sys/kernel/mm/hugepages/hugepages-2048kB";
        findings.warning(&umem.huge_pages.span_or(&(0..0)), message.to_owned());
    }
}

/// With xsk-rs, packet memory must fill whole huge pages
/// (`xdpfwd_xsk::UmemError::PartialHugePage`).
pub(super) fn check_huge_pages_of_xsk_rs(
    umem: &UmemTable,
    ports: &Tables<PortTable>,
    findings: &mut Findings<'_>,
) {
    let config = resolve(umem);
    let uses_xsk_rs = ports.tables.iter().any(|port| port.io.or(Io::default()) == Some(Io::XskRs));
    let bytes = u64::from(config.frames) * u64::from(config.frame_size);
    let is_partial = !bytes.is_multiple_of(HUGE_PAGE_BYTES);
    if uses_xsk_rs && config.huge_pages == HugePages::On && is_partial {
        let message = format!(
            "huge_pages = \"on\": with io = \"xsk-rs\", packet memory must be a multiple of 2 MiB; \
             set frames to a multiple of {}, or huge_pages = \"auto\"",
            HUGE_PAGE_BYTES / u64::from(config.frame_size)
        );
        findings.error(&umem.huge_pages.span_or(&(0..0)), message);
    }
}

const HUGE_PAGE_BYTES: u64 = 2 << 20;

pub(crate) struct RequiredMemory {
    pub(crate) bytes: u64,
    /// Number of 2 MiB pages, if they are used. Workers share no page.
    pub(crate) huge_pages: u64,
}

impl RequiredMemory {
    pub(crate) fn new(umem: &UmemConfig, workers: usize) -> Self {
        let bytes_per_worker = u64::from(umem.frame_size) * u64::from(umem.frames);
        let workers = workers as u64;
        let pages_per_worker = bytes_per_worker.div_ceil(HUGE_PAGE_BYTES);
        Self { bytes: bytes_per_worker * workers, huge_pages: pages_per_worker * workers }
    }
}

/// Returns the largest MTU whose packets fit into a frame of `frame_size` bytes.
pub(crate) fn largest_mtu(frame_size: u32) -> u32 {
    frame_size - HEADROOM - LINK_HEADER
}

pub(super) fn check_mtu(
    umem: &UmemTable,
    ports: &Tables<PortTable>,
    interfaces: &[Option<Interface>],
    findings: &mut Findings<'_>,
) {
    let Some(frame_size) = umem.frame_size.or(UmemConfig::default().frame_size) else { return };
    // Check each interface once; `ports::check` reports ports with the same interface.
    let mut seen = BTreeSet::new();
    let is_first = |(_, interface): &(&PortTable, &Option<Interface>)| {
        interface.as_ref().is_none_or(|interface| seen.insert(interface.index))
    };
    for (port, interface) in ports.tables.iter().zip(interfaces).filter(is_first) {
        let (Some(name), Some(mtu)) =
            (port.interface.value(), interface.as_ref().and_then(|interface| interface.mtu))
        else {
            continue;
        };
        if mtu > largest_mtu(frame_size) {
            let larger = match frame_size {
                2048 if mtu <= largest_mtu(4096) => "set frame_size = 4096 in [umem], or ",
                _ => "",
            };
            let message = format!(
                "{0} has MTU {mtu}, but a frame of {frame_size} bytes has room for MTU {max}; \
                 {larger}lower the MTU with `ip link set {0} mtu {max}`",
                name.get_ref(),
                max = largest_mtu(frame_size)
            );
            findings.error(&name.span(), message);
        }
    }
}
