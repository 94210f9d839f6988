//! The test VM's cables (crates/vm), pairs of connected interfaces. xdpfwd uses the near end, after
//! which the cable is named; the test sends and counts packets at the far end. Near ends: v0 and v1
//! are virtio-net, i0 and i1 igb, m0 and m1 virtio-net with two queues, p0 virtio-net without DMA
//! (so without zero-copy). Every far end is virtio-net.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{LinkAddr, MsgFlags, sendto};
use xdpfwd_lab::{Namespace, Sink, SinkCounters, Traffic};
use xdpfwd_testkit::process::{run, stderr};

use super::wire::packet_socket;
use super::{Running, XDPFWD, cross_connect_between, ip_batch, until};

/// Maximum packets per second of a [`Sender`]; the emulated interfaces forward far more without
/// loss.
const RATE: u64 = 4_000;
/// Packets that each side sends: more than a ring has entries, so that rings wrap.
pub const PACKETS: u64 = 2_500;
/// Maximum number of packets in flight from one sender. This number fits into every ring, and into
/// every queue in QEMU. (With 200, Linux 6.12 loses packets before XDP.)
const MAX_IN_FLIGHT: u64 = 64;
/// Frames per worker; a ring has half as many entries. Pinning the memory of more frames takes
/// longer.
const FRAMES: u32 = 4096;
/// The source address of the sender with number n is this address + n.
const SENDERS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const RECEIVER: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// [`Cables::exchange`] ends if no packet arrives for this time.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(5);

pub fn kernel_has_zero_copy() -> bool {
    match std::env::var("XDPFWD_VM_ZERO_COPY").as_deref() {
        Ok("1") => true,
        Ok("0") => false,
        other => panic!(
            "XDPFWD_VM_ZERO_COPY is {other:?}: run this test with `make vmtest`, in the test VM"
        ),
    }
}

/// Returns the mode that `mode = "auto"` should select on these drivers.
pub fn best_mode() -> &'static str {
    if kernel_has_zero_copy() { "zero-copy" } else { "copy" }
}

pub fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}

/// Two cables. The near ends are in the forwarder's namespace, each far end in a separate one.
pub struct Cables {
    pub near_ends: [&'static str; 2],
    pub forwarder: Namespace,
    /// Declared before `far_namespaces`: a sink must drop before its namespace.
    pub sinks: [Sink; 2],
    pub far_namespaces: [Namespace; 2],
}

pub fn far_end(near_end: &str) -> String {
    format!("{near_end}far")
}

impl Cables {
    pub fn new(near_ends: [&'static str; 2]) -> Self {
        let forwarder = Namespace::create("fwd").unwrap();
        let far_namespaces = ["left", "right"].map(|name| Namespace::create(name).unwrap());
        for namespace in far_namespaces.iter().chain([&forwarder]) {
            // Only packets from the test may be on the wire.
            let disable_ipv6 = || {
                for name in ["all", "default"] {
                    std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1")
                        .unwrap();
                }
            };
            namespace.run(disable_ipv6).unwrap();
        }
        // Starting a process takes 0.1 s in the VM, so run `ip` once per namespace.
        let near_names = near_ends.map(ToOwned::to_owned);
        let far_names = near_ends.map(far_end);
        let mut moves = String::new();
        for (name, namespace) in near_names
            .iter()
            .map(|name| (name, &forwarder))
            .chain(far_names.iter().zip(&far_namespaces))
        {
            // The interfaces of the previous test return some time after its namespaces are
            // removed.
            until(&format!("{name} is back in the initial namespace"), || {
                std::path::Path::new("/sys/class/net").join(name).exists()
            });
            moves += &format!("link set {name} netns {}\n", namespace.name());
        }
        ip_batch(None, &moves);
        ip_batch(
            Some(&forwarder),
            &near_names.map(|name| format!("link set {name} up\n")).concat(),
        );
        for (name, namespace) in far_names.iter().zip(&far_namespaces) {
            // Promiscuous: the test frames' destination is not this interface's MAC address.
            ip_batch(Some(namespace), &format!("link set {name} up promisc on\n"));
        }
        let sinks = [0, 1].map(|side| {
            Sink::builder().check(true).attach(&far_namespaces[side], &far_names[side]).unwrap()
        });
        let cables = Self { near_ends, forwarder, sinks, far_namespaces };
        // igb takes seconds to detect the carrier.
        cables.wait_for_carriers();
        cables
    }

    pub fn wait_for_carriers(&self) {
        for interface in self.near_ends {
            let carrier = format!("/sys/class/net/{interface}/carrier");
            let mut command = self.forwarder.command("cat");
            command.arg(&carrier);
            until(&format!("{interface} has a carrier"), || {
                command.output().unwrap().stdout == b"1\n"
            });
        }
    }

    pub fn config(&self, queues: u16, engine: &str) -> String {
        cross_connect_between(self.near_ends, queues, engine)
            + &format!("[umem]\nframes = {FRAMES}\n")
    }

    /// Sets the number of queues of each near end, and spreads the flows over them.
    ///
    /// igb, m0 and m1 have two queues. If xdpfwd serves only one, the other would receive half of
    /// all flows. igb hashes only the IP addresses of a UDP packet unless configured to hash the
    /// ports too; its indirection table maps hashes to queues. m0 and m1 have no RSS: the host's
    /// tap device spreads the flows.
    pub fn set_queues(&self, queues: u16) {
        // `ethtool -L` fails if the indirection table was set and contains a queue that would be
        // removed. The default table spreads flows over all queues.
        let reset_table = || {
            for interface in self.near_ends.iter().filter(|name| name.starts_with('i')) {
                self.ethtool(&["-X", interface, "default"]);
            }
        };
        reset_table();
        for interface in self.near_ends.iter().filter(|name| name.starts_with(['i', 'm'])) {
            // ethtool fails if the number is already set.
            let _ = self.ethtool(&["-L", interface, "combined", &queues.to_string()]);
            let output = self.ethtool(&["-l", interface]);
            let current =
                output.rsplit("Combined:").next().and_then(|text| text.split_whitespace().next());
            assert_eq!(current, Some(&*queues.to_string()), "{interface}: {output}");
        }
        reset_table();
        for interface in self.near_ends.iter().filter(|name| name.starts_with('i')) {
            self.ethtool(&["-N", interface, "rx-flow-hash", "udp4", "sdfn"]);
            let output = self.ethtool(&["-x", interface]);
            let all_used = (0..queues).all(|queue| indirection_table(&output).contains(&queue));
            assert!(all_used, "a queue of {interface} is not in its indirection table:\n{output}");
        }
        self.wait_for_carriers();
    }

    fn ethtool(&self, arguments: &[&str]) -> String {
        let output = self.forwarder.command("ethtool").args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output)
    }

    pub fn start(&self, queues: u16, engine: &str) -> Running {
        self.set_queues(queues);
        let running =
            Running::try_start_in(&[XDPFWD], &self.forwarder, &self.config(queues, engine));
        let running = running.unwrap_or_else(|error| panic!("{error}"));
        // igb resets itself when a program is attached and when a socket is bound.
        self.wait_for_carriers();
        running
    }

    pub fn seen(&self) -> [SinkCounters; 2] {
        [0, 1].map(|side| self.sinks[side].seen().unwrap())
    }

    /// Sends many flows, so that RSS uses all queues, until `count` packets or [`Sender::stop`].
    pub fn send(&self, side: usize, size: u16, count: Option<u64>) -> Sender {
        Sender::start(self.frames(side, size), count)
    }

    fn frames(&self, side: usize, size: u16) -> FrameSender {
        FrameSender::new(&self.far_namespaces[side], &far_end(self.near_ends[side]), size)
    }

    fn near_end_mac(&self, side: usize) -> [u8; 6] {
        let file = format!("/sys/class/net/{}/address", self.near_ends[side]);
        let output = self.forwarder.command("cat").arg(&file).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let bytes: Vec<u8> =
            text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        bytes.try_into().unwrap()
    }

    /// Sends [`PACKETS`] from both sides at once, and returns how many arrived, by sending side.
    ///
    /// The packets are sent to the near end's MAC address: virtio-net enters promiscuous mode some
    /// time after xdpfwd has requested it, and until then drops packets to other addresses.
    pub fn exchange(&self, size: u16) -> [u64; 2] {
        self.exchange_expecting([true, true], size)
    }

    /// Like [`exchange`](Self::exchange), but does not wait for packets from a side whose
    /// `should_arrive` is false.
    pub fn exchange_expecting(&self, should_arrive: [bool; 2], size: u16) -> [u64; 2] {
        let before = self.seen();
        thread::scope(|scope| {
            for side in [0, 1] {
                let to_near_end =
                    |frames: FrameSender| frames.destination_mac(self.near_end_mac(side));
                if !should_arrive[side] {
                    let sender = Sender::start(to_near_end(self.frames(side, size)), Some(PACKETS));
                    scope.spawn(move || assert_eq!(sender.finish(), PACKETS));
                    continue;
                }
                let arrived_count = move || {
                    let seen = self.sinks[1 - side].seen().unwrap();
                    (seen.arrived - before[1 - side].arrived).packets
                };
                let sender = to_near_end(self.frames(side, size));
                scope.spawn(move || sender.send_as_packets_arrive(arrived_count));
            }
        });
        let after = self.wait_until_settled();
        [0, 1].map(|side| (after[1 - side].arrived - before[1 - side].arrived).packets)
    }

    /// Waits until no packet arrives for 300 ms.
    pub fn wait_until_settled(&self) -> [SinkCounters; 2] {
        let mut previous = self.seen();
        loop {
            thread::sleep(Duration::from_millis(300));
            let now = self.seen();
            if now == previous {
                return now;
            }
            previous = now;
        }
    }

    /// Returns the packets that each queue has received, from the driver's counters.
    pub fn packets_by_queue(&self, interface: &str, queues: u16) -> Vec<u64> {
        let output = self.forwarder.command("ethtool").args(["-S", interface]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let count = |queue| {
            // The names of the counter in igb and in virtio-net. In virtio-net, it counts only
            // packets that XDP processed.
            let names = [format!("rx_queue_{queue}_packets"), format!("rx{queue}_xdp_packets")];
            let line = text
                .lines()
                .filter_map(|line| line.trim().split_once(": "))
                .find(|(name, _)| names.iter().any(|candidate| candidate == name));
            line.unwrap_or_else(|| panic!("no {names:?} in {text}")).1.parse().unwrap()
        };
        (0..queues).map(count).collect()
    }

    /// Returns the forwarder's AF_XDP sockets by interface and queue, and whether `ss` reports
    /// zero-copy.
    pub fn zero_copy_sockets(&self) -> BTreeMap<(String, u16), bool> {
        let output =
            self.forwarder.command("ss").args(["--xdp", "-e", "-H", "-n"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let sockets = text.split_whitespace().collect::<Vec<_>>().join(" ");
        parse_ss(&sockets)
    }
}

/// Sends frames through a packet socket, because the lab's generator would occupy one of the VM's
/// two slow cores.
struct FrameSender {
    socket: OwnedFd,
    address: LinkAddr,
    traffic: Traffic,
    first_sequence_number: u64,
    sent: u64,
}

impl FrameSender {
    const FLOWS: u32 = 64;
    /// Difference between the UDP source ports of successive flows.
    ///
    /// The RSS hash is linear: with two queues, the parity of some bits of a flow's port selects its
    /// queue. A random key, which igb draws at boot, selects these bits. 64 successive ports differ in 6
    /// bits; one key in 64 selects none of them, so all flows have the same queue. With ports that
    /// are 1007 apart, each of the 16 bits varies.
    const PORT_STEP: u32 = 1007;

    fn new(namespace: &Namespace, interface: &str, size: u16) -> Self {
        /// The upper 24 bits of the next sender's sequence numbers: the sink expects each sender to
        /// use higher numbers than all earlier senders.
        static NEXT_SENDER: AtomicU64 = AtomicU64::new(1);
        let (socket, address) = packet_socket(namespace, interface, None);
        let sender = NEXT_SENDER.fetch_add(1, Ordering::Relaxed);
        // Each sender has flows of its own. If xdpfwd sends packets of a flow on a queue of m0, the
        // host's tap device delivers later packets of that flow to the same queue of m0. If both
        // senders used the flow, the packets of one sender would move the flow of the other sender
        // to another queue, where later packets could overtake earlier ones.
        let source = Ipv4Addr::from_bits(SENDERS.to_bits() + sender as u32);
        Self {
            socket,
            address,
            traffic: Traffic::new().size(size).flows(Self::FLOWS).addresses(source, RECEIVER),
            first_sequence_number: sender << 40,
            sent: 0,
        }
    }

    fn destination_mac(mut self, mac: [u8; 6]) -> Self {
        self.traffic = self.traffic.destination_mac(mac);
        self
    }

    /// Sends the next frame, or waits a millisecond if the queue is full or the link is down.
    fn send_one(&mut self) {
        let flow = (self.sent % u64::from(Self::FLOWS)) as u32 * Self::PORT_STEP;
        let bytes = self.traffic.frame(flow, self.first_sequence_number + self.sent).bytes();
        match sendto(self.socket.as_raw_fd(), &bytes, &self.address, MsgFlags::empty()) {
            Ok(_) => self.sent += 1,
            Err(Errno::ENOBUFS | Errno::ENETDOWN | Errno::EAGAIN) => {
                thread::sleep(Duration::from_millis(1))
            }
            Err(error) => panic!("sendto: {error}"),
        }
    }

    /// Sends [`PACKETS`], with at most [`MAX_IN_FLIGHT`] in flight, so that none is lost if the VM
    /// stalls. Returns when all have arrived, or [`ARRIVAL_TIMEOUT`] after the last arrival.
    fn send_as_packets_arrive(mut self, arrived_count: impl Fn() -> u64) {
        let (mut arrived, mut last_arrival) = (0, Instant::now());
        while arrived < PACKETS && last_arrival.elapsed() < ARRIVAL_TIMEOUT {
            while self.sent < PACKETS.min(arrived + MAX_IN_FLIGHT) {
                self.send_one();
            }
            thread::sleep(Duration::from_millis(1));
            let now = arrived_count();
            if now > arrived {
                (arrived, last_arrival) = (now, Instant::now());
            }
        }
    }
}

/// A thread that sends test frames at a rate of at most [`RATE`].
pub struct Sender {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Sender {
    fn start(mut frame_sender: FrameSender, count: Option<u64>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let should_stop = Arc::clone(&stop);
        let send = move || {
            while count.is_none_or(|count| frame_sender.sent < count)
                && !should_stop.load(Ordering::Relaxed)
            {
                frame_sender.send_one();
                if frame_sender.sent.is_multiple_of(8) {
                    thread::sleep(Duration::from_millis(8000 / RATE));
                }
            }
            frame_sender.sent
        };
        Self { stop, thread: thread::spawn(send) }
    }

    pub fn finish(self) -> u64 {
        self.thread.join().unwrap()
    }

    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }
}

/// Returns the queues in the output of `ethtool -x`, which has rows such as `8: 0 1 0 1`.
fn indirection_table(output: &str) -> Vec<u16> {
    let rows = output.lines().filter_map(|line| line.split_once(':'));
    let rows = rows.filter(|(index, _)| index.trim().parse::<u16>().is_ok());
    rows.flat_map(|(_, row)| row.split_whitespace().filter_map(|queue| queue.parse().ok()))
        .collect()
}

/// Parses `ss --xdp -e`: `… INTERFACE:qN … zc:0|1 …` for each bound socket.
fn parse_ss(text: &str) -> BTreeMap<(String, u16), bool> {
    let mut sockets = BTreeMap::new();
    let mut current = None;
    for word in text.split_whitespace() {
        if let Some((interface, queue)) = word.split_once(":q")
            && let Ok(queue) = queue.parse()
        {
            current = Some((interface.to_owned(), queue));
        }
        if let Some(zero_copy) = word.split("zc:").nth(1)
            && let Some(socket) = current.take()
        {
            sockets.insert(socket, zero_copy.starts_with('1'));
        }
    }
    sockets
}
