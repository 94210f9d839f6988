//! `esp-seal`: encapsulates packets in ESP, in place.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use xdpfwd_ipsec::{BATCH, Exhausted, HEADER_LEN, ICV_LEN, Outgoing, PREFIX_LEN, trailer_len};
use xdpfwd_pipeline::{
    BuildCx, Cx, IcmpErrors, Inspectable, Maintained, PacketMut, PlanDiagnostic, Reason,
    ResourceOwner, SnapshotError, Stage, StagePlan, Verdict, Verdicts, View,
};
use xdpfwd_wire::checksum::{Sum, update};
use xdpfwd_wire::icmp::Problem;
use xdpfwd_wire::{Fragment, Headers, IpProtocol, IpVersion, Status, udp};
use xdpfwd_xsk::Frame;

use super::batch::{self, NONE, drop_all};
use super::mss;
use super::outer::InnerFields;
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
    sealer: Sealer,
}

/// The stage's state, used by one worker only.
struct Sealer {
    /// `None` if no IV range has been free so far.
    ivs: Option<IvRange>,
    /// Whether this stage has applied its plan's limits to the SAs.
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

/// A packet to encapsulate.
#[derive(Clone, Copy, Default)]
struct Job {
    /// [`NONE`] if encapsulation is not needed, or done.
    sa_index: u16,
    /// Frame offset of the SPI.
    esp: u16,
    payload_len: u16,
    next_header: u8,
    /// Offset of a UDP header that needs a checksum, as over IPv6.
    udp: Option<u16>,
    /// Offset of an outer header that needs an identification, because routers may fragment the
    /// packet.
    ident: Option<u16>,
    sequence_number: u64,
    iv: u64,
}

impl batch::Job for Job {
    #[inline]
    fn sa_index(&mut self) -> &mut u16 {
        &mut self.sa_index
    }
}

enum Disposition {
    Seal(Job),
    Pass,
    Drop(Reason),
    /// The frame is now an ICMP message to the sender.
    Answered,
}

impl StagePlan for Plan<Seal> {
    fn build(&self, cx: &BuildCx<'_>) -> Box<dyn Stage> {
        let settings = Arc::clone(&self.0);
        let Seal { icmp_rate, icmp_sources, .. } = settings.direction;
        let sealer = Sealer {
            ivs: settings.iv_range(),
            has_set_limits: false,
            icmp: IcmpErrors::new(icmp_rate, icmp_sources, cx),
            jobs: Box::new([Job::default(); BATCH]),
            counters: [0; COUNTERS.len()],
        };
        Box::new(EspSeal { settings, sealer })
    }

    fn summary(&self) -> String {
        self.describe()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.file_names()
    }

    fn longest_packet(&self, mtu: u32) -> u32 {
        // Outer IPv6 header, UDP header, ESP header and ICV, up to 3 bytes of padding, and the pad
        // length and next-header fields.
        const MAX_OVERHEAD: u32 = 40 + 8 + (HEADER_LEN + ICV_LEN) as u32 + 3 + 2;
        let limit = u32::try_from(self.0.direction.mtu).unwrap_or(u32::MAX);
        let sealed = mtu.saturating_add(MAX_OVERHEAD).min(limit);
        if self.0.bypass.has_unmatched() { sealed.max(mtu) } else { sealed }
    }

    fn verdicts(&self) -> Verdicts {
        let Settings { bypass, direction: Seal { mtu, .. }, .. } = &*self.0;
        Verdicts::Key(format!("esp-seal, bypass {bypass:?}, mtu {mtu}: {:?}", self.verdict_keys()))
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
}

impl Stage for EspSeal {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        let Self { settings, sealer } = self;
        if !sealer.has_set_limits {
            sealer.has_set_limits = true;
            settings.sas.iter().for_each(Outbound::limit);
        }
        let len = view.len();
        for index in 0..len {
            let Some(mut packet) = view.packet(index) else { continue };
            let mut job = Job { sa_index: NONE, ..Job::default() };
            match sealer.prepare(settings, &mut packet, cx.now()) {
                Disposition::Seal(seal_job) => job = seal_job,
                Disposition::Pass => sealer.counters[BYPASSED] += 1,
                Disposition::Drop(reason) => packet.drop(reason),
                Disposition::Answered => sealer.counters[ICMP_SENT] += 1,
            }
            sealer.jobs[index] = job;
        }
        // Encapsulate one SA at a time; most batches have one.
        let mut from = 0;
        while let Some(next) = sealer.jobs[from..len].iter().position(|job| job.sa_index != NONE) {
            from += next;
            sealer.seal(settings, view, from, len);
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        COUNTERS.into_iter().zip(self.sealer.counters).collect()
    }

    /// Returns an empty snapshot, because the SAs keep the state. Without a snapshot, a reload
    /// would not call `restore`.
    fn snapshot(&self) -> Option<Vec<u8>> {
        Some(Vec::new())
    }

    /// Sets this plan's limits again: a stage of the old plan on another worker may have set the
    /// old limits in the meantime.
    fn restore(&mut self, _: &[u8]) -> Result<(), SnapshotError> {
        self.settings.sas.iter().for_each(Outbound::limit);
        Ok(())
    }
}

impl Sealer {
    /// Decides about a packet. To encapsulate it, makes room, and writes the IP and UDP headers
    /// before ESP.
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
            let is_not_ip = headers.status == Status::NotIp;
            return match is_not_ip && settings.bypass.passes_unmatched(frame, &headers) {
                true => Disposition::Pass,
                false => Disposition::Drop(if is_not_ip {
                    reasons::NO_SA.reason()
                } else {
                    Reason::MALFORMED
                }),
            };
        };
        let Some(index) = select(&settings.sas, frame, &headers) else {
            return if settings.bypass.passes_unmatched(frame, &headers) {
                Disposition::Pass
            } else {
                Disposition::Drop(reasons::NO_SA.reason())
            };
        };
        let sa = &settings.sas[index];
        let count_drop = |reason: Reason| {
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
        let (ip_start, end) = (usize::from(headers.l3_offset), usize::from(headers.l3_end));
        // Start and protocol of the payload, and the position of ESP in transport mode.
        let (payload_start, next_header, position) = match (&sa.outer, sa.sa.mode) {
            (Some(_), Mode::Tunnel) => {
                let protocol =
                    if version == IpVersion::V4 { IpProtocol::IPV4 } else { IpProtocol::IPV6 };
                (ip_start, protocol, None)
            }
            _ => {
                if headers.fragment != Fragment::Whole {
                    return count_drop(reasons::ESP_FRAGMENT.reason());
                }
                let Some(position) = transport::esp_position(frame, &headers) else {
                    return count_drop(Reason::MALFORMED);
                };
                (position.offset, position.protocol, Some(position))
            }
        };
        let payload_len = end - payload_start;
        // Length of IP headers before ESP or UDP.
        let ip_len = position.map_or_else(
            || sa.outer.as_ref().map_or(0, |outer| outer.len()),
            |position| position.offset - ip_start,
        );
        if ip_len + udp_len + HEADER_LEN + payload_len + trailer_len(payload_len)
            > settings.direction.mtu
        {
            // The length of payload, padding, pad length and next header (1 byte each) is a
            // multiple of 4.
            let max_payload_len =
                (settings.direction.mtu.saturating_sub(ip_len + udp_len + HEADER_LEN + ICV_LEN)
                    & !3)
                    .saturating_sub(2);
            let max_packet_len =
                if position.is_some() { max_payload_len + ip_len } else { max_payload_len };
            return match self.icmp.answer(
                packet,
                Problem::TooBig { mtu: max_packet_len as u16 },
                now,
            ) {
                true => Disposition::Answered,
                false => count_drop(reasons::TOO_BIG.reason()),
            };
        }
        let prepended = udp_len + HEADER_LEN + if position.is_none() { ip_len } else { 0 };
        let inner = inner_fields(frame, ip_start, version);
        frame.truncate(end);
        if frame.headroom() < prepended
            || frame.append(trailer_len(payload_len)).is_err()
            || frame.prepend(prepended).is_err()
        {
            return count_drop(Reason::NO_ROOM);
        }
        let outer_protocol = if sa.udp.is_some() { IpProtocol::UDP } else { IpProtocol::ESP };
        let esp = payload_start + prepended - HEADER_LEN;
        let mut ident = None;
        match (position, &sa.outer) {
            (None, Some(outer)) => {
                frame.copy_within(prepended..prepended + ip_start, 0);
                if let Some(ethertype) = frame.get_mut(ip_start.wrapping_sub(2)..ip_start) {
                    ethertype.copy_from_slice(&outer.ethertype().0.to_be_bytes());
                }
                // Cannot overflow: the length is at most the MTU.
                let len = (frame.len() - ip_start - ip_len) as u16;
                let may_be_fragmented =
                    outer.write(&mut frame[ip_start..], inner, outer_protocol, len);
                ident = may_be_fragmented.then_some(ip_start as u16);
            }
            (Some(Position { offset, field, .. }), _) => {
                frame.copy_within(prepended..prepended + offset, 0);
                if transport::set_next_protocol(frame, ip_start, version, field, outer_protocol)
                    .is_none()
                {
                    return count_drop(Reason::MALFORMED);
                }
            }
            (None, None) => return count_drop(Reason::MALFORMED),
        }
        let mut udp = None;
        if let Some([source, destination]) = sa.udp {
            let udp_start = esp - udp::HEADER_LEN;
            let repr = udp::Repr {
                source_port: source,
                destination_port: destination,
                payload_len: (frame.len() - esp) as u16,
            };
            let result = repr.emit(&mut frame[udp_start..]);
            debug_assert!(result.is_ok());
            let is_outer_v6 = sa.outer.as_ref().map_or(version == IpVersion::V6, |outer| {
                outer.len() == xdpfwd_wire::ipv6::HEADER_LEN
            });
            udp = is_outer_v6.then_some(udp_start as u16);
        }
        // The offsets fit: a frame has at most 4096 bytes.
        Disposition::Seal(Job {
            sa_index: index as u16,
            esp: esp as u16,
            payload_len: payload_len as u16,
            next_header: next_header.0,
            udp,
            ident,
            sequence_number: 0,
            iv: 0,
        })
    }

    /// Encapsulates the packet at batch index `from`, and all later ones of the same SA. `len`
    /// is the number of packets in the batch.
    ///
    /// Never waits: IVs and sequence numbers come from lock-free queues and atomics.
    #[inline]
    fn seal(&mut self, settings: &Settings<Seal>, view: &mut View<'_>, from: usize, len: usize) {
        let sa_index = self.jobs[from].sa_index;
        let sa = &settings.sas[usize::from(sa_index)];
        let Some(shared) = sa.shared() else {
            let reason = reasons::STATE_FILE.reason();
            return drop_all(&mut self.jobs[..len], view, from, sa_index, reason, None);
        };
        if self.ivs.is_none() {
            // Another stage may have returned its IV range.
            self.ivs = settings.iv_range();
            settings.direction.lacks_iv_range.store(self.ivs.is_none(), Ordering::Relaxed);
        }
        self.assign_numbers(view, from, len, shared, sa);
        let jobs = &mut self.jobs[from..len];
        let mut outgoing: ArrayVec<Outgoing<'_>, BATCH> = ArrayVec::new();
        for (packet, job) in
            view.packets().skip(from).zip(jobs.iter()).filter(|(_, job)| job.sa_index == sa_index)
        {
            let PacketMut { frame, .. } = packet;
            // Include the prefix before the SPI, which some ciphers overwrite temporarily.
            outgoing.push(Outgoing {
                bytes: &mut frame[usize::from(job.esp) - PREFIX_LEN..],
                payload: job.payload_len.into(),
                next_header: job.next_header,
                number: job.sequence_number,
                iv: job.iv,
            });
        }
        let count = outgoing.len();
        let sealed_count = sa.sa.protection.seal_batch(&mut outgoing);
        drop(outgoing);
        if sealed_count != count {
            // Cannot happen, because `prepare` made room. If it did, a packet would leave in clear
            // text, so drop them all.
            let counts = Some(&shared.counts);
            return drop_all(&mut self.jobs[..len], view, from, sa_index, Reason::NO_ROOM, counts);
        }
        for (mut packet, job) in
            view.packets().skip(from).zip(jobs).filter(|(_, job)| job.sa_index == sa_index)
        {
            job.sa_index = NONE;
            if let Some(ip_start) = job.ident {
                set_identification(packet.frame, ip_start.into(), job.sequence_number as u16);
            }
            packet.reparse();
            if let Some(udp_start) = job.udp {
                set_udp_checksum(packet.frame, &packet.meta.headers, udp_start.into());
            }
        }
        self.counters[SEALED] += count as u64;
        shared.counts.packets.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Assigns sequence numbers and IVs for `seal`. Drops packets beyond the SA's limits, and those
    /// without a number or IV.
    #[inline]
    fn assign_numbers(
        &mut self,
        view: &mut View<'_>,
        from: usize,
        len: usize,
        shared: &OutboundShared,
        sa: &Outbound,
    ) {
        let sa_index = self.jobs[from].sa_index;
        let is_of_sa = |job: &&mut Job| job.sa_index == sa_index;
        let jobs = &mut self.jobs[from..len];
        let (mut packets_left, mut bytes) = (0_u64, 0_u64);
        for job in jobs.iter_mut().filter(is_of_sa) {
            packets_left += 1;
            bytes += u64::from(job.payload_len);
        }
        let mut total = shared.numbers.add_bytes(bytes);
        let limit = sa.sa.limits.hard_bytes.unwrap_or(u64::MAX);
        // Inner bytes before the current packet.
        let mut bytes_before = total - bytes;
        let (mut numbers, mut ivs) = (0..0_u64, 0..0_u64);
        for (index, job) in jobs.iter_mut().enumerate().filter(|(_, job)| job.sa_index == sa_index)
        {
            let size = u64::from(job.payload_len);
            let mut drop_reason = None;
            if total > limit && bytes_before.saturating_add(size) > limit {
                drop_reason = Some(reasons::SA_LIMIT.reason());
            } else if numbers.is_empty() {
                match shared.numbers.reserve(packets_left) {
                    Ok(range) => numbers = range,
                    Err(Exhausted::Limit) => drop_reason = Some(reasons::SA_LIMIT.reason()),
                    Err(Exhausted::NotStored) => drop_reason = Some(reasons::STATE_FILE.reason()),
                }
            }
            if drop_reason.is_none() && ivs.is_empty() {
                match self.ivs.as_mut().and_then(|ivs| ivs.reserve(packets_left as u32)) {
                    Some(range) => ivs = range,
                    None => drop_reason = Some(reasons::STATE_FILE.reason()),
                }
            }
            packets_left -= 1;
            let number = numbers.next();
            // An earlier plan for this key, with ESN, may have used all 32-bit numbers.
            if !sa.sa.esn && number.is_some_and(|number| number > u64::from(u32::MAX)) {
                drop_reason = drop_reason.or(Some(reasons::SA_LIMIT.reason()));
            }
            match (drop_reason, number, ivs.next()) {
                (None, Some(number), Some(iv)) => {
                    (job.sequence_number, job.iv) = (number, iv);
                    bytes_before += size;
                }
                (drop_reason, ..) => {
                    let reason = drop_reason.unwrap_or(reasons::STATE_FILE.reason());
                    job.sa_index = NONE;
                    view.set_verdict(from + index, Verdict::Drop(reason));
                    shared.counts.drop(reason);
                    total = shared.numbers.subtract_bytes(size);
                }
            }
        }
    }
}

/// Returns the first SA whose selector contains the destination address.
#[inline]
fn select(sas: &[Outbound], frame: &[u8], headers: &Headers) -> Option<usize> {
    if sas.first()?.sa.selector.is_all() {
        return Some(0);
    }
    let addresses = headers.addresses(frame)?;
    sas.iter().position(|sa| sa.sa.selector.contains(addresses, End::Destination))
}

#[inline]
fn inner_fields(frame: &[u8], ip_start: usize, version: IpVersion) -> InnerFields {
    const DONT_FRAGMENT: u8 = 0x40;
    let byte = |offset: usize| frame.get(ip_start + offset).copied().unwrap_or_default();
    match version {
        IpVersion::V4 => InnerFields { traffic_class: byte(1), df: byte(6) & DONT_FRAGMENT != 0 },
        IpVersion::V6 => InnerFields { traffic_class: byte(0) << 4 | byte(1) >> 4, df: true },
    }
}

/// Sets the IPv4 identification, so far 0, and the checksum (RFC 6864, section 4.3).
#[inline]
fn set_identification(frame: &mut Frame, ip_start: usize, ident: u16) {
    let Some(header) = frame.get_mut(ip_start..).and_then(|header| header.first_chunk_mut::<20>())
    else {
        return;
    };
    header[4..6].copy_from_slice(&ident.to_be_bytes());
    let checksum = update(u16::from_be_bytes([header[10], header[11]]), 0, ident);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Sets the UDP checksum, which IPv6 requires (RFC 8200, section 8.1).
#[cold]
fn set_udp_checksum(frame: &mut Frame, headers: &Headers, udp_start: usize) {
    let Some(addresses) = headers.addresses(frame) else { return };
    let Some(datagram) = frame.get(udp_start..) else { return };
    let checksum = Sum::pseudo_header(addresses, IpProtocol::UDP, datagram.len() as u32)
        .with(datagram)
        .checksum();
    // In UDP, 0 means no checksum.
    let checksum = if checksum == 0 { u16::MAX } else { checksum };
    if let Some(field) = frame.get_mut(udp_start + 6..udp_start + 8) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

impl fmt::Debug for EspSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EspSeal")
            .field("sealed", &self.sealer.counters[SEALED])
            .finish_non_exhaustive()
    }
}
