//! `esp-open`: decapsulates ESP packets, in place.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use xdpfwd_ipsec::{BATCH, HEADER_LEN, ICV_LEN, Incoming, OpenError, PREFIX_LEN, ecn};
use xdpfwd_pipeline::{
    BuildCx, Cx, Inspectable, Maintained, PacketMut, PlanDiagnostic, QueueBinding, QueueBound,
    Reason, ResourceOwner, Stage, StagePlan, Verdicts, View,
};
use xdpfwd_wire::checksum::update;
use xdpfwd_wire::{EtherType, Fragment, Headers, IpProtocol, IpVersion, Status, udp};
use xdpfwd_xsk::Frame;

use super::batch::{self, NONE, drop_all};
use super::bypass::has_non_esp_marker;
use super::plan::{Open, Plan, Settings};
use super::sa::{HeldWindow, Inbound};
use super::selector::End;
use super::values::Mode;
use super::{mss, reasons, transport};

/// The stage `esp-open` of one worker.
pub struct EspOpen {
    settings: Arc<Settings<Open>>,
    opener: Opener,
}

/// The stage's state, used by one worker only.
struct Opener {
    /// For each SA, whether this worker polls its queue, and so owns it.
    owns: Vec<bool>,
    /// The anti-replay window of each SA; `None` if this worker does not hold it.
    windows: Vec<Option<HeldWindow>>,
    jobs: Box<[Job; BATCH]>,
    /// Values of [`COUNTERS`].
    counters: [u64; COUNTERS.len()],
}

const COUNTERS: [&str; 3] = ["opened", "bypassed", "mss_lowered"];
const OPENED: usize = 0;
const BYPASSED: usize = 1;
const MSS_LOWERED: usize = 2;

/// A packet to decapsulate.
#[derive(Clone, Copy, Default)]
struct Job {
    /// [`NONE`] if decapsulation is not needed, or done.
    sa_index: u16,
    /// Frame offset of the SPI.
    esp: u16,
    /// Frame offset of the end of the ESP packet.
    end: u16,
}

impl batch::Job for Job {
    #[inline]
    fn sa_index(&mut self) -> &mut u16 {
        &mut self.sa_index
    }
}

enum Disposition {
    Open(Job),
    Pass,
    Drop(Reason),
}

impl StagePlan for Plan<Open> {
    fn build(&self, cx: &BuildCx<'_>) -> Box<dyn Stage> {
        let settings = Arc::clone(&self.0);
        let is_owned = |sa: &Inbound| usize::from(sa.queue) % cx.workers.max(1) == cx.worker;
        let opener = Opener {
            owns: settings.sas.iter().map(is_owned).collect(),
            windows: settings.sas.iter().map(|_| None).collect(),
            jobs: Box::new([Job::default(); BATCH]),
            counters: [0; COUNTERS.len()],
        };
        Box::new(EspOpen { settings, opener })
    }

    fn summary(&self) -> String {
        self.describe()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.file_names()
    }

    fn longest_packet(&self, mtu: u32) -> u32 {
        // Transport mode without UDP or padding. 2 bytes: pad length, next header.
        const MIN_OVERHEAD: u32 = (HEADER_LEN + ICV_LEN) as u32 + 2;
        if self.0.bypass.has_unmatched() { mtu } else { mtu.saturating_sub(MIN_OVERHEAD) }
    }

    fn verdicts(&self) -> Verdicts {
        Verdicts::Key(format!("esp-open, bypass {:?}: {:?}", self.0.bypass, self.verdict_keys()))
    }

    fn warnings(&self) -> &[PlanDiagnostic] {
        &self.0.warnings
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
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        let Self { settings, opener } = self;
        let len = view.len();
        for index in 0..len {
            let Some(mut packet) = view.packet(index) else { continue };
            let mut job = Job { sa_index: NONE, ..Job::default() };
            match classify(settings, packet.frame, &packet.meta.headers) {
                Disposition::Open(open_job) => job = open_job,
                Disposition::Pass => opener.counters[BYPASSED] += 1,
                Disposition::Drop(reason) => packet.drop(reason),
            }
            opener.jobs[index] = job;
        }
        // Decapsulate one SA at a time; most batches have only one.
        let mut from = 0;
        while let Some(next) = opener.jobs[from..len].iter().position(|job| job.sa_index != NONE) {
            from += next;
            opener.open(settings, view, from, len, cx.now());
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        COUNTERS.into_iter().zip(self.opener.counters).collect()
    }

    fn retire(&mut self, _: &mut Cx<'_>) {
        // Return the windows to their slots, for the stage that replaces this one.
        self.opener.windows.iter_mut().for_each(|window| *window = None);
    }
}

#[inline]
fn classify(settings: &Settings<Open>, frame: &[u8], headers: &Headers) -> Disposition {
    let (esp, end, port) = match find(frame, headers, &settings.direction.udp_ports) {
        Found::Esp { esp, end, port } => (esp, end, port),
        Found::Fragment => return Disposition::Drop(reasons::ESP_FRAGMENT.reason()),
        Found::Keepalive => return Disposition::Drop(reasons::DUMMY.reason()),
        Found::Nothing => {
            if settings.bypass.matches(frame, headers) {
                return Disposition::Pass;
            }
            return match (headers.ip_version, headers.status) {
                (None, status) if status != Status::NotIp => Disposition::Drop(Reason::MALFORMED),
                _ if settings.bypass.passes_unmatched(frame, headers) => Disposition::Pass,
                _ => Disposition::Drop(reasons::UNPROTECTED.reason()),
            };
        }
    };
    let Some(spi) = frame.get(esp..end).and_then(|packet| packet.first_chunk::<4>()) else {
        return Disposition::Drop(reasons::BAD_LENGTH.reason());
    };
    let is_match = |index: u16| {
        settings.sas.get(usize::from(index)).is_some_and(|sa| {
            let is_destination = |address: IpAddr| {
                headers.addresses(frame).is_some_and(|addresses| addresses.destination() == address)
            };
            let is_source = |address: IpAddr| headers.source_ip(frame) == Some(address);
            sa.udp_port == port
                && sa.destination.is_none_or(is_destination)
                && sa.source.is_none_or(is_source)
        })
    };
    match settings.direction.by_spi.find(u32::from_be_bytes(*spi), is_match) {
        // The offsets fit: a frame has at most 4096 bytes.
        Some(sa_index) => Disposition::Open(Job { sa_index, esp: esp as u16, end: end as u16 }),
        None if settings.bypass.passes_unmatched(frame, headers) => Disposition::Pass,
        None => Disposition::Drop(reasons::NO_SA.reason()),
    }
}

impl Opener {
    /// Decapsulates the packet at batch index `from`, and all later ones of the same SA. `len`
    /// is the number of packets in the batch.
    ///
    /// Never waits: windows are in lock-free slots.
    #[inline]
    fn open(
        &mut self,
        settings: &Settings<Open>,
        view: &mut View<'_>,
        from: usize,
        len: usize,
        now: u64,
    ) {
        let sa_index = self.jobs[from].sa_index;
        let index = usize::from(sa_index);
        let sa = &settings.sas[index];
        if self.windows[index].is_none() && self.owns[index] {
            self.windows[index] = sa.take_window();
        }
        let Some(shared) = sa.shared() else {
            let reason = reasons::STATE_FILE.reason();
            return drop_all(&mut self.jobs[..len], view, from, sa_index, reason, None);
        };
        // The state file has lacked a received number for too long.
        if shared.progress.is_overdue(now) {
            let (reason, counts) = (reasons::STATE_FILE.reason(), Some(&shared.counts));
            return drop_all(&mut self.jobs[..len], view, from, sa_index, reason, counts);
        }
        let limits = &sa.sa.limits;
        let (max_packets, max_bytes) =
            (limits.hard_packets.unwrap_or(u64::MAX), limits.hard_bytes.unwrap_or(u64::MAX));
        // No atomic addition: only the worker with the window writes these counters.
        let mut packets = shared.counts.packets.load(Ordering::Relaxed);
        let mut bytes = shared.bytes.load(Ordering::Relaxed);
        if packets >= max_packets || bytes >= max_bytes {
            let (reason, counts) = (reasons::SA_LIMIT.reason(), Some(&shared.counts));
            return drop_all(&mut self.jobs[..len], view, from, sa_index, reason, counts);
        }
        let Some(window) = self.windows[index].as_mut().and_then(HeldWindow::window) else {
            let (reason, counts) = (reasons::WRONG_QUEUE.reason(), Some(&shared.counts));
            return drop_all(&mut self.jobs[..len], view, from, sa_index, reason, counts);
        };
        let jobs = &mut self.jobs[from..len];
        let mut incoming: ArrayVec<Incoming<'_>, BATCH> = ArrayVec::new();
        for (packet, job) in
            view.packets().skip(from).zip(jobs.iter()).filter(|(_, job)| job.sa_index == sa_index)
        {
            let PacketMut { frame, .. } = packet;
            // Include the prefix before the SPI, which some ciphers overwrite temporarily.
            incoming.push(Incoming::new(
                &mut frame[usize::from(job.esp) - PREFIX_LEN..usize::from(job.end)],
            ));
        }
        sa.sa.protection.open_batch(window, &mut incoming);
        let outcomes: ArrayVec<_, BATCH> =
            incoming.into_iter().map(|incoming| incoming.outcome).collect();
        let mut outcomes = outcomes.into_iter();
        let mut mss_lowered = 0;
        for (mut packet, job) in view
            .packets()
            .skip(from)
            .zip(jobs.iter_mut())
            .filter(|(_, job)| job.sa_index == sa_index)
        {
            let esp = usize::from(job.esp);
            job.sa_index = NONE;
            let Some(outcome) = outcomes.next() else { break };
            let result = outcome.map_err(drop_reason).and_then(|opened| {
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
            match result {
                Ok(()) => {
                    if let Some(max_mss) = settings.tcp_mss
                        && packet.meta.headers.protocol == Some(IpProtocol::TCP)
                    {
                        mss_lowered +=
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
        self.counters[MSS_LOWERED] += mss_lowered;
        shared.counts.packets.store(packets, Ordering::Relaxed);
        shared.bytes.store(bytes, Ordering::Relaxed);
        if let Some(held) = &self.windows[index] {
            held.publish(now);
        }
    }
}

enum Found {
    Esp {
        esp: usize,
        end: usize,
        /// `None` if ESP is not in UDP.
        port: Option<u16>,
    },
    /// A fragment of ESP, or of UDP that may carry ESP.
    Fragment,
    /// A NAT keepalive (RFC 3948).
    Keepalive,
    Nothing,
}

/// Finds ESP directly in IP, or in UDP to one of `udp_ports`.
#[inline]
fn find(frame: &[u8], headers: &Headers, udp_ports: &[u16]) -> Found {
    const KEEPALIVE: [u8; 1] = [0xff];
    let (esp, end) = (usize::from(headers.l4_offset), usize::from(headers.l3_end));
    match headers.protocol {
        Some(IpProtocol::ESP) if headers.fragment == Fragment::Whole => {
            Found::Esp { esp, end, port: None }
        }
        Some(IpProtocol::ESP) => Found::Fragment,
        // A later fragment has no ports, so its datagram may carry ESP.
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
            if has_non_esp_marker(payload) {
                return Found::Nothing;
            }
            let esp = esp + udp::HEADER_LEN;
            Found::Esp { esp, end: esp + payload.len(), port: Some(headers.destination_port) }
        }
        _ => Found::Nothing,
    }
}

#[inline]
fn drop_reason(error: OpenError) -> Reason {
    match error {
        OpenError::BadLength => reasons::BAD_LENGTH.reason(),
        OpenError::Replay => reasons::REPLAY.reason(),
        OpenError::Late => reasons::LATE.reason(),
        OpenError::BadTag => reasons::BAD_TAG.reason(),
        OpenError::BadPadding => reasons::BAD_PADDING.reason(),
    }
}

/// Replaces the outer packet in the frame by the decapsulated one.
///
/// `esp` is the offset of the SPI, and `payload` the range of the decrypted bytes, both in the
/// frame. In `headers`, the decapsulated packet's headers replace those of the outer packet.
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
    let inner_ethertype = match next_header {
        IpProtocol::IPV4 => Some(EtherType::IPV4),
        IpProtocol::IPV6 => Some(EtherType::IPV6),
        _ => None,
    };
    match (sa.sa.mode, inner_ethertype) {
        (Mode::Tunnel, Some(ethertype)) => {
            decapsulate_tunnel(frame, headers, sa, payload, ethertype)
        }
        // The payload may be another tunnel's IP packet.
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
    let l2_len = usize::from(headers.l3_offset);
    let outer_ecn = traffic_class(frame, l2_len) & 0b11;
    frame.truncate(payload.end);
    // Move the link-layer header in front of the inner header.
    let shift = payload.start.checked_sub(l2_len).ok_or(Reason::MALFORMED)?;
    frame.copy_within(..l2_len, shift);
    frame.trim_front(shift);
    let ethertype_field = frame.get_mut(l2_len.wrapping_sub(2)..l2_len).ok_or(Reason::MALFORMED)?;
    ethertype_field.copy_from_slice(&ethertype.0.to_be_bytes());
    Headers::parse_into(frame, headers);
    let version = headers.ip_version.ok_or(Reason::MALFORMED)?;
    // Remove traffic-flow-confidentiality padding after the inner packet.
    frame.truncate(headers.l3_end.into());
    check_selector(sa, headers, frame)?;
    let inner_ecn = traffic_class(frame, l2_len) & 0b11;
    let new_ecn = ecn::decapsulated(inner_ecn, outer_ecn).ok_or(reasons::ECN.reason())?;
    if new_ecn != inner_ecn {
        set_ecn(frame, l2_len, version, new_ecn);
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
    let position = transport::upper_position(frame, headers).ok_or(Reason::MALFORMED)?;
    if position.offset > esp {
        return Err(Reason::MALFORMED);
    }
    frame.truncate(payload.end);
    let shift = payload.start.checked_sub(position.offset).ok_or(Reason::MALFORMED)?;
    frame.copy_within(..position.offset, shift);
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

/// Checks the packet's source against the selector (RFC 4301, 5.2).
#[inline]
fn check_selector(sa: &Inbound, headers: &Headers, frame: &[u8]) -> Result<(), Reason> {
    let selector = &sa.sa.selector;
    if selector.is_all() {
        return Ok(());
    }
    let addresses = headers.addresses(frame).ok_or(Reason::MALFORMED)?;
    if selector.contains(addresses, End::Source) { Ok(()) } else { Err(Reason::POLICY) }
}

/// Returns the byte with DSCP and ECN of the IP header at the offset `l3`.
#[inline]
fn traffic_class(frame: &[u8], l3: usize) -> u8 {
    let [first, second] =
        frame.get(l3..).and_then(|l3| l3.first_chunk::<2>()).copied().unwrap_or_default();
    if first >> 4 == 4 { second } else { first << 4 | second >> 4 }
}

/// Sets ECN in the IP header at the offset `l3`. The IPv4 checksum changes incrementally (RFC
/// 1624), so an invalid one stays invalid.
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
            .field("opened", &self.opener.counters[OPENED])
            .finish_non_exhaustive()
    }
}
