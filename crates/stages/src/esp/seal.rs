//! `esp-seal`: encapsulates packets in ESP, in place.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use xdpfwd_ipsec::{BATCH, Exhausted, HEADER_LEN, ICV, Outgoing, PREFIX_LEN, trailer_len};
use xdpfwd_pipeline::{
    BuildCx, Cx, IcmpErrors, Inspectable, Maintained, PacketMut, Reason, ResourceOwner,
    SnapshotError, Stage, StagePlan, Verdict, Verdicts, View,
};
use xdpfwd_wire::checksum::{Sum, update};
use xdpfwd_wire::icmp::Problem;
use xdpfwd_wire::{Fragment, Headers, IpProtocol, IpVersion, Status, udp};
use xdpfwd_xsk::Frame;

use super::batch::{self, NONE, drop_all};
use super::mss;
use super::outer::Inner;
use super::plan::{Plan, Seal, Settings};
use super::reasons;
use super::sa::{Outbound, OutboundShared};
use super::selector::End;
use super::state_file::IvRange;
use super::transport::{self, Position};
use super::values::Mode;

/// The stage `esp-seal` of one worker.
pub struct EspSeal {
    settings: Arc<Settings<Seal>>,
    work: Sealer,
}

/// State of one worker.
struct Sealer {
    /// The worker's IVs; `None` if no range was free yet.
    ivs: Option<IvRange>,
    /// Whether the SAs have the limits of this plan.
    has_set_limits: bool,
    icmp: IcmpErrors,
    jobs: Box<[Job; BATCH]>,
    /// Values of [`COUNTERS`].
    counters: [u64; COUNTERS.len()],
}

const COUNTERS: [&str; 4] = ["sealed", "bypassed", "icmp_sent", "mss_lowered"];
const SEALED: usize = 0;
const BYPASSED: usize = 1;
const ICMP_SENT: usize = 2;
const MSS_LOWERED: usize = 3;

/// The encapsulation of a packet of the batch.
#[derive(Clone, Copy, Default)]
struct Job {
    /// Index of the SA; [`NONE`] if there is nothing to do, or no more.
    sa: u16,
    /// Offset of the SPI in the frame.
    esp: u16,
    payload: u16,
    next_header: u8,
    /// Offset of the UDP header, if it needs a checksum: over IPv6.
    udp: Option<u16>,
    /// Offset of the outer header, if it needs an identification: it may be fragmented.
    ident: Option<u16>,
    number: u64,
    iv: u64,
}

impl batch::Job for Job {
    #[inline]
    fn sa(&mut self) -> &mut u16 {
        &mut self.sa
    }
}

/// The treatment of a packet.
enum Disposition {
    Seal(Job),
    Pass,
    Drop(Reason),
    /// An ICMP message goes back to the sender.
    Answered,
}

impl StagePlan for Plan<Seal> {
    fn build(&self, cx: &BuildCx<'_>) -> Box<dyn Stage> {
        let settings = Arc::clone(&self.0);
        let Seal { icmp_rate, icmp_sources, .. } = settings.own;
        let work = Sealer {
            ivs: settings.iv_range(),
            has_set_limits: false,
            icmp: IcmpErrors::new(icmp_rate, icmp_sources, cx),
            jobs: Box::new([Job::default(); BATCH]),
            counters: [0; COUNTERS.len()],
        };
        Box::new(EspSeal { settings, work })
    }

    fn summary(&self) -> String {
        self.describe()
    }

    fn verdicts(&self) -> Verdicts {
        let Settings { bypass, own: Seal { mtu, .. }, .. } = &*self.0;
        Verdicts::Key(format!("seals by {bypass:?}, {mtu}: {:?}", self.verdict_keys()))
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
}

impl Stage for EspSeal {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        let Self { settings, work } = self;
        if !work.has_set_limits {
            work.has_set_limits = true;
            settings.sas.iter().for_each(Outbound::limit);
        }
        let len = view.len();
        for index in 0..len {
            let Some(mut packet) = view.packet(index) else { continue };
            let mut job = Job { sa: NONE, ..Job::default() };
            match work.prepare(settings, &mut packet, cx.now()) {
                Disposition::Seal(seal) => job = seal,
                Disposition::Pass => work.counters[BYPASSED] += 1,
                Disposition::Drop(reason) => packet.drop(reason),
                Disposition::Answered => work.counters[ICMP_SENT] += 1,
            }
            work.jobs[index] = job;
        }
        // One SA after the other; most batches have only one.
        let mut from = 0;
        while let Some(next) = work.jobs[from..len].iter().position(|job| job.sa != NONE) {
            from += next;
            work.seal(settings, view, from, len);
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        COUNTERS.into_iter().zip(self.work.counters).collect()
    }

    /// There is no state to hand over: the snapshot has the successor called.
    fn snapshot(&self) -> Option<Vec<u8>> {
        Some(Vec::new())
    }

    /// Sets the limits of the SAs again: another worker's old stage may have set its own since.
    fn restore(&mut self, _: &[u8]) -> Result<(), SnapshotError> {
        self.settings.sas.iter().for_each(Outbound::limit);
        Ok(())
    }
}

impl Sealer {
    /// Classifies a packet, and makes room around the payload to encapsulate.
    #[inline]
    fn prepare(
        &mut self,
        settings: &Settings<Seal>,
        packet: &mut PacketMut<'_>,
        now: u64,
    ) -> Disposition {
        let (frame, headers) = (&mut *packet.frame, packet.meta.headers);
        if settings.bypass.matches(frame, &headers) {
            return Disposition::Pass;
        }
        let Some(version) = headers.ip_version else {
            let is_other = headers.status == Status::NotIp;
            return match is_other && settings.bypass.passes_unmatched() {
                true => Disposition::Pass,
                false => Disposition::Drop(if is_other {
                    reasons::NO_SA.reason()
                } else {
                    Reason::MALFORMED
                }),
            };
        };
        let Some(index) = select(&settings.sas, frame, &headers) else {
            return if settings.bypass.passes_unmatched() {
                Disposition::Pass
            } else {
                Disposition::Drop(reasons::NO_SA.reason())
            };
        };
        let sa = &settings.sas[index];
        let dropped = |reason: Reason| {
            if let Some(shared) = sa.shared() {
                shared.counts.drop(reason);
            }
            Disposition::Drop(reason)
        };
        if let Some(max_mss) = settings.tcp_mss
            && headers.protocol == Some(IpProtocol::TCP)
        {
            self.counters[MSS_LOWERED] += u64::from(mss::clamp(frame, &headers, max_mss));
        }
        let udp_len = if sa.udp.is_some() { udp::HEADER_LEN } else { 0 };
        let (start, end) = (usize::from(headers.l3_offset), usize::from(headers.l3_end));
        // Start of the payload, its protocol, and where ESP goes in transport mode.
        let (from, next_header, position) = match (&sa.outer, sa.sa.mode) {
            (Some(_), Mode::Tunnel) => {
                let inner =
                    if version == IpVersion::V4 { IpProtocol::IPV4 } else { IpProtocol::IPV6 };
                (start, inner, None)
            }
            _ => {
                if headers.fragment != Fragment::Whole {
                    return dropped(reasons::ESP_FRAGMENT.reason());
                }
                let Some(position) = transport::before_payload(frame, &headers) else {
                    return dropped(Reason::MALFORMED);
                };
                (position.at, position.protocol, Some(position))
            }
        };
        let payload = end - from;
        let in_front = position.map_or_else(
            || sa.outer.as_ref().map_or(0, |outer| outer.len()),
            |position| position.at - start,
        );
        if in_front + udp_len + HEADER_LEN + payload + trailer_len(payload) > settings.own.mtu {
            // The largest payload: a multiple of four with pad length and next header.
            let max_payload =
                (settings.own.mtu.saturating_sub(in_front + udp_len + HEADER_LEN + ICV) & !3)
                    .saturating_sub(2);
            let largest = if position.is_some() { max_payload + in_front } else { max_payload };
            return match self.icmp.answer(packet, Problem::TooBig { mtu: largest as u16 }, now) {
                true => Disposition::Answered,
                false => dropped(reasons::TOO_BIG.reason()),
            };
        }
        let front = udp_len + HEADER_LEN + if position.is_none() { in_front } else { 0 };
        let inner = inner(frame, start, version);
        frame.truncate(end);
        if frame.headroom() < front
            || frame.append(trailer_len(payload)).is_err()
            || frame.prepend(front).is_err()
        {
            return dropped(Reason::NO_ROOM);
        }
        let carried = if sa.udp.is_some() { IpProtocol::UDP } else { IpProtocol::ESP };
        let esp = from + front - HEADER_LEN;
        let mut ident = None;
        match (position, &sa.outer) {
            (None, Some(outer)) => {
                frame.copy_within(front..front + start, 0);
                if let Some(ethertype) = frame.get_mut(start.wrapping_sub(2)..start) {
                    ethertype.copy_from_slice(&outer.ethertype().0.to_be_bytes());
                }
                // Cannot overflow: at most the MTU.
                let len = (frame.len() - start - in_front) as u16;
                let may_be_fragmented = outer.write(&mut frame[start..], inner, carried, len);
                ident = may_be_fragmented.then_some(start as u16);
            }
            (Some(Position { at, field, .. }), _) => {
                frame.copy_within(front..front + at, 0);
                if transport::set_next_protocol(frame, start, version, field, carried).is_none() {
                    return dropped(Reason::MALFORMED);
                }
            }
            (None, None) => return dropped(Reason::MALFORMED),
        }
        let mut udp = None;
        if let Some([source, destination]) = sa.udp {
            let at = esp - udp::HEADER_LEN;
            let repr = udp::Repr {
                source_port: source,
                destination_port: destination,
                payload_len: (frame.len() - esp) as u16,
            };
            let written = repr.emit(&mut frame[at..]);
            debug_assert!(written.is_ok());
            let outer_is_v6 = sa.outer.as_ref().map_or(version == IpVersion::V6, |outer| {
                outer.len() == xdpfwd_wire::ipv6::HEADER_LEN
            });
            udp = outer_is_v6.then_some(at as u16);
        }
        // A frame has at most 4096 bytes.
        Disposition::Seal(Job {
            sa: index as u16,
            esp: esp as u16,
            payload: payload as u16,
            next_header: next_header.0,
            udp,
            ident,
            number: 0,
            iv: 0,
        })
    }

    /// Encapsulates all packets of the SA of the first job.
    ///
    /// Never waits: windows, IV ranges and the state file are shared by lock-free queues and
    /// atomics.
    #[inline]
    fn seal(&mut self, settings: &Settings<Seal>, view: &mut View<'_>, from: usize, len: usize) {
        let which = self.jobs[from].sa;
        let sa = &settings.sas[usize::from(which)];
        let Some(shared) = sa.shared() else {
            let reason = reasons::STATE_FILE.reason();
            return drop_all(&mut self.jobs[..len], view, from, which, reason, None);
        };
        if self.ivs.is_none() {
            // A predecessor may have returned its range since.
            self.ivs = settings.iv_range();
            settings.own.lacks_iv_range.store(self.ivs.is_none(), Ordering::Relaxed);
        }
        self.number(view, from, len, shared, sa);
        let jobs = &mut self.jobs[from..len];
        let mut outgoing: ArrayVec<Outgoing<'_>, BATCH> = ArrayVec::new();
        for (packet, job) in
            view.packets().skip(from).zip(jobs.iter()).filter(|(_, job)| job.sa == which)
        {
            let PacketMut { frame, .. } = packet;
            outgoing.push(Outgoing {
                bytes: &mut frame[usize::from(job.esp) - PREFIX_LEN..],
                payload: job.payload.into(),
                next_header: job.next_header,
                number: job.number,
                iv: job.iv,
            });
        }
        let count = outgoing.len();
        let sealed = sa.sa.protection.seal_batch(&mut outgoing);
        drop(outgoing);
        if sealed != count {
            // Cannot happen, as each packet has its room. Never send a packet in clear text.
            let counts = Some(&shared.counts);
            return drop_all(&mut self.jobs[..len], view, from, which, Reason::NO_ROOM, counts);
        }
        for (mut packet, job) in
            view.packets().skip(from).zip(jobs).filter(|(_, job)| job.sa == which)
        {
            job.sa = NONE;
            if let Some(at) = job.ident {
                set_identification(packet.frame, at.into(), job.number as u16);
            }
            packet.reparse();
            if let Some(at) = job.udp {
                set_udp_checksum(packet.frame, &packet.meta.headers, at.into());
            }
        }
        self.counters[SEALED] += count as u64;
        shared.counts.packets.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Assigns numbers and IVs to the packets of an SA. Drops packets for which none is left.
    #[inline]
    fn number(
        &mut self,
        view: &mut View<'_>,
        from: usize,
        len: usize,
        shared: &OutboundShared,
        sa: &Outbound,
    ) {
        let which = self.jobs[from].sa;
        let own = |job: &&mut Job| job.sa == which;
        let jobs = &mut self.jobs[from..len];
        let (mut wanted, mut bytes) = (0_u64, 0_u64);
        for job in jobs.iter_mut().filter(own) {
            wanted += 1;
            bytes += u64::from(job.payload);
        }
        let mut total = shared.numbers.add_bytes(bytes);
        let limit = sa.sa.limits.hard_bytes.unwrap_or(u64::MAX);
        // The bytes before this batch.
        let mut so_far = total - bytes;
        let (mut numbers, mut ivs) = (0..0_u64, 0..0_u64);
        for (index, job) in jobs.iter_mut().enumerate().filter(|(_, job)| job.sa == which) {
            let size = u64::from(job.payload);
            let mut why = None;
            if total > limit && so_far.saturating_add(size) > limit {
                why = Some(reasons::SA_LIMIT.reason());
            } else if numbers.is_empty() {
                match shared.numbers.reserve(wanted) {
                    Ok(range) => numbers = range,
                    Err(Exhausted::Limit) => why = Some(reasons::SA_LIMIT.reason()),
                    Err(Exhausted::NotStored) => why = Some(reasons::STATE_FILE.reason()),
                }
            }
            if why.is_none() && ivs.is_empty() {
                match self.ivs.as_mut().and_then(|ivs| ivs.reserve(wanted as u32)) {
                    Some(range) => ivs = range,
                    None => why = Some(reasons::STATE_FILE.reason()),
                }
            }
            wanted -= 1;
            let number = numbers.next();
            // Another plan with extended numbers may have used up the 32 bits of this one.
            if !sa.sa.esn && number.is_some_and(|number| number > u64::from(u32::MAX)) {
                why = why.or(Some(reasons::SA_LIMIT.reason()));
            }
            match (why, number, ivs.next()) {
                (None, Some(number), Some(iv)) => {
                    (job.number, job.iv) = (number, iv);
                    so_far += size;
                }
                (why, ..) => {
                    let reason = why.unwrap_or(reasons::STATE_FILE.reason());
                    job.sa = NONE;
                    view.set(from + index, Verdict::Drop(reason));
                    shared.counts.drop(reason);
                    total = shared.numbers.subtract_bytes(size);
                }
            }
        }
    }
}

/// Returns the index of the first SA whose selector has the packet.
#[inline]
fn select(sas: &[Outbound], frame: &[u8], headers: &Headers) -> Option<usize> {
    if sas.first()?.sa.selector.is_all() {
        return Some(0);
    }
    let addresses = headers.addresses(frame)?;
    sas.iter().position(|sa| sa.sa.selector.has(addresses, End::Destination))
}

/// Returns the fields that the outer header copies from a packet.
#[inline]
fn inner(frame: &[u8], start: usize, version: IpVersion) -> Inner {
    const DONT_FRAGMENT: u8 = 0x40;
    let byte = |at: usize| frame.get(start + at).copied().unwrap_or_default();
    match version {
        IpVersion::V4 => Inner { traffic_class: byte(1), df: byte(6) & DONT_FRAGMENT != 0 },
        IpVersion::V6 => Inner { traffic_class: byte(0) << 4 | byte(1) >> 4, df: true },
    }
}

/// Sets the identification of an IPv4 header that has none (RFC 6864, section 4.3).
#[inline]
fn set_identification(frame: &mut Frame, at: usize, ident: u16) {
    let Some(header) = frame.get_mut(at..).and_then(|header| header.first_chunk_mut::<20>()) else {
        return;
    };
    header[4..6].copy_from_slice(&ident.to_be_bytes());
    let sum = update(u16::from_be_bytes([header[10], header[11]]), 0, ident);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Writes the UDP checksum, which IPv6 requires (RFC 8200, section 8.1).
#[cold]
fn set_udp_checksum(frame: &mut Frame, headers: &Headers, at: usize) {
    let Some(addresses) = headers.addresses(frame) else { return };
    let Some(datagram) = frame.get(at..) else { return };
    let sum = Sum::pseudo_header(addresses, IpProtocol::UDP, datagram.len() as u32)
        .with(datagram)
        .checksum();
    // 0 means that there is no checksum.
    let sum = if sum == 0 { u16::MAX } else { sum };
    if let Some(field) = frame.get_mut(at + 6..at + 8) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

impl fmt::Debug for EspSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EspSeal")
            .field("sealed", &self.work.counters[SEALED])
            .finish_non_exhaustive()
    }
}
