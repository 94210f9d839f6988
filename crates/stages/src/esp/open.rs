//! `esp-open`: decapsulates ESP packets, in place.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use xdpfwd_ipsec::{BATCH, Incoming, OpenError, PREFIX_LEN, ecn};
use xdpfwd_pipeline::{
    BuildCx, Cx, Inspectable, Maintained, PacketMut, QueueBinding, QueueBound, Reason,
    ResourceOwner, Stage, StagePlan, Verdicts, View,
};
use xdpfwd_wire::checksum::update;
use xdpfwd_wire::{EtherType, Fragment, Headers, IpProtocol, IpVersion, Status, udp};
use xdpfwd_xsk::Frame;

use super::batch::{self, NONE, drop_all};
use super::bypass::has_marker;
use super::plan::{Open, Plan, Settings};
use super::sa::{HeldWindow, Inbound};
use super::selector::End;
use super::values::Mode;
use super::{mss, reasons, transport};

/// The stage `esp-open` of one worker.
pub struct EspOpen {
    settings: Arc<Settings<Open>>,
    work: Opener,
}

/// State of one worker.
struct Opener {
    /// For each SA, whether it belongs to this worker.
    owns: Vec<bool>,
    /// For each SA, its window, once this worker holds it.
    windows: Vec<Option<HeldWindow>>,
    jobs: Box<[Job; BATCH]>,
    /// Values of [`COUNTERS`].
    counters: [u64; COUNTERS.len()],
}

const COUNTERS: [&str; 3] = ["opened", "bypassed", "mss_lowered"];
const OPENED: usize = 0;
const BYPASSED: usize = 1;
const MSS_LOWERED: usize = 2;

/// The decapsulation of a packet of the batch.
#[derive(Clone, Copy, Default)]
struct Job {
    /// Index of the SA; [`NONE`] if there is nothing to do, or no more.
    sa: u16,
    /// Offset of the SPI in the frame.
    esp: u16,
    /// Offset of the end of the packet.
    end: u16,
}

impl batch::Job for Job {
    #[inline]
    fn sa(&mut self) -> &mut u16 {
        &mut self.sa
    }
}

/// The treatment of a packet.
enum Disposition {
    Open(Job),
    Pass,
    Drop(Reason),
}

impl StagePlan for Plan<Open> {
    fn build(&self, cx: &BuildCx<'_>) -> Box<dyn Stage> {
        let settings = Arc::clone(&self.0);
        let owner = |sa: &Inbound| usize::from(sa.queue) % cx.workers.max(1) == cx.worker;
        let work = Opener {
            owns: settings.sas.iter().map(owner).collect(),
            windows: settings.sas.iter().map(|_| None).collect(),
            jobs: Box::new([Job::default(); BATCH]),
            counters: [0; COUNTERS.len()],
        };
        Box::new(EspOpen { settings, work })
    }

    fn summary(&self) -> String {
        self.describe()
    }

    fn verdicts(&self) -> Verdicts {
        Verdicts::Key(format!("opens by {:?}: {:?}", self.0.bypass, self.verdict_keys()))
    }

    fn as_resource_owner(&self) -> Option<&dyn ResourceOwner> {
        Some(self)
    }

    fn as_maintained(&self) -> Option<&dyn Maintained> {
        Some(self)
    }

    fn as_inspectable(&self) -> Option<&dyn Inspectable> {
        Some(self)
    }

    fn as_queue_bound(&self) -> Option<&dyn QueueBound> {
        Some(self)
    }
}

impl QueueBound for Plan<Open> {
    fn queue_bindings(&self) -> Vec<QueueBinding> {
        self.0.sas.iter().map(Inbound::queue_binding).collect()
    }
}

impl Stage for EspOpen {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        let Self { settings, work } = self;
        let len = view.len();
        for index in 0..len {
            let Some(mut packet) = view.packet(index) else { continue };
            let mut job = Job { sa: NONE, ..Job::default() };
            match classify(settings, packet.frame, &packet.meta.headers) {
                Disposition::Open(open) => job = open,
                Disposition::Pass => work.counters[BYPASSED] += 1,
                Disposition::Drop(reason) => packet.drop(reason),
            }
            work.jobs[index] = job;
        }
        // One SA after the other; most batches have only one.
        let mut from = 0;
        while let Some(next) = work.jobs[from..len].iter().position(|job| job.sa != NONE) {
            from += next;
            work.open(settings, view, from, len);
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        COUNTERS.into_iter().zip(self.work.counters).collect()
    }

    fn retire(&mut self, _: &mut Cx<'_>) {
        // Returns the windows to their slots, for the successor.
        self.work.windows.iter_mut().for_each(|window| *window = None);
    }
}

/// Classifies a packet: whether it is ESP, and of which SA.
#[inline]
fn classify(settings: &Settings<Open>, frame: &[u8], headers: &Headers) -> Disposition {
    let (esp, end, port) = match find(frame, headers, &settings.own.udp_ports) {
        Found::Esp { esp, end, port } => (esp, end, port),
        Found::Fragment => return Disposition::Drop(reasons::ESP_FRAGMENT.reason()),
        Found::Keepalive => return Disposition::Drop(reasons::DUMMY.reason()),
        Found::Nothing => {
            if settings.bypass.matches(frame, headers) {
                return Disposition::Pass;
            }
            return match (headers.ip_version, headers.status) {
                (None, status) if status != Status::NotIp => Disposition::Drop(Reason::MALFORMED),
                _ if settings.bypass.passes_unmatched() => Disposition::Pass,
                _ => Disposition::Drop(reasons::UNPROTECTED.reason()),
            };
        }
    };
    let Some(spi) = frame.get(esp..end).and_then(|packet| packet.first_chunk::<4>()) else {
        return Disposition::Drop(reasons::BAD_LENGTH.reason());
    };
    let is_match = |index: u16| {
        settings.sas.get(usize::from(index)).is_some_and(|sa| {
            let is_destination = |wanted: IpAddr| {
                headers.addresses(frame).is_some_and(|addresses| addresses.destination() == wanted)
            };
            sa.udp_port == port && sa.destination.is_none_or(is_destination)
        })
    };
    match settings.own.by_spi.find(u32::from_be_bytes(*spi), is_match) {
        // A frame has at most 4096 bytes.
        Some(sa) => Disposition::Open(Job { sa, esp: esp as u16, end: end as u16 }),
        None if settings.bypass.passes_unmatched() => Disposition::Pass,
        None => Disposition::Drop(reasons::NO_SA.reason()),
    }
}

impl Opener {
    /// Decapsulates all packets of the SA of the first job.
    ///
    /// Never waits: a worker takes the window of its SA from a lock-free slot.
    #[inline]
    fn open(&mut self, settings: &Settings<Open>, view: &mut View<'_>, from: usize, len: usize) {
        let which = self.jobs[from].sa;
        let index = usize::from(which);
        let sa = &settings.sas[index];
        if self.windows[index].is_none() && self.owns[index] {
            self.windows[index] = sa.take_window();
        }
        let Some(shared) = sa.shared() else {
            let reason = reasons::STATE_FILE.reason();
            return drop_all(&mut self.jobs[..len], view, from, which, reason, None);
        };
        let limits = &sa.sa.limits;
        let (max_packets, max_bytes) =
            (limits.hard_packets.unwrap_or(u64::MAX), limits.hard_bytes.unwrap_or(u64::MAX));
        // Load and store suffice: only this worker counts for the SA.
        let mut packets = shared.counts.packets.load(Ordering::Relaxed);
        let mut bytes = shared.bytes.load(Ordering::Relaxed);
        if packets >= max_packets || bytes >= max_bytes {
            let (reason, counts) = (reasons::SA_LIMIT.reason(), Some(&shared.counts));
            return drop_all(&mut self.jobs[..len], view, from, which, reason, counts);
        }
        let Some(window) = self.windows[index].as_mut().and_then(HeldWindow::window) else {
            let (reason, counts) = (reasons::WRONG_QUEUE.reason(), Some(&shared.counts));
            return drop_all(&mut self.jobs[..len], view, from, which, reason, counts);
        };
        let jobs = &mut self.jobs[from..len];
        let mut incoming: ArrayVec<Incoming<'_>, BATCH> = ArrayVec::new();
        for (packet, job) in
            view.packets().skip(from).zip(jobs.iter()).filter(|(_, job)| job.sa == which)
        {
            let PacketMut { frame, .. } = packet;
            incoming.push(Incoming::new(
                &mut frame[usize::from(job.esp) - PREFIX_LEN..usize::from(job.end)],
            ));
        }
        sa.sa.protection.open_batch(window, &mut incoming);
        let outcomes: ArrayVec<_, BATCH> =
            incoming.into_iter().map(|incoming| incoming.outcome).collect();
        let mut outcomes = outcomes.into_iter();
        let mut lowered = 0;
        for (mut packet, job) in
            view.packets().skip(from).zip(jobs.iter_mut()).filter(|(_, job)| job.sa == which)
        {
            let esp = usize::from(job.esp);
            job.sa = NONE;
            let Some(outcome) = outcomes.next() else { break };
            let done = outcome.map_err(drop_reason).and_then(|opened| {
                let payload =
                    opened.payload.start + esp - PREFIX_LEN..opened.payload.end + esp - PREFIX_LEN;
                let len = payload.len() as u64;
                let next_header = IpProtocol(opened.next_header);
                decapsulate(packet.frame, &mut packet.meta.headers, sa, esp, payload, next_header)?;
                if packets >= max_packets || len > max_bytes - bytes {
                    return Err(reasons::SA_LIMIT.reason());
                }
                packets += 1;
                bytes += len;
                packet.meta.decrypted = true;
                Ok(())
            });
            match done {
                Ok(()) => {
                    if let Some(max_mss) = settings.tcp_mss
                        && packet.meta.headers.protocol == Some(IpProtocol::TCP)
                    {
                        lowered +=
                            u64::from(mss::clamp(packet.frame, &packet.meta.headers, max_mss));
                    }
                }
                Err(reason) => {
                    shared.counts.drop(reason);
                    packet.drop(reason);
                }
            }
        }
        self.counters[OPENED] += packets - shared.counts.packets.load(Ordering::Relaxed);
        self.counters[MSS_LOWERED] += lowered;
        shared.counts.packets.store(packets, Ordering::Relaxed);
        shared.bytes.store(bytes, Ordering::Relaxed);
        if let Some(held) = &self.windows[index] {
            held.publish();
        }
    }
}

/// The ESP-related content of a packet.
enum Found {
    Esp {
        /// Offset of the SPI.
        esp: usize,
        end: usize,
        /// The UDP destination port, if it is ESP in UDP.
        port: Option<u16>,
    },
    Fragment,
    Keepalive,
    Nothing,
}

#[inline]
fn find(frame: &[u8], headers: &Headers, udp_ports: &[u16]) -> Found {
    const KEEPALIVE: [u8; 1] = [0xff];
    let (esp, end) = (usize::from(headers.l4_offset), usize::from(headers.l3_end));
    match headers.protocol {
        Some(IpProtocol::ESP) if headers.fragment == Fragment::Whole => {
            Found::Esp { esp, end, port: None }
        }
        Some(IpProtocol::ESP) => Found::Fragment,
        // A later fragment has no ports, and may belong to any datagram.
        Some(IpProtocol::UDP) if headers.fragment == Fragment::Later && !udp_ports.is_empty() => {
            Found::Fragment
        }
        Some(IpProtocol::UDP) if udp_ports.contains(&headers.destination_port) => {
            if headers.fragment != Fragment::Whole {
                return Found::Fragment;
            }
            let Ok(datagram) = udp::Packet::new_checked(headers.l4(frame)) else {
                return Found::Nothing;
            };
            let payload = datagram.payload();
            if payload == KEEPALIVE {
                return Found::Keepalive;
            }
            if has_marker(payload) {
                return Found::Nothing;
            }
            let esp = esp + udp::HEADER_LEN;
            Found::Esp { esp, end: esp + payload.len(), port: Some(headers.destination_port) }
        }
        _ => Found::Nothing,
    }
}

#[inline]
fn drop_reason(unopened: OpenError) -> Reason {
    match unopened {
        OpenError::BadLength => reasons::BAD_LENGTH.reason(),
        OpenError::Replay => reasons::REPLAY.reason(),
        OpenError::Late => reasons::LATE.reason(),
        OpenError::BadTag => reasons::BAD_TAG.reason(),
        OpenError::BadPadding => reasons::BAD_PADDING.reason(),
    }
}

/// Replaces the frame by its decapsulated packet, and updates `headers`, initially the outer
/// packet's.
#[inline]
fn decapsulate(
    frame: &mut Frame,
    headers: &mut Headers,
    sa: &Inbound,
    esp: usize,
    payload: Range<usize>,
    next_header: IpProtocol,
) -> Result<(), Reason> {
    if next_header == IpProtocol::NO_NEXT_HEADER {
        return Err(reasons::DUMMY.reason());
    }
    let inner = match next_header {
        IpProtocol::IPV4 => Some(EtherType::IPV4),
        IpProtocol::IPV6 => Some(EtherType::IPV6),
        _ => None,
    };
    match (sa.sa.mode, inner) {
        (Mode::Tunnel, Some(inner)) => decapsulate_tunnel(frame, headers, sa, payload, inner),
        // The payload may be another kind of tunnel.
        (Mode::Transport, _) => {
            decapsulate_transport(frame, headers, sa, esp, payload, next_header)
        }
        _ => Err(Reason::POLICY),
    }
}

#[inline]
fn decapsulate_tunnel(
    frame: &mut Frame,
    headers: &mut Headers,
    sa: &Inbound,
    payload: Range<usize>,
    ethertype: EtherType,
) -> Result<(), Reason> {
    let l2 = usize::from(headers.l3_offset);
    let mark = traffic_class(frame, l2) & 0b11;
    frame.truncate(payload.end);
    // Move the link-layer header in front of the inner header.
    let shift = payload.start.checked_sub(l2).ok_or(Reason::MALFORMED)?;
    frame.copy_within(..l2, shift);
    frame.trim_front(shift);
    let field = frame.get_mut(l2.wrapping_sub(2)..l2).ok_or(Reason::MALFORMED)?;
    field.copy_from_slice(&ethertype.0.to_be_bytes());
    Headers::parse_into(frame, headers);
    let version = headers.ip_version.ok_or(Reason::MALFORMED)?;
    // Remove traffic-flow-confidentiality padding after the inner packet.
    frame.truncate(headers.l3_end.into());
    check_selector(sa, headers, frame)?;
    let own = traffic_class(frame, l2) & 0b11;
    let marked = ecn::decapsulated(own, mark).ok_or(reasons::ECN.reason())?;
    if marked != own {
        set_ecn(frame, l2, version, marked);
    }
    Ok(())
}

#[inline]
fn decapsulate_transport(
    frame: &mut Frame,
    headers: &mut Headers,
    sa: &Inbound,
    esp: usize,
    payload: Range<usize>,
    next_header: IpProtocol,
) -> Result<(), Reason> {
    let version = headers.ip_version.ok_or(Reason::MALFORMED)?;
    check_selector(sa, headers, frame)?;
    let position = transport::upper(frame, headers).ok_or(Reason::MALFORMED)?;
    if position.at > esp {
        return Err(Reason::MALFORMED);
    }
    frame.truncate(payload.end);
    let shift = payload.start.checked_sub(position.at).ok_or(Reason::MALFORMED)?;
    frame.copy_within(..position.at, shift);
    frame.trim_front(shift);
    transport::set_next_protocol(
        frame,
        headers.l3_offset.into(),
        version,
        position.field,
        next_header,
    )
    .ok_or(Reason::MALFORMED)?;
    Headers::parse_into(frame, headers);
    Ok(())
}

/// Checks the packet's source address against the SA (RFC 4301, 5.2).
#[inline]
fn check_selector(sa: &Inbound, headers: &Headers, frame: &[u8]) -> Result<(), Reason> {
    let selector = &sa.sa.selector;
    if selector.is_all() {
        return Ok(());
    }
    let addresses = headers.addresses(frame).ok_or(Reason::MALFORMED)?;
    if selector.has(addresses, End::Source) { Ok(()) } else { Err(Reason::POLICY) }
}

/// Returns DSCP and ECN of the IP header at this offset.
#[inline]
fn traffic_class(frame: &[u8], l3: usize) -> u8 {
    let [first, second] =
        frame.get(l3..).and_then(|l3| l3.first_chunk::<2>()).copied().unwrap_or_default();
    if first >> 4 == 4 { second } else { first << 4 | second >> 4 }
}

/// Sets ECN, and updates the IPv4 checksum incrementally (RFC 1624): an invalid one stays invalid.
#[cold]
fn set_ecn(frame: &mut [u8], l3: usize, version: IpVersion, ecn: u8) {
    let Some(header) = frame.get_mut(l3..).and_then(|l3| l3.first_chunk_mut::<20>()) else {
        return;
    };
    match version {
        IpVersion::V4 => {
            let old = u16::from_be_bytes([header[0], header[1]]);
            header[1] = header[1] & !0b11 | ecn;
            let checksum = update(
                u16::from_be_bytes([header[10], header[11]]),
                old,
                u16::from_be_bytes([header[0], header[1]]),
            );
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        IpVersion::V6 => header[1] = header[1] & 0b1100_1111 | ecn << 4,
    }
}

impl fmt::Debug for EspOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EspOpen")
            .field("opened", &self.work.counters[OPENED])
            .finish_non_exhaustive()
    }
}
