//! `esp-seal`: packets go into ESP, where they lie.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use arrayvec::ArrayVec;
use xdpfwd_ipsec::{BATCH, Exhausted, HEADER, ICV, IN_FRONT, Ivs, Outgoing, behind};
use xdpfwd_xsk::Frame;

use super::bypass::Bypass;
use super::outer::Inner;
use super::reasons;
use super::sa::{self, Outbound, OutboundShared};
use super::selector::End;
use super::state_file::{Lane, StateFile};
use super::too_big::{self, Rate, Sources};
use super::transport::{self, Place};
use super::values::Mode;
use super::{as_plans, mss};
use xdpfwd_pipeline::{
    BuildCx, Cx, ExclusiveResource, Inspectable, Maintained, PacketMut, Reason, ResourceError, ResourceOwner, Stage,
    StagePlan, Table, Verdict, Verdicts, View,
};
use xdpfwd_wire::checksum::{Sum, update};
use xdpfwd_wire::{Fragment, Headers, IpProtocol, IpVersion, Status, udp};

/// What all workers have of the stage.
pub(super) struct Sealing {
    pub(super) sas: Vec<Outbound>,
    pub(super) bypass: Bypass,
    /// Bytes of the largest packet that the way takes.
    pub(super) mtu: usize,
    pub(super) tcp_mss: Option<u16>,
    pub(super) sources: Sources,
    pub(super) icmp_rate: u32,
    pub(super) state: ArcSwapOption<StateFile>,
    /// A worker has found none.
    pub(super) lacks_lane: AtomicBool,
    pub(super) state_path: std::path::PathBuf,
    pub(super) keys: Vec<ExclusiveResource>,
}

/// The stage's plan.
pub(super) struct SealPlan(pub(super) Arc<Sealing>);

/// The stage at work.
pub struct EspSeal {
    plan: Arc<Sealing>,
    work: Sealer,
}

/// What one worker has of the stage.
struct Sealer {
    /// Its own IVs; `None`: there were none left yet.
    lane: Option<Lane>,
    /// Whether limits are those of the plan.
    has_begun: bool,
    rate: Rate,
    sources: Sources,
    jobs: Box<[Job; BATCH]>,
    /// In the order of [`COUNTERS`].
    counters: [u64; COUNTERS.len()],
}

const COUNTERS: [&str; 4] = ["sealed", "bypassed", "icmp_sent", "mss_lowered"];
const SEALED: usize = 0;
const BYPASSED: usize = 1;
const ICMP_SENT: usize = 2;
const MSS_LOWERED: usize = 3;

/// What is to be done about a packet of the batch.
#[derive(Clone, Copy, Default)]
struct Job {
    /// Which SA; [`NONE`] if none, or no more.
    sa: u16,
    /// Where the SPI is in the frame.
    esp: u16,
    payload: u16,
    next_header: u8,
    /// Where to write a UDP checksum, if that takes one: over IPv6.
    udp: Option<u16>,
    /// Where the outer header is, if that may be fragmented: it takes an identification of its own.
    ident: Option<u16>,
    number: u64,
    iv: u64,
}

const NONE: u16 = u16::MAX;

const _: () = assert!(BATCH >= xdpfwd_xsk::Batch::CAPACITY);

/// What becomes of a packet.
enum Fate {
    Seal(Job),
    Pass,
    Drop(Reason),
    /// It is an ICMP message now.
    Answer,
}

impl StagePlan for SealPlan {
    fn build(&self, cx: &BuildCx) -> Box<dyn Stage> {
        let plan = Arc::clone(&self.0);
        let own = &plan.sources;
        let work = Sealer {
            lane: plan.state.load().as_ref().and_then(StateFile::lane),
            has_begun: false,
            rate: Rate::new(plan.icmp_rate, cx.workers, xdpfwd_xsk::clock::cycles_per_second()),
            sources: Sources { v4: own.v4.or(cx.ipv4), v6: own.v6.or(cx.ipv6) },
            jobs: Box::new([Job::default(); BATCH]),
            counters: [0; COUNTERS.len()],
        };
        Box::new(EspSeal { plan, work })
    }

    fn summary(&self) -> String {
        super::summary("seals", self.0.sas.iter().map(|sa| &sa.sa))
    }

    fn verdicts(&self) -> Verdicts {
        let Sealing { sas, bypass, mtu, .. } = &*self.0;
        let sas: Vec<String> = sas.iter().map(Outbound::verdict_key).collect();
        Verdicts::Key(format!("seals by {bypass:?}, {mtu}: {sas:?}"))
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

impl ResourceOwner for SealPlan {
    fn acquire(&self, others: &[Arc<dyn StagePlan>]) -> Result<(), ResourceError> {
        let (same, other) = (super::sealing(others), super::opening(others));
        for sa in &self.0.sas {
            super::stay(&self.0.state_path, &sa.sa, &same, &other)?;
        }
        let state = super::state(&self.0.state_path, others)?;
        for sa in &self.0.sas {
            let others = as_plans::<Self>(others).flat_map(|plan| &plan.0.sas);
            sa.acquire(&state, others).map_err(|error| ResourceError(error.to_string()))?;
        }
        self.0.state.store(Some(state));
        super::warn_of_static_keys(self.0.sas.iter().map(|sa| &sa.sa));
        Ok(())
    }

    fn release(&self) {
        self.0.state.store(None);
    }

    fn exclusive_resources(&self) -> Vec<ExclusiveResource> {
        self.0.keys.clone()
    }
}

impl Maintained for SealPlan {
    fn maintain(&self) {
        self.0.sas.iter().for_each(Outbound::maintain);
        if self.0.lacks_lane.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                state_file = %self.0.state_path.display(),
                "a worker has no lane of IVs and seals nothing: a state file has {} of them, one for each worker and path that seals; take \
                 another state file, and other keys, for some paths",
                Ivs::WORKERS
            );
        }
    }
}

impl Inspectable for SealPlan {
    fn tables(&self, _: &[u64]) -> Vec<Table> {
        vec![sa::table(self.0.sas.iter().map(Outbound::status))]
    }
}

impl Stage for EspSeal {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        let Self { plan, work } = self;
        if !work.has_begun {
            work.has_begun = true;
            plan.sas.iter().for_each(Outbound::limit);
        }
        let len = view.len();
        for place in 0..len {
            let Some(mut packet) = view.packet(place) else { continue };
            let mut job = Job { sa: NONE, ..Job::default() };
            match work.begin(plan, &mut packet, cx.now()) {
                Fate::Seal(begun) => job = begun,
                Fate::Pass => work.counters[BYPASSED] += 1,
                Fate::Drop(reason) => packet.drop(reason),
                Fate::Answer => {
                    work.counters[ICMP_SENT] += 1;
                    packet.send_to(packet.meta.ingress);
                }
            }
            work.jobs[place] = job;
        }
        // One SA after the other; there is one, mostly.
        let mut from = 0;
        while let Some(next) = work.jobs[from..len].iter().position(|job| job.sa != NONE) {
            from += next;
            work.seal(plan, view, from, len);
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        COUNTERS.into_iter().zip(self.work.counters).collect()
    }
}

impl Sealer {
    /// Looks at a packet, and makes room around what is to be sealed.
    #[inline]
    fn begin(&mut self, plan: &Sealing, packet: &mut PacketMut<'_>, now: u64) -> Fate {
        let (frame, headers) = (&mut *packet.frame, packet.meta.headers);
        if plan.bypass.takes(frame, &headers) {
            return Fate::Pass;
        }
        let Some(version) = headers.ip_version else {
            let is_other = headers.status == Status::NotIp;
            return match is_other && plan.bypass.takes_unmatched() {
                true => Fate::Pass,
                false => Fate::Drop(if is_other { reasons::NO_SA.reason() } else { Reason::MALFORMED }),
            };
        };
        let Some(index) = select(&plan.sas, frame, &headers) else {
            return if plan.bypass.takes_unmatched() { Fate::Pass } else { Fate::Drop(reasons::NO_SA.reason()) };
        };
        let sa = &plan.sas[index];
        let dropped = |reason: Reason| {
            if let Some(shared) = sa.shared() {
                shared.counts.drop(reason);
            }
            Fate::Drop(reason)
        };
        if let Some(most) = plan.tcp_mss
            && headers.protocol == Some(IpProtocol::TCP)
        {
            self.counters[MSS_LOWERED] += u64::from(mss::clamp(frame, &headers, most));
        }
        let udp_len = if sa.udp.is_some() { udp::HEADER_LEN } else { 0 };
        let (start, end) = (usize::from(headers.l3_offset), usize::from(headers.l3_end));
        // What stays in front of ESP, what is sealed, and what that is.
        let (from, next_header, place) = match (&sa.outer, sa.sa.mode) {
            (Some(_), Mode::Tunnel) => {
                let inner = if version == IpVersion::V4 { IpProtocol::IPV4 } else { IpProtocol::IPV6 };
                (start, inner, None)
            }
            _ => {
                if headers.fragment != Fragment::Whole {
                    return dropped(reasons::ESP_FRAGMENT.reason());
                }
                let Some(place) = transport::before_payload(frame, &headers) else { return dropped(Reason::MALFORMED) };
                (place.at, place.protocol, Some(place))
            }
        };
        let payload = end - from;
        let in_front = place.map_or_else(|| sa.outer.as_ref().map_or(0, |outer| outer.len()), |place| place.at - start);
        if in_front + udp_len + HEADER + payload + behind(payload) > plan.mtu {
            // What the largest payload is: a multiple of four with pad length and next header.
            let most = (plan.mtu.saturating_sub(in_front + udp_len + HEADER + ICV) & !3).saturating_sub(2);
            let largest = if place.is_some() { most + in_front } else { most };
            // What came out of ESP must not go back in clear, not even its beginning.
            let may = !packet.meta.opened && self.rate.has_one(now);
            if may && too_big::answer(frame, &headers, largest as u16, &self.sources) {
                self.rate.take();
                return Fate::Answer;
            }
            return dropped(reasons::TOO_BIG.reason());
        }
        let front = udp_len + HEADER + if place.is_none() { in_front } else { 0 };
        let inner = inner(frame, start, version);
        frame.truncate(end);
        if frame.headroom() < front || frame.append(behind(payload)).is_err() || frame.prepend(front).is_err() {
            return dropped(Reason::NO_ROOM);
        }
        let carried = if sa.udp.is_some() { IpProtocol::UDP } else { IpProtocol::ESP };
        let esp = from + front - HEADER;
        let mut ident = None;
        match (place, &sa.outer) {
            (None, Some(outer)) => {
                frame.copy_within(front..front + start, 0);
                if let Some(ethertype) = frame.get_mut(start.wrapping_sub(2)..start) {
                    ethertype.copy_from_slice(&outer.ethertype().0.to_be_bytes());
                }
                // Within an MTU.
                let len = (frame.len() - start - in_front) as u16;
                let may_be_fragmented = outer.write(&mut frame[start..], inner, carried, len);
                ident = may_be_fragmented.then_some(start as u16);
            }
            (Some(Place { at, field, .. }), _) => {
                frame.copy_within(front..front + at, 0);
                if transport::set_behind(frame, start, version, field, carried).is_none() {
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
            let outer_is_v6 = sa
                .outer
                .as_ref()
                .map_or(version == IpVersion::V6, |outer| outer.len() == xdpfwd_wire::ipv6::HEADER_LEN);
            udp = outer_is_v6.then_some(at as u16);
        }
        // A frame has at most 4096 bytes.
        Fate::Seal(Job {
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

    /// Seals all packets of the SA of the first job.
    #[inline]
    fn seal(&mut self, plan: &Sealing, view: &mut View<'_>, from: usize, len: usize) {
        let which = self.jobs[from].sa;
        let sa = &plan.sas[usize::from(which)];
        let Some(shared) = sa.shared() else {
            return self.refuse(view, from..len, which, reasons::STATE_FILE.reason(), None);
        };
        if self.lane.is_none() {
            // A predecessor may have given its own back since.
            self.lane = plan.state.load().as_ref().and_then(StateFile::lane);
            plan.lacks_lane.store(self.lane.is_none(), Ordering::Relaxed);
        }
        self.number(view, from, len, shared, sa);
        let jobs = &mut self.jobs[from..len];
        let mut outgoing: ArrayVec<Outgoing<'_>, BATCH> = ArrayVec::new();
        for (packet, job) in view.packets().skip(from).zip(jobs.iter()).filter(|(_, job)| job.sa == which) {
            let PacketMut { frame, .. } = packet;
            outgoing.push(Outgoing {
                bytes: &mut frame[usize::from(job.esp) - IN_FRONT..],
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
            // Each has its room: it cannot be. If it is, nothing leaves that may be as it came.
            return self.refuse(view, from..len, which, Reason::NO_ROOM, Some(shared));
        }
        for (mut packet, job) in view.packets().skip(from).zip(jobs).filter(|(_, job)| job.sa == which) {
            job.sa = NONE;
            if let Some(at) = job.ident {
                identify(packet.frame, at.into(), job.number as u16);
            }
            packet.reparse();
            if let Some(at) = job.udp {
                checksum(packet.frame, &packet.meta.headers, at.into());
            }
        }
        self.counters[SEALED] += count as u64;
        shared.counts.packets.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Assigns numbers and IVs to the packets of an SA; those for which there are none are dropped.
    #[inline]
    fn number(&mut self, view: &mut View<'_>, from: usize, len: usize, shared: &OutboundShared, sa: &Outbound) {
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
        // Those that were before this batch.
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
                    Err(Exhausted::NotWritten) => why = Some(reasons::STATE_FILE.reason()),
                }
            }
            if why.is_none() && ivs.is_empty() {
                match self.lane.as_mut().and_then(|lane| lane.reserve(wanted as u32)) {
                    Some(range) => ivs = range,
                    None => why = Some(reasons::STATE_FILE.reason()),
                }
            }
            wanted -= 1;
            let number = numbers.next();
            // An SA that has just got extended numbers elsewhere may be past those that this one has.
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
                    total = shared.numbers.take_back_bytes(size);
                }
            }
        }
    }

    /// Drops all packets of an SA.
    #[cold]
    fn refuse(
        &mut self,
        view: &mut View<'_>,
        places: std::ops::Range<usize>,
        which: u16,
        reason: Reason,
        shared: Option<&Arc<OutboundShared>>,
    ) {
        for place in places.filter(|place| self.jobs[*place].sa == which).collect::<ArrayVec<_, BATCH>>() {
            self.jobs[place].sa = NONE;
            view.set(place, Verdict::Drop(reason));
            if let Some(shared) = shared {
                shared.counts.drop(reason);
            }
        }
    }
}

/// The first SA that a packet is for.
#[inline]
fn select(sas: &[Outbound], frame: &[u8], headers: &Headers) -> Option<usize> {
    if sas.first()?.sa.selector.is_all() {
        return Some(0);
    }
    let addresses = headers.addresses(frame)?;
    sas.iter().position(|sa| sa.sa.selector.has(addresses, End::Destination))
}

/// What an outer header takes from a packet's own.
#[inline]
fn inner(frame: &[u8], start: usize, version: IpVersion) -> Inner {
    const DONT_FRAGMENT: u8 = 0x40;
    let byte = |at: usize| frame.get(start + at).copied().unwrap_or_default();
    match version {
        IpVersion::V4 => Inner { traffic_class: byte(1), df: byte(6) & DONT_FRAGMENT != 0 },
        IpVersion::V6 => Inner { traffic_class: byte(0) << 4 | byte(1) >> 4, df: true },
    }
}

/// Gives an IPv4 header an identification, as long as it has none (RFC 6864, 4.3).
#[inline]
fn identify(frame: &mut Frame, at: usize, ident: u16) {
    let Some(header) = frame.get_mut(at..).and_then(|header| header.first_chunk_mut::<20>()) else { return };
    header[4..6].copy_from_slice(&ident.to_be_bytes());
    let sum = update(u16::from_be_bytes([header[10], header[11]]), 0, ident);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Writes the checksum that UDP has to have over IPv6 (RFC 8200, 8.1).
#[cold]
fn checksum(frame: &mut Frame, headers: &Headers, at: usize) {
    let Some(addresses) = headers.addresses(frame) else { return };
    let Some(datagram) = frame.get(at..) else { return };
    let sum = Sum::pseudo_header(addresses, IpProtocol::UDP, datagram.len() as u32).with(datagram).checksum();
    // 0 would say that there is none.
    let sum = if sum == 0 { u16::MAX } else { sum };
    if let Some(field) = frame.get_mut(at + 6..at + 8) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

impl fmt::Debug for SealPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SealPlan").field(&self.summary()).finish()
    }
}

impl fmt::Debug for EspSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EspSeal").field("sealed", &self.work.counters[SEALED]).finish_non_exhaustive()
    }
}
