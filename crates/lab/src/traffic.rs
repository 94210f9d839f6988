//! The traffic generator.

use std::{
    net::Ipv4Addr,
    os::{fd::AsRawFd as _, unix::thread::JoinHandleExt},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use libbpf_rs::{ErrorKind, MapCore as _, MapFlags, MapHandle, Program, ProgramInput};
use nix::{
    net::if_::if_nametoindex,
    sched::{CpuSet, sched_setaffinity},
    sys::{
        pthread::pthread_kill,
        signal::{SigSet, Signal},
    },
    unistd::Pid,
};

use crate::{
    Counters, Error, GEN_ADDRESS, Generator, GeneratorKind, Namespace, Pktgen, SINK_ADDRESS,
    SentTotals, bpf,
    frame::{MAX_FLOWS, MIN_SIZE, TestFrame},
    frame_sizes::{FrameSizes, IMIX, MAX_SIZES},
    generator::Source,
    mac,
    namespace::NamespaceHandle,
    require_root,
};

/// `BPF_F_TEST_XDP_LIVE_FRAMES`: the kernel sends real frames.
const LIVE_FRAMES: u32 = 1 << 1;
/// `FRACTION_BITS` in bpf/generator.bpf.c: fraction bits of a time in nanoseconds.
const FRACTION_BITS: u32 = 12;
/// `RUN_SHIFT` in bpf/frame.h.
const RUN_SHIFT: u32 = 40;
/// Maximum lag behind the schedule, in frames; the excess is skipped. The generator can catch up
/// after a short preemption, without overrunning a ring of 2048 entries.
const BACKLOG_FRAMES: u64 = 256;
/// Limits of the same lag as a time in nanoseconds, for very high and very low rates.
const BACKLOG_NANOSECONDS: std::ops::RangeInclusive<u64> = 100_000..=20_000_000;
/// The protocol number of UDP.
const UDP: u8 = 17;
/// Ends the generator's system call. Ignored by default, so a late signal is harmless.
const WAKE_SIGNAL: Signal = Signal::SIGURG;

/// Traffic to send: frames of one size or of several, in some flows, at a given rate or as fast as
/// possible.
///
/// Frames are Ethernet/IPv4/UDP. Flows differ in the UDP source port (1024 + flow); the generator
/// sends them in turn. With [`Self::headers`], each flow has its own addresses and ports. Each frame
/// carries a sequence number, its send time, and a fixed pattern.
#[derive(Clone, Debug)]
#[must_use]
pub struct Traffic {
    sizes: FrameSizes,
    flows: u32,
    rate: Option<u64>,
    count: Option<u64>,
    core: Option<usize>,
    destination_mac: [u8; 6],
    source_mac: [u8; 6],
    source: Ipv4Addr,
    destination: Ipv4Addr,
    on_grant: bool,
    packets: Option<Arc<[PacketTemplate]>>,
    headers: Option<Arc<[PacketTemplate]>>,
    generator: GeneratorKind,
}

/// A packet of a [flood](Traffic::flood), or the [header](Traffic::headers) of a flow. For a protocol
/// without ports, the port fields are the first four bytes after the IPv4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketTemplate {
    /// IPv4 source.
    pub source: Ipv4Addr,
    /// IPv4 destination.
    pub destination: Ipv4Addr,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// IPv4 protocol.
    pub protocol: u8,
}

impl PacketTemplate {
    /// Returns the bytes of `struct packet` in bpf/generator.bpf.c, for a frame with these
    /// addresses.
    fn bytes(&self, replaced: [Ipv4Addr; 2]) -> impl Iterator<Item = u8> + use<> {
        let own = [self.source, self.destination];
        let mut sum: u32 =
            words(own).sum::<u32>() + words(replaced).map(|word| !word & 0xffff).sum::<u32>();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let addresses = own.map(|address| address.octets()).concat();
        let ports = [self.source_port.to_be_bytes(), self.destination_port.to_be_bytes()].concat();
        let last = [u16::from(self.protocol), sum as u16].map(u16::to_ne_bytes).concat();
        addresses.into_iter().chain(ports).chain(last)
    }
}

/// Returns the 16-bit words of addresses, in the byte order of a frame.
fn words(addresses: [Ipv4Addr; 2]) -> impl Iterator<Item = u32> {
    addresses.into_iter().flat_map(|address| {
        let [a, b, c, d] = address.octets();
        [[a, b], [c, d]].map(|word| u32::from(u16::from_ne_bytes(word)))
    })
}

impl Default for Traffic {
    fn default() -> Self {
        Self::new()
    }
}

impl Traffic {
    /// Creates traffic of 60-byte frames in one flow, as fast as possible, from gen0 (02:…:01,
    /// 10.77.0.1) to sink0 (02:…:04, 10.77.0.2).
    pub fn new() -> Self {
        Self {
            sizes: FrameSizes::new(&[MIN_SIZE]),
            flows: 1,
            rate: None,
            count: None,
            core: None,
            destination_mac: mac(4),
            source_mac: mac(1),
            source: GEN_ADDRESS,
            destination: SINK_ADDRESS,
            on_grant: false,
            packets: None,
            headers: None,
            generator: GeneratorKind::Live,
        }
    }

    /// Creates traffic as [`Self::new`], with frames of the lengths [`IMIX`].
    pub fn imix() -> Self {
        Self::new().sizes(&IMIX)
    }

    /// Sends these packets repeatedly as fast as possible, for measuring drops. They have no
    /// sequence number and send time, and a sink does not recognise them. Ignores `flows`, `count`,
    /// `rate` and `on_grant`.
    pub fn flood(mut self, packets: Arc<[PacketTemplate]>) -> Self {
        self.packets = Some(packets);
        self
    }

    /// Sets a flow for each of these headers, with its addresses and ports, instead of the flows of
    /// [`Self::flows`] and the addresses of [`Self::addresses`]. The protocol must be UDP (17).
    pub fn headers(mut self, headers: Arc<[PacketTemplate]>) -> Self {
        self.headers = Some(headers);
        self
    }

    /// Sets the frame length in bytes, without FCS: [`MIN_SIZE`] to MTU + 14.
    pub fn size(self, bytes: u16) -> Self {
        self.sizes(&[bytes])
    }

    /// Sets the frame lengths in bytes, without FCS, each from [`MIN_SIZE`] to MTU + 14. The
    /// generator repeats them in this order, without regard to flows. Between 1 and 16 lengths.
    pub fn sizes(mut self, pattern: &[u16]) -> Self {
        self.sizes = FrameSizes::new(pattern);
        self
    }

    /// Returns the mean frame length in bytes, without FCS.
    #[must_use]
    pub fn mean_size(&self) -> f64 {
        self.sizes.mean()
    }

    /// Returns the largest frame length in bytes, without FCS.
    #[must_use]
    pub fn largest_size(&self) -> u16 {
        self.sizes.largest()
    }

    /// Sets the number of flows, 1–[`MAX_FLOWS`].
    pub fn flows(mut self, flows: u32) -> Self {
        self.flows = flows;
        self
    }

    /// Sets the packets per second. The actual rate is up to 2 % lower.
    pub fn rate(mut self, pps: u64) -> Self {
        self.rate = Some(pps);
        self
    }

    /// Limits the number of frames, for [`Generator::finish`].
    pub fn count(mut self, packets: u64) -> Self {
        self.count = Some(packets);
        self
    }

    /// Sends only as many frames as [`Generator::grant`] allows, so that a slow receiver is never
    /// overrun.
    pub fn on_grant(mut self) -> Self {
        self.on_grant = true;
        self
    }

    /// Pins the generator to a core, which also runs the receiving veth's NAPI.
    pub fn core(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// Sets the destination MAC address, for a forwarder that checks it.
    pub fn destination_mac(mut self, mac: [u8; 6]) -> Self {
        self.destination_mac = mac;
        self
    }

    /// Sets the source MAC address.
    pub fn source_mac(mut self, mac: [u8; 6]) -> Self {
        self.source_mac = mac;
        self
    }

    /// Sets the IPv4 source and destination, for a forwarder that routes.
    pub fn addresses(mut self, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        self.source = source;
        self.destination = destination;
        self
    }

    /// Sets what sends the frames. pktgen cannot send a [flood](Self::flood), flows with
    /// [headers](Self::headers), frames [on grant](Self::on_grant), or frames of several lengths.
    pub fn generator(mut self, kind: GeneratorKind) -> Self {
        self.generator = kind;
        self
    }

    /// Returns the same traffic for pktgen.
    fn pktgen(&self) -> Result<Pktgen, Error> {
        for (is_set, feature) in [
            (self.packets.is_some(), "a flood"),
            (self.headers.is_some(), "flows with different headers"),
            (self.on_grant, "frames on grant"),
            (self.sizes.is_mixed(), "frames of several lengths"),
        ] {
            if is_set {
                return Err(Pktgen::unsupported(feature));
            }
        }
        let mut pktgen = Pktgen::new()
            .size(self.sizes.largest())
            .flows(self.flows)
            .cores(&[self.core.unwrap_or(0)])
            .destination_mac(self.destination_mac)
            .source_mac(self.source_mac)
            .addresses(self.source, self.destination);
        if let Some(rate) = self.rate {
            pktgen = pktgen.rate(rate);
        }
        if let Some(count) = self.count {
            pktgen = pktgen.count(count);
        }
        Ok(pktgen)
    }

    /// Returns one frame of this traffic. Its length is that of the frame with this sequence number
    /// in a run.
    #[must_use]
    pub fn frame(&self, flow: u32, sequence: u64) -> TestFrame {
        TestFrame {
            size: self.sizes.of(sequence & ((1 << RUN_SHIFT) - 1)),
            destination_mac: self.destination_mac,
            source_mac: self.source_mac,
            source: self.source,
            destination: self.destination,
            flow,
            sequence,
            time: 0,
        }
    }

    /// Starts sending out of `interface` in `namespace`.
    ///
    /// The peer must have NAPI on (GRO or an XDP program), or veth drops every frame.
    ///
    /// # Errors
    ///
    /// Not root, a value out of range, no such interface or core, or the error of libbpf.
    pub fn start(&self, namespace: &Namespace, interface: &str) -> Result<Generator, Error> {
        self.start_in(namespace.handle()?, interface, None)
    }

    /// Passes a [`flood`](Self::flood) directly to the XDP program of an interface, without a
    /// driver. This measures only the program and the handling of its verdicts.
    ///
    /// # Errors
    ///
    /// As [`Self::start`]. Also fails without a flood or an XDP program.
    pub fn start_into(&self, namespace: &Namespace, interface: &str) -> Result<Generator, Error> {
        if self.packets.is_none() {
            return Err(Error::Value {
                parameter: "traffic for an XDP program",
                value: "not a flood".into(),
                accepted: "set its packets with Traffic::flood".into(),
            });
        }
        let program = crate::veth::link(namespace, interface)?["xdp"]["prog"]["id"].as_u64();
        let program =
            program.and_then(|id| u32::try_from(id).ok()).ok_or_else(|| Error::Value {
                parameter: "interface for a flood",
                value: format!("{interface} has no XDP program"),
                accepted: "attach one first".into(),
            })?;
        self.start_in(namespace.handle()?, interface, Some(program))
    }

    /// Starts sending in the network namespace of this process.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_here(&self, interface: &str) -> Result<Generator, Error> {
        self.start_in(NamespaceHandle::current(), interface, None)
    }

    fn start_in(
        &self,
        handle: NamespaceHandle,
        interface: &str,
        receiver: Option<u32>,
    ) -> Result<Generator, Error> {
        require_root("the traffic generator")?;
        self.check()?;
        if self.generator == GeneratorKind::Pktgen {
            return Ok(Generator::new(self.pktgen()?.start_in(handle, interface)?));
        }
        // Registering again is harmless, because the handler does nothing.
        signal_hook::flag::register(WAKE_SIGNAL as i32, Arc::new(AtomicBool::new(false)))
            .map_err(Error::io(format!("installing a handler for {WAKE_SIGNAL}")))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, started) = mpsc::channel();
        let (traffic, interface) = (self.clone(), interface.to_owned());
        let sender = Sender { traffic, handle, interface, receiver, stop: Arc::clone(&stop) };
        let thread = thread::Builder::new()
            .name("lab-generator".into())
            .spawn(move || sender.run(&ready))
            .map_err(Error::io("starting the generator's thread"))?;
        match started.recv() {
            Ok([state, granted]) => {
                let (sizes, count, thread) = (self.sizes.clone(), self.count, Some(thread));
                Ok(Generator::new(LiveGenerator { state, granted, stop, sizes, count, thread }))
            }
            // The thread failed; joining it returns the error.
            Err(_) => match join(thread) {
                Err(error) => Err(error),
                Ok(()) => Err(Error::Panicked("the generator")),
            },
        }
    }

    fn check(&self) -> Result<(), Error> {
        let invalid =
            |parameter, value: String, accepted| Err(Error::Value { parameter, value, accepted });
        self.sizes.check()?;
        if self.packets.is_some() && self.sizes.is_mixed() {
            return invalid(
                "frame size of a flood",
                format!("{:?}", self.sizes.pattern()),
                "use one size".into(),
            );
        }
        if let Some(headers) = &self.headers
            && (self.packets.is_some()
                || headers.is_empty()
                || headers.iter().any(|header| header.protocol != UDP))
        {
            return invalid(
                "headers of flows",
                format!("{} headers", headers.len()),
                format!("use at least one, all with protocol {UDP}, and no flood"),
            );
        }
        if !(1..=MAX_FLOWS).contains(&self.flows) {
            return invalid(
                "number of flows",
                self.flows.to_string(),
                format!("use 1–{MAX_FLOWS}"),
            );
        }
        if self.rate.is_some_and(|rate| !(1..=1_000_000_000).contains(&rate)) {
            return invalid(
                "rate",
                self.rate.unwrap_or(0).to_string(),
                "use 1–1000000000 packets per second, or no rate to send as fast as possible"
                    .into(),
            );
        }
        Ok(())
    }

    /// Returns the bytes of `struct config` in bpf/generator.bpf.c.
    fn config(&self, ifindex: u32) -> Vec<u8> {
        let first_sequence = next_run() << RUN_SHIFT;
        let header = self.frame(0, first_sequence).bytes();
        let mut config = header[..40].to_vec();
        let interval = self.rate.map_or(0, |rate| (1_000_000_000u64 << FRACTION_BITS) / rate);
        let (shortest, longest) = BACKLOG_NANOSECONDS.into_inner();
        let backlog =
            (interval * BACKLOG_FRAMES).clamp(shortest << FRACTION_BITS, longest << FRACTION_BITS);
        for word in [interval, backlog, self.count.unwrap_or(0), first_sequence] {
            config.extend(word.to_ne_bytes());
        }
        config.extend(&header[40..44]);
        let templates = self.packets.as_ref().or(self.headers.as_ref());
        let flows = templates.map_or(self.flows, |templates| templates.len() as u32);
        let (sizes, has_headers) = (self.sizes.pattern(), u32::from(self.headers.is_some()));
        for word in [flows, ifindex, u32::from(self.on_grant), sizes.len() as u32, has_headers] {
            config.extend(word.to_ne_bytes());
        }
        for number in 0..MAX_SIZES as u64 {
            config.extend(self.length(number));
        }
        config
    }

    /// Returns the bytes of `struct length` in bpf/generator.bpf.c for one frame of a run.
    fn length(&self, number: u64) -> impl Iterator<Item = u8> + use<> {
        let frame = self.frame(0, number);
        let bytes = frame.bytes();
        let cut = u32::from(self.sizes.largest() - frame.size).to_ne_bytes();
        // IPv4 total length and checksum, UDP length, and unused bytes.
        let fields = [&bytes[16..18], &bytes[24..26], &bytes[38..40], &[0; 2]].concat();
        cut.into_iter().chain(fields)
    }
}

/// Returns a number for a run of the generator, by which a sink distinguishes the runs, also those
/// of different processes: the low 24 bits of the time in seconds or of the last number + 1,
/// whichever is higher. Wraps around after half a year.
fn next_run() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let next = |last: u64| now.max(last + 1);
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
    next(last.unwrap_or(0)) & 0xff_ffff
}

struct Sender {
    traffic: Traffic,
    handle: NamespaceHandle,
    interface: String,
    /// ID of the XDP program that gets the frames directly, see [`Traffic::start_into`].
    receiver: Option<u32>,
    stop: Arc<AtomicBool>,
}

impl Sender {
    fn run(self, ready: &mpsc::Sender<[MapHandle; 2]>) -> Result<(), Error> {
        // Any other signal would also end the system call, and a new call causes a gap of about 20
        // ms.
        let mut other_signals = SigSet::all();
        other_signals.remove(WAKE_SIGNAL);
        other_signals.thread_set_mask().map_err(Error::nix("blocking signals"))?;
        self.handle.enter()?;
        if let Some(core) = self.traffic.core {
            pin(core)?;
        }
        let ifindex = if_nametoindex(self.interface.as_str()).map_err(Error::nix(format!(
            "looking up the generator's interface {}",
            self.interface
        )))?;
        let replaced = [self.traffic.source, self.traffic.destination];
        let templates = self.traffic.packets.as_ref().or(self.traffic.headers.as_ref());
        let packets: Vec<u8> = templates
            .iter()
            .flat_map(|all| all.iter())
            .flat_map(|template| template.bytes(replaced))
            .collect();
        let object = bpf::load_generator(&self.traffic.config(ifindex), &packets)?;
        let name = match self.receiver {
            Some(_) => "inject",
            None if self.traffic.packets.is_none() => "generate",
            None => "flood",
        };
        if let Some(id) = self.receiver {
            let receiver_error = || {
                Error::bpf(
                    format!("passing frames to the XDP program of {}", self.interface),
                    "check with `ip link` that the program is still attached",
                )
            };
            let receiver = Program::fd_from_id(id).map_err(receiver_error())?;
            let key = 0u32.to_ne_bytes();
            let value = (receiver.as_raw_fd() as u32).to_ne_bytes();
            bpf::map_handle(&object, "receiver")?
                .update(&key, &value, MapFlags::ANY)
                .map_err(receiver_error())?;
        }
        let program = object
            .progs_mut()
            .find(|p| p.name() == name)
            .ok_or(Error::Object("the generator's program"))?;
        let mut frame = self.traffic.frame(0, 0);
        frame.size = self.traffic.sizes.largest();
        let frame = frame.bytes();
        // `struct xdp_md`: data (0), data_end, data_meta (0), ingress interface, two unused fields.
        let context = [0, frame.len() as u32, 0, ifindex, 0, 0].map(u32::to_ne_bytes).concat();
        if ready
            .send([
                bpf::map_handle(&object, ".data.state")?,
                bpf::map_handle(&object, ".data.grant")?,
            ])
            .is_err()
        {
            return Ok(());
        }
        while !self.stop.load(Ordering::Relaxed) {
            // A call sends until it is interrupted or has sent 2^31 - 1 frames.
            let mut context = context.clone();
            let input = ProgramInput {
                context_in: self.receiver.map(|_| &mut context[..]),
                data_in: Some(&frame),
                flags: LIVE_FRAMES,
                repeat: i32::MAX as u32,
                ..Default::default()
            };
            match program.test_run(input) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(cause) => {
                    return Err(Error::Bpf {
                        operation: format!(
                            "sending {}-byte frames out of {}",
                            frame.len(),
                            self.interface
                        ),
                        cause,
                        hint: "BPF_PROG_TEST_RUN with live frames needs Linux 5.18 or later",
                    });
                }
            }
        }
        Ok(())
    }
}

fn pin(core: usize) -> Result<(), Error> {
    let mut set = CpuSet::new();
    set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).map_err(Error::nix(
        format!("pinning the generator to core {core} (see `nproc`, cores count from 0)"),
    ))
}

fn join(thread: JoinHandle<Result<(), Error>>) -> Result<(), Error> {
    thread.join().unwrap_or(Err(Error::Panicked("the generator")))
}

/// A running generator of live frames. Dropping this value stops it.
#[derive(Debug)]
pub(crate) struct LiveGenerator {
    state: MapHandle,
    granted: MapHandle,
    stop: Arc<AtomicBool>,
    sizes: FrameSizes,
    count: Option<u64>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Source for LiveGenerator {
    fn sent(&self) -> Result<Counters, Error> {
        let [packets] = bpf::read(&self.state, "generator")?;
        Ok(Counters { packets, bytes: self.sizes.bytes(packets) })
    }

    fn grant(&self, packets: u64) -> Result<(), Error> {
        let hint = "the generator may have been stopped";
        let written =
            self.granted.update(&0_u32.to_ne_bytes(), &packets.to_ne_bytes(), MapFlags::ANY);
        written.map_err(Error::bpf("granting frames to the generator", hint))
    }

    fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn stop(mut self: Box<Self>) -> Result<SentTotals, Error> {
        self.stop_thread()?;
        let [packets, first, last] = bpf::read(&self.state, "generator")?;
        Ok(SentTotals {
            packets,
            bytes: self.sizes.bytes(packets),
            seconds: last.saturating_sub(first) as f64 / 1e9,
        })
    }

    fn finish(self: Box<Self>, deadline: Duration) -> Result<SentTotals, Error> {
        let Some(count) = self.count else {
            return Err(Error::Value {
                parameter: "traffic to be finished",
                value: "no count".into(),
                accepted: "set one with Traffic::count".into(),
            });
        };
        let start = Instant::now();
        while self.sent()?.packets < count && self.is_running() {
            if start.elapsed() > deadline {
                return Err(Error::Timeout {
                    event: format!("{count} frames to be sent"),
                    seconds: deadline.as_secs_f64(),
                    hint: "use fewer frames or a higher rate".into(),
                });
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.stop()
    }
}

impl LiveGenerator {
    fn stop_thread(&mut self) -> Result<(), Error> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // A signal just before the system call begins does not end it.
        while !thread.is_finished() {
            // Fails only if the thread has ended.
            let _ = pthread_kill(thread.as_pthread_t(), WAKE_SIGNAL);
            thread::sleep(Duration::from_millis(1));
        }
        join(thread)
    }
}

impl Drop for LiveGenerator {
    fn drop(&mut self) {
        if let Err(error) = self.stop_thread() {
            crate::print_error(&format!("xdpfwd-lab: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::veth::MAX_MTU;

    const HEADER: PacketTemplate = PacketTemplate {
        source: Ipv4Addr::new(192, 0, 2, 1),
        destination: Ipv4Addr::new(198, 51, 100, 2),
        source_port: 1,
        destination_port: 2,
        protocol: UDP,
    };

    #[test]
    fn traffic_config_has_size_of_c_struct() {
        assert_eq!(Traffic::new().config(1).len(), 5 * 8 + 4 * 8 + 6 * 4 + MAX_SIZES * 12);
    }

    #[test]
    fn next_run_returns_ascending_numbers() {
        let first = next_run();
        assert!(next_run() > first);
    }

    #[test]
    fn traffic_check_rejects_values_out_of_range() {
        for traffic in [
            Traffic::new().size(59),
            Traffic::new().size(MAX_MTU + 15),
            Traffic::new().sizes(&[]),
            Traffic::imix().flood(Arc::new([])),
            Traffic::new().flows(0),
            Traffic::new().flows(MAX_FLOWS + 1),
            Traffic::new().rate(0),
            Traffic::new().headers(Arc::new([])),
            Traffic::new().headers(Arc::new([PacketTemplate { protocol: 6, ..HEADER }])),
            Traffic::new().headers(Arc::new([HEADER])).flood(Arc::new([HEADER])),
        ] {
            assert!(matches!(traffic.check(), Err(Error::Value { .. })), "{traffic:?}");
        }
        assert!(Traffic::new().headers(Arc::new([HEADER])).check().is_ok());
        assert!(Traffic::new().size(MAX_MTU + 14).flows(MAX_FLOWS).rate(1).check().is_ok());
    }
}
