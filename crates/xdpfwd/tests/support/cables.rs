//! The test VM's cables (crates/vm): v0, v1 virtio-net; i0, i1 igb; m0, m1 virtio-net with two
//! queues; p0 virtio-net without a DMA device. The far end of each is virtio-net.

use std::collections::BTreeMap;
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
use super::{Running, XDPFWD, cross_connect_of, ip_batch, until};

/// Maximum packets per second: a small part of what emulation forwards without loss.
pub const RATE: u64 = 4_000;
/// Packets per exchange: more than a ring's entries, so that rings wrap.
pub const PACKETS: u64 = 2_500;
/// Packets in flight that fit into every ring and every queue in QEMU, whatever the delay. (Of 200,
/// Linux 6.12 loses some before XDP.)
const MAX_IN_FLIGHT: u64 = 64;
/// Frames per worker: rings have half as many entries. Fewer are pinned faster.
const FRAMES: u32 = 4096;

/// Returns whether this kernel's drivers support zero-copy, as the VM reports.
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

/// Two of the VM's cables: their near ends share the forwarder's namespace; each far end has its
/// own.
pub struct Cables {
    pub near: [&'static str; 2],
    pub forwarder: Namespace,
    /// Declared before their namespaces, so that they drop first.
    pub sinks: [Sink; 2],
    pub far: [Namespace; 2],
}

pub fn far_end(near: &str) -> String {
    format!("{near}far")
}

impl Cables {
    pub fn new(near: [&'static str; 2]) -> Self {
        let forwarder = Namespace::create("fwd").unwrap();
        let far = [Namespace::create("left").unwrap(), Namespace::create("right").unwrap()];
        for namespace in far.iter().chain([&forwarder]) {
            // Only packets from the test may be on the wire.
            let quiet = || {
                for of in ["all", "default"] {
                    std::fs::write(format!("/proc/sys/net/ipv6/conf/{of}/disable_ipv6"), "1")
                        .unwrap();
                }
            };
            namespace.run(quiet).unwrap();
        }
        // Starting a program takes 0.1 s here, so few are started.
        let (near_ends, far_ends) = (near.map(ToOwned::to_owned), near.map(far_end));
        let mut moves = String::new();
        for (name, namespace) in
            near_ends.iter().map(|name| (name, &forwarder)).chain(far_ends.iter().zip(&far))
        {
            // After a test's namespaces are removed, its interfaces return with a delay.
            until(&format!("{name} is back in the initial namespace"), || {
                std::path::Path::new("/sys/class/net").join(name).exists()
            });
            moves += &format!("link set {name} netns {}\n", namespace.name());
        }
        ip_batch(None, &moves);
        ip_batch(Some(&forwarder), &near_ends.map(|name| format!("link set {name} up\n")).concat());
        for (name, namespace) in far_ends.iter().zip(&far) {
            // The frames are addressed to another MAC address.
            ip_batch(Some(namespace), &format!("link set {name} up promisc on\n"));
        }
        let sinks = [0, 1].map(|side| {
            Sink::builder().check(true).attach(&far[side], &far_end(near[side])).unwrap()
        });
        let cables = Self { near, forwarder, sinks, far };
        // igb takes seconds to detect the carrier.
        cables.wait_for_carriers();
        cables
    }

    pub fn wait_for_carriers(&self) {
        for near in self.near {
            let carrier = format!("/sys/class/net/{near}/carrier");
            let mut command = self.forwarder.command("cat");
            command.arg(&carrier);
            until(&format!("{near} has a carrier"), || command.output().unwrap().stdout == b"1\n");
        }
    }

    pub fn config(&self, queues: u16, engine: &str) -> String {
        cross_connect_of(self.near, queues, engine) + &format!("[umem]\nframes = {FRAMES}\n")
    }

    /// Sets how many queues receive, and how flows are spread over them.
    ///
    /// igb, m0 and m1 have two queues. RSS would send half of all flows to a queue that is not
    /// served. igb hashes only the addresses of a UDP packet unless configured to hash the ports,
    /// and takes the queue of a hash from the indirection table. m0 and m1 have no RSS: the host's
    /// tap spreads flows by a hash of its own.
    pub fn set_queues(&self, queues: u16) {
        // ethtool rejects a number of queues if an indirection table set by a user contains a queue
        // beyond it. The default table spreads flows over all queues.
        let reset_table = || {
            for near in self.near.iter().filter(|near| near.starts_with('i')) {
                self.ethtool(&["-X", near, "default"]);
            }
        };
        reset_table();
        for near in self.near.iter().filter(|near| near.starts_with(['i', 'm'])) {
            // ethtool reports an error if the number is already set, so check only the resulting
            // number.
            let _ = self.ethtool(&["-L", near, "combined", &queues.to_string()]);
            let output = self.ethtool(&["-l", near]);
            let current =
                output.rsplit("Combined:").next().and_then(|rest| rest.split_whitespace().next());
            assert_eq!(current, Some(&*queues.to_string()), "{near}: {output}");
        }
        reset_table();
        for near in self.near.iter().filter(|near| near.starts_with('i')) {
            self.ethtool(&["-N", near, "rx-flow-hash", "udp4", "sdfn"]);
            let output = self.ethtool(&["-x", near]);
            let used = (0..queues).all(|queue| indirection_table(&output).contains(&queue));
            assert!(used, "a queue of {near} is not in its indirection table:\n{output}");
        }
        self.wait_for_carriers();
    }

    /// Runs ethtool in the forwarder's namespace and returns its stdout and stderr.
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

    /// Sends from one side, with many flows for RSS to spread.
    pub fn send(&self, side: usize, size: u16, count: Option<u64>) -> Sender {
        Sender::start(&self.far[side], &far_end(self.near[side]), size, count)
    }

    /// Sends [`PACKETS`] from both sides at once, expects them to arrive, and returns how many
    /// arrived on each side.
    pub fn exchange(&self, size: u16) -> [u64; 2] {
        self.exchange_by([true, true], size)
    }

    /// Like `exchange`; the packets of a side whose `arrive` is false are dropped on the way.
    pub fn exchange_by(&self, arrive: [bool; 2], size: u16) -> [u64; 2] {
        let before = self.seen();
        thread::scope(|scope| {
            for side in [0, 1] {
                if !arrive[side] {
                    let sender = self.send(side, size, Some(PACKETS));
                    scope.spawn(move || assert_eq!(sender.finish(), PACKETS));
                    continue;
                }
                let arrived = move || {
                    let seen = self.sinks[1 - side].seen().unwrap();
                    (seen.arrived - before[1 - side].arrived).packets
                };
                let frames = Frames::new(&self.far[side], &far_end(self.near[side]), size);
                scope.spawn(move || frames.send_in_step(arrived));
            }
        });
        let after = self.wait_until_settled();
        [0, 1].map(|side| (after[1 - side].arrived - before[1 - side].arrived).packets)
    }

    /// Returns the received packets once no more arrive.
    pub fn wait_until_settled(&self) -> [SinkCounters; 2] {
        let mut last = self.seen();
        loop {
            thread::sleep(Duration::from_millis(300));
            let now = self.seen();
            if now == last {
                return now;
            }
            last = now;
        }
    }

    /// Returns the packets received by each queue of a near end, from the driver's counters.
    pub fn packets_by_queue(&self, near: &str, queues: u16) -> Vec<u64> {
        let output = self.forwarder.command("ethtool").args(["-S", near]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let count = |queue| {
            // The names in igb, and in virtio-net for packets processed by XDP.
            let names = [format!("rx_queue_{queue}_packets"), format!("rx{queue}_xdp_packets")];
            let line = text
                .lines()
                .filter_map(|line| line.trim().split_once(": "))
                .find(|(name, _)| names.iter().any(|known| known == name));
            line.unwrap_or_else(|| panic!("no {names:?} in {text}")).1.parse().unwrap()
        };
        (0..queues).map(count).collect()
    }

    /// Returns whether `ss` reports zero-copy for each socket of the forwarder, by interface and
    /// queue.
    pub fn zero_copy_sockets(&self) -> BTreeMap<(String, u16), bool> {
        let output =
            self.forwarder.command("ss").args(["--xdp", "-e", "-H", "-n"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let sockets = text.split_whitespace().collect::<Vec<_>>().join(" ");
        parse_ss(&sockets)
    }
}

/// The lab's frames, sent through a packet socket. (The lab's own generator occupies a core within
/// a system call, and the VM has only two slow cores.)
struct Frames {
    socket: OwnedFd,
    address: LinkAddr,
    traffic: Traffic,
    first: u64,
    sent: u64,
}

impl Frames {
    const FLOWS: u32 = 64;
    /// RSS hashes are linear: the queue of a flow is the parity of some of the bits in which flows
    /// differ. A random key, which igb draws at boot, selects them. Ports in a row differ in 6
    /// bits, and one key in 64 selects none of these: all flows in one queue. Ports that are 1007
    /// apart differ in all 16 bits.
    const STEP: u32 = 1007;

    fn new(namespace: &Namespace, interface: &str, size: u16) -> Self {
        /// Gives each sender higher numbers than all earlier ones: the sink expects ascending
        /// numbers.
        static SENDERS: AtomicU64 = AtomicU64::new(1);
        let (socket, address) = packet_socket(namespace, interface, None);
        let first = SENDERS.fetch_add(1, Ordering::Relaxed) << 40;
        Self {
            socket,
            address,
            traffic: Traffic::new().size(size).flows(Self::FLOWS),
            first,
            sent: 0,
        }
    }

    fn send_one(&mut self) {
        let flow = (self.sent % u64::from(Self::FLOWS)) as u32 * Self::STEP;
        let bytes = self.traffic.frame(flow, self.first + self.sent).bytes();
        match sendto(self.socket.as_raw_fd(), &bytes, &self.address, MsgFlags::empty()) {
            Ok(_) => self.sent += 1,
            // The queue is full, or the link is down.
            Err(Errno::ENOBUFS | Errno::ENETDOWN | Errno::EAGAIN) => {
                thread::sleep(Duration::from_millis(1))
            }
            Err(error) => panic!("sendto: {error}"),
        }
    }

    /// Sends [`PACKETS`], with no more in flight than fit into every ring, so that none is lost if
    /// the VM stalls. Returns when all have arrived, or when none has arrived for a long time.
    fn send_in_step(mut self, arrived: impl Fn() -> u64) {
        const TIMEOUT: Duration = Duration::from_secs(5);
        let (mut seen, mut last_arrival) = (0, Instant::now());
        while seen < PACKETS && last_arrival.elapsed() < TIMEOUT {
            while self.sent < PACKETS.min(seen + MAX_IN_FLIGHT) {
                self.send_one();
            }
            thread::sleep(Duration::from_millis(1));
            let now = arrived();
            if now > seen {
                (seen, last_arrival) = (now, Instant::now());
            }
        }
    }
}

/// A background sender of frames at a fixed rate.
pub struct Sender {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Sender {
    fn start(namespace: &Namespace, interface: &str, size: u16, count: Option<u64>) -> Self {
        let mut frames = Frames::new(namespace, interface, size);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let send = move || {
            while count.is_none_or(|count| frames.sent < count) && !stopped.load(Ordering::Relaxed)
            {
                frames.send_one();
                if frames.sent.is_multiple_of(8) {
                    thread::sleep(Duration::from_millis(8000 / RATE));
                }
            }
            frames.sent
        };
        Self { stop, thread: thread::spawn(send) }
    }

    /// Waits until all frames are sent, and returns their number.
    pub fn finish(self) -> u64 {
        self.thread.join().unwrap()
    }

    /// Stops sending, and returns the number of sent frames.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }
}

/// Parses the queues in the output of `ethtool -x`: lines such as `0: 0 1 0 1`.
fn indirection_table(output: &str) -> Vec<u16> {
    let rows = output.lines().filter_map(|line| line.split_once(':'));
    let rows = rows.filter(|(first, _)| first.trim().parse::<u16>().is_ok());
    rows.flat_map(|(_, row)| row.split_whitespace().filter_map(|queue| queue.parse().ok()))
        .collect()
}

/// Parses the output of `ss --xdp -e`: `… IFACE:qN … zc:0|1 …` for each bound socket.
fn parse_ss(text: &str) -> BTreeMap<(String, u16), bool> {
    let mut sockets = BTreeMap::new();
    let mut last = None;
    for word in text.split_whitespace() {
        if let Some((interface, queue)) = word.split_once(":q")
            && let Ok(queue) = queue.parse()
        {
            last = Some((interface.to_owned(), queue));
        }
        if let Some(zero_copy) = word.split("zc:").nth(1)
            && let Some(socket) = last.take()
        {
            sockets.insert(socket, zero_copy.starts_with('1'));
        }
    }
    sockets
}
