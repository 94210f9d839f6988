//! Two instances of xdpfwd back to back, with a wire between them that tests can capture and cut.
//!
//! ```text
//!  gen      fwd                       wire                      fwd                    sink
//!  gen0 ═══ fwd0 [xdpfwd 0] wan0 ═══ tap0 ─ bridge ─ tap1 ═══ wan1 [xdpfwd 1] fwd1 ═══ sink0
//! ```
//!
//! Packets from gen0 to sink0 go forth, packets from sink0 go back. In the bridge the kernel
//! forwards packets, so packet sockets see them; on a port of xdpfwd they would not.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    LinkAddr, MsgFlags, SockProtocol, bind, recvfrom, sendto, setsockopt, sockopt,
};
use nix::sys::time::TimeVal;
use serde_json::Value;
use xdpfwd_lab::{Chain, Namespace, Traffic};
use xdpfwd_testkit::Folder;
use xdpfwd_testkit::lab::sh;
use xdpfwd_testkit::process::run;
use xdpfwd_testkit::random_filter::SplitMix64;

use super::wire::{hex, packet_socket};
use super::{LONG, Running, XDPFWD, chain, until};

/// The hosts' addresses, used in inner packets.
pub const A: [&str; 2] = ["10.77.0.1", "fd77::1"];
pub const B: [&str; 2] = ["10.77.0.2", "fd77::2"];

/// The gateways' outer addresses. No interface has them: Ethernet addresses stay unchanged.
pub const OUTER_4: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
pub const OUTER_6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];

/// Returns key and salt of an SPI, in hexadecimal.
pub fn key(spi: u32, transform: &str) -> String {
    let bytes = if transform.contains("128") { 20 } else { 36 };
    let mut random = SplitMix64::new(spi.into());
    let key: Vec<u8> = std::iter::repeat_with(|| (random.draw() >> 32) as u8).take(bytes).collect();
    hex(&key)
}

/// Two hosts, the namespace of two instances of xdpfwd, and the wire between them.
pub struct Lab {
    pub chain: Chain,
    pub wire: Namespace,
    pub folder: Folder,
}

impl Lab {
    /// Creates hosts with addresses of both IP versions, and one queue.
    pub fn new() -> Self {
        Self::build(1, true)
    }

    /// Creates hosts that send nothing by themselves. The first xdpfwd has `queues` queues, the
    /// second has one.
    pub fn quiet(queues: u16) -> Self {
        Self::build(queues, false)
    }

    fn build(queues: u16, addresses: bool) -> Self {
        let chain = chain(Chain::builder().queues(queues).addresses(addresses).ipv6(addresses));
        let wire = Namespace::create("wire").unwrap();
        for namespace in [chain.fwd(), &wire] {
            // Only packets from the hosts may be on the wire.
            sh(
                namespace,
                "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1",
            );
        }
        sh(
            &wire,
            "ip link add bridge type bridge stp_state 0 mcast_snooping 0 && ip link set bridge up",
        );
        xdpfwd_lab::connect((chain.fwd(), "wan0", 5), (&wire, "tap0", 6), queues, 1500).unwrap();
        xdpfwd_lab::connect((chain.fwd(), "wan1", 7), (&wire, "tap1", 8), 1, 1500).unwrap();
        let lab = Self { chain, wire, folder: Folder::new() };
        lab.join();
        lab
    }

    /// Connects the two ends of the wire.
    pub fn join(&self) {
        sh(&self.wire, "for tap in tap0 tap1; do ip link set $tap master bridge; done");
        for tap in ["tap0", "tap1"] {
            until(&format!("the bridge forwards from {tap}"), || {
                sh(&self.wire, &format!("bridge link show dev {tap}")).contains("state forwarding")
            });
        }
    }

    /// Disconnects the two ends of the wire.
    pub fn cut(&self) {
        sh(&self.wire, "for tap in tap0 tap1; do ip link set $tap nomaster; done");
    }

    /// Returns the key file of an SPI.
    pub fn key_file(&self, spi: u32, transform: &str) -> PathBuf {
        let path = self.folder.join(format!("{spi:x}-{transform}.key"));
        if !path.exists() {
            self.folder
                .secret(path.file_name().unwrap().to_str().unwrap(), &(key(spi, transform) + "\n"));
        }
        path
    }

    /// Returns the state file of one side; creates it if missing.
    pub fn state_file(&self, side: usize) -> PathBuf {
        let path = self.folder.join(format!("{side}.state"));
        if !path.exists() {
            new_state(&path);
        }
        path
    }

    /// Removes the state files and the hosts' route caches: all sequence numbers restart.
    pub fn reset(&self) {
        for side in 0..2 {
            let _ = fs::remove_file(self.folder.join(format!("{side}.state")));
        }
        for host in [self.chain.gen_(), self.chain.sink()] {
            sh(host, "ip route flush cache; ip -6 route flush cache");
        }
    }

    pub fn start(&self, setup: &Setup) -> [Running; 2] {
        [0, 1].map(|side| self.start_one(setup, side))
    }

    #[track_caller]
    pub fn start_one(&self, setup: &Setup, side: usize) -> Running {
        Running::try_start_in(&[XDPFWD], self.chain.fwd(), &setup.config(self, side))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Returns a host: 0 sends forth, 1 sends back.
    pub fn host(&self, side: usize) -> &Namespace {
        [self.chain.gen_(), self.chain.sink()][side]
    }
}

#[track_caller]
pub fn new_state(path: &Path) {
    let mut command = Command::new(XDPFWD);
    command.args(["esp", "new-state"]).arg(path);
    run(&mut command);
}

/// The configuration of both sides. Each side encapsulates with the first SA of `sealing`, and
/// decapsulates with all SAs of `opening`.
#[derive(Clone, Debug)]
pub struct Setup {
    pub transform: &'static str,
    pub transport: bool,
    /// Outer addresses in tunnel mode.
    pub outer: [&'static str; 2],
    pub udp: bool,
    pub esn: bool,
    pub bypass: &'static str,
    /// Generations of the SAs in each direction, see [`spi`].
    pub sealing: Vec<u32>,
    pub opening: Vec<u32>,
    pub queues: u16,
    /// Frames per worker; fewer start faster.
    pub frames: u32,
    /// Additional lines of `[engine]`, the stages and their SAs, for each side.
    pub engine: [String; 2],
    pub seal: [String; 2],
    pub open: [String; 2],
    pub seal_sa: [String; 2],
    pub open_sa: [String; 2],
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            transform: "aes-128-gcm",
            transport: false,
            outer: OUTER_4,
            udp: false,
            esn: true,
            bypass: r#"["arp"]"#,
            sealing: vec![1],
            opening: vec![1],
            queues: 1,
            frames: 4096,
            engine: Default::default(),
            seal: Default::default(),
            open: Default::default(),
            seal_sa: Default::default(),
            open_sa: Default::default(),
        }
    }
}

/// Returns the SPI of a side's outbound SA, by generation.
pub fn spi(side: usize, generation: u32) -> u32 {
    [0x1000, 0x2000][side] + generation
}

impl Setup {
    /// Returns the configuration of one side.
    pub fn config(&self, lab: &Lab, side: usize) -> String {
        let state = lab.state_file(side);
        let Self { bypass, .. } = self;
        let stages = |name: &str, kind: &str, lines: &str| {
            format!(
                "[stage.{name}]\nkind = \"{kind}\"\nlab = true\nstate_file = {state:?}\nbypass = {bypass}\n{lines}\n"
            )
        };
        let outbound = self.sealing.iter().map(|&generation| {
            let (own, peer) = (self.outer[side], self.outer[1 - side]);
            let outer = if self.transport {
                String::new()
            } else {
                format!("source = {own:?}\ndestination = {peer:?}\n")
            };
            let udp = if self.udp { "udp_ports = [4500, 4500]\n" } else { "" };
            self.sa(lab, "out", spi(side, generation)) + &outer + udp + &self.seal_sa[side] + "\n"
        });
        let inbound = self.opening.iter().map(|&generation| {
            let outer = if self.transport {
                String::new()
            } else {
                format!("destination = {:?}\n", self.outer[side])
            };
            let udp = if self.udp { "udp_port = 4500\n" } else { "" };
            self.sa(lab, "in", spi(1 - side, generation))
                + &outer
                + udp
                + &self.open_sa[side]
                + "\n"
        });
        let [lan, wan] = [["fwd0", "wan0"], ["fwd1", "wan1"]][side];
        let queues = if side == 0 { self.queues } else { 1 };
        format!(
            "[umem]\nframes = {}\n[engine]\n{}\n\
             [[port]]\nname = \"lan\"\ninterface = \"{lan}\"\nqueues = {queues}\n\
             [[port]]\nname = \"wan\"\ninterface = \"{wan}\"\nqueues = {queues}\n\
             [[path]]\nfrom = \"lan\"\nto = \"wan\"\nstages = [\"out\"]\n\
             [[path]]\nfrom = \"wan\"\nto = \"lan\"\nstages = [\"in\"]\n{}{}{}{}",
            self.frames,
            self.engine[side],
            stages("out", "esp-seal", &self.seal[side]),
            outbound.collect::<String>(),
            stages("in", "esp-open", &self.open[side]),
            inbound.collect::<String>(),
        )
    }

    fn sa(&self, lab: &Lab, stage: &str, spi: u32) -> String {
        let mode = if self.transport { "transport" } else { "tunnel" };
        let Self { transform, esn, .. } = self;
        let key = lab.key_file(spi, transform);
        format!(
            "[[stage.{stage}.sa]]\nspi = {spi}\ntransform = {transform:?}\nkey_file = {key:?}\nmode = {mode:?}\nesn = {esn}\n"
        )
    }
}

/// Returns the latest report of a running xdpfwd.
pub fn latest(running: &Running) -> Value {
    let line = running.forwarder.last_line(|line| line.starts_with('{')).expect("a report");
    serde_json::from_str(&line).unwrap()
}

/// Returns the packets that a running xdpfwd received on an interface.
pub fn received(running: &Running, interface: &str) -> u64 {
    let report = latest(running);
    let port = report["ports"]
        .as_array()
        .unwrap()
        .iter()
        .find(|port| port["interface"] == interface)
        .unwrap();
    port["rx_packets"].as_u64().unwrap()
}

/// Returns the dropped packets by reason.
pub fn drops(report: &Value) -> BTreeMap<String, u64> {
    let all = report["drops"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(reason, count)| (reason.clone(), count.as_u64().unwrap()));
    all.filter(|(_, count)| *count > 0).collect()
}

/// A packet capture on an interface.
pub struct Tap {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    thread: JoinHandle<()>,
}

impl Tap {
    /// Captures every received and sent frame.
    pub fn on(namespace: &Namespace, interface: &str) -> Self {
        let frames: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let all = Arc::clone(&frames);
        Self::start(namespace, interface, frames, move |frame, _| {
            all.lock().unwrap().push(frame.to_vec())
        })
    }

    /// Calls a function for every frame, with whether it was sent.
    pub fn with(
        namespace: &Namespace,
        interface: &str,
        visit: impl FnMut(&[u8], bool) + Send + 'static,
    ) -> Self {
        Self::start(namespace, interface, Arc::default(), visit)
    }

    fn start(
        namespace: &Namespace,
        interface: &str,
        frames: Arc<Mutex<Vec<Vec<u8>>>>,
        mut visit: impl FnMut(&[u8], bool) + Send + 'static,
    ) -> Self {
        let (socket, address) = packet_socket(namespace, interface, Some(SockProtocol::EthAll));
        setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20)).unwrap();
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000)).unwrap();
        bind(socket.as_raw_fd(), &address).unwrap();
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let listen = move || {
            const OUTGOING: u8 = 4;
            let mut buffer = vec![0; 65536];
            loop {
                match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
                    Ok((length, from)) => {
                        let from = from.unwrap();
                        if from.ifindex() == address.ifindex() {
                            visit(&buffer[..length], from.pkttype() == OUTGOING);
                            counted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    // Everything received before the stop has been read.
                    Err(Errno::EAGAIN) if stopped.load(Ordering::Relaxed) => return,
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    // The test has ended and removed the interface.
                    Err(Errno::ENETDOWN) => return,
                    Err(error) => panic!("recvfrom: {error}"),
                }
            }
        };
        Self { stop, count, frames, thread: thread::spawn(listen) }
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until the capture has `count` frames.
    #[track_caller]
    pub fn wait_for(&self, count: u64) {
        until(&format!("{count} frames are captured"), || self.count() >= count);
    }

    /// Returns the captured frames in order.
    pub fn stop(self) -> Vec<Vec<u8>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        std::mem::take(&mut *self.frames.lock().unwrap())
    }
}

/// Sends frames from an interface, a few at a time, so that no queue overflows.
pub fn inject<'a>(
    namespace: &Namespace,
    interface: &str,
    frames: impl IntoIterator<Item = &'a Vec<u8>>,
) {
    let (socket, address) = packet_socket(namespace, interface, None);
    for (number, frame) in frames.into_iter().enumerate() {
        send(&socket, &address, frame);
        if number % 32 == 31 {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn send(socket: &OwnedFd, address: &LinkAddr, frame: &[u8]) {
    while let Err(error) = sendto(socket.as_raw_fd(), frame, address, MsgFlags::empty()) {
        match error {
            Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR => {
                thread::sleep(Duration::from_millis(1))
            }
            error => panic!("sendto: {error}"),
        }
    }
}

/// Sends the generator's frames from a packet socket, which leaves CPU time to other tasks.
pub struct Sender {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Sender {
    /// Sends `rate` packets per second of some flows, until it is stopped or `count` are sent.
    /// `first` is the number of the first packet; the sink expects ascending numbers.
    pub fn start(
        namespace: &Namespace,
        interface: &str,
        rate: u64,
        first: u64,
        count: Option<u64>,
    ) -> Self {
        Self::of(&Traffic::new().size(100), namespace, interface, rate, first, count)
    }

    pub fn of(
        traffic: &Traffic,
        namespace: &Namespace,
        interface: &str,
        rate: u64,
        first: u64,
        count: Option<u64>,
    ) -> Self {
        const FLOWS: u64 = 16;
        let (socket, address) = packet_socket(namespace, interface, None);
        let (stop, traffic) =
            (Arc::new(AtomicBool::new(false)), traffic.clone().flows(FLOWS as u32));
        let stopped = Arc::clone(&stop);
        let work = move || {
            let start = Instant::now();
            let mut sent = 0;
            // After a long delay, do not send the whole backlog at once.
            let mut due = 0;
            while count.is_none_or(|count| sent < count) && !stopped.load(Ordering::Relaxed) {
                let now = (start.elapsed().as_micros() as u64).saturating_mul(rate) / 1_000_000;
                due = now.min(due + 64).max(due);
                let behind =
                    due.saturating_sub(sent).min(count.map_or(u64::MAX, |count| count - sent));
                for _ in 0..behind {
                    send(
                        &socket,
                        &address,
                        &traffic.frame((sent % FLOWS) as u32, first + sent).bytes(),
                    );
                    sent += 1;
                }
                thread::sleep(Duration::from_millis(3));
            }
            sent
        };
        Self { stop, thread: thread::spawn(work) }
    }

    /// Waits until all packets are sent, and returns their number.
    pub fn finish(self) -> u64 {
        self.thread.join().unwrap()
    }

    /// Stops sending, and returns the number of sent packets.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }
}

/// The type of a frame on the wire, from a parser independent of xdpfwd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Arp,
    /// Unencrypted Neighbor Discovery.
    Nd,
    Esp(Esp),
    Other,
}

/// The unencrypted fields of ESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Esp {
    /// Start and end of ESP in the frame.
    pub at: usize,
    pub end: usize,
    pub spi: u32,
    pub sequence: u32,
    pub iv: u64,
    pub udp: bool,
    /// The outer IP version.
    pub version: u8,
}

impl Esp {
    /// Returns the IV range; the IV is `epoch (32 bits) | range (6) | counter (26)`.
    pub fn iv_range(&self) -> u64 {
        self.iv >> 26 & 63
    }
}

impl Kind {
    pub fn of(frame: &[u8]) -> Self {
        let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let (version, mut protocol, mut at, end) = match word(12) {
            0x0806 => return Self::Arp,
            0x0800 => {
                // A fragment contains no complete ESP packet.
                if word(20) & 0x3fff != 0 {
                    return Self::Other;
                }
                (4, frame[23], 14 + 4 * usize::from(frame[14] & 15), 14 + usize::from(word(16)))
            }
            0x86dd => (6, frame[20], 14 + 40, 14 + 40 + usize::from(word(18))),
            _ => return Self::Other,
        };
        // Skip the extension headers before ESP (RFC 4303, 3.1.1).
        while version == 6 && [0, 43, 60].contains(&protocol) {
            protocol = frame[at];
            at += 8 * (1 + usize::from(frame[at + 1]));
        }
        let udp = protocol == 17 && word(at) == 4500 && word(at + 2) == 4500;
        if udp {
            let checksum = word(at + 6);
            assert_eq!(
                checksum == 0,
                version == 4,
                "UDP checksum (RFC 3948, 2.1; RFC 8200, 8.1): {}",
                hex(frame)
            );
            assert_eq!(usize::from(word(at + 4)), end - at, "UDP length: {}", hex(frame));
            at += 8;
        } else if version == 6 && protocol == 58 && [133, 134, 135, 136, 137].contains(&frame[at]) {
            return Self::Nd;
        } else if protocol != 50 {
            return Self::Other;
        }
        assert!(end <= frame.len() && end >= at + 16 + 16, "too short for ESP: {}", hex(frame));
        let long = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        let iv = u64::from(long(at + 8)) << 32 | u64::from(long(at + 12));
        Self::Esp(Esp { at, end, spi: long(at), sequence: long(at + 4), iv, udp, version })
    }

    #[track_caller]
    pub fn esp(frame: &[u8]) -> Esp {
        match Self::of(frame) {
            Self::Esp(esp) => esp,
            other => panic!("not ESP but {other:?}: {}", hex(frame)),
        }
    }
}

/// Counts frames by type.
pub fn kinds(frames: &[Vec<u8>]) -> BTreeMap<&'static str, usize> {
    let mut kinds = BTreeMap::new();
    for frame in frames {
        let name = match Kind::of(frame) {
            Kind::Arp => "arp",
            Kind::Nd => "nd",
            Kind::Esp(esp) if esp.udp => "esp in udp",
            Kind::Esp(_) => "esp",
            Kind::Other => "other",
        };
        *kinds.entry(name).or_default() += 1;
    }
    kinds
}

/// Writes frames to a pcap file for tshark.
pub fn pcap(path: &Path, frames: &[Vec<u8>]) {
    let mut bytes = vec![];
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65536, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for (number, frame) in frames.iter().enumerate() {
        let length = frame.len() as u32;
        for word in [1, number as u32, length, length] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    fs::write(path, bytes).unwrap();
}

/// A running `iperf3 --server`, killed on drop.
pub struct Server(Child);

impl Server {
    pub fn start(lab: &Lab) -> Self {
        let mut server = lab.chain.sink().command("iperf3");
        server.args(["--server", "--port", "5301"]).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self(
            server
                .spawn()
                .unwrap_or_else(|error| panic!("iperf3: {error} (`make test` installs it)")),
        );
        until("iperf3 --server listens", || sh(lab.chain.sink(), "ss -Htln").contains(":5301"));
        server
    }

    /// Runs `iperf3 --client` and returns the end of its JSON output.
    #[track_caller]
    pub fn run_client(&self, lab: &Lab, address: &str, arguments: &[&str]) -> Value {
        let mut client = lab.chain.gen_().command("iperf3");
        client.args(["--client", address, "--port", "5301", "--json"]).args(arguments);
        let deadline = Instant::now() + LONG;
        loop {
            let output = client.output().unwrap();
            let mut json: Value = serde_json::from_slice(&output.stdout).unwrap();
            let error = json["error"].as_str().unwrap_or_default();
            if error.is_empty() {
                return json["end"].take();
            }
            // The server may not have finished the previous run.
            let busy = error.contains("server is busy") || error.contains("reset by peer");
            assert!(busy && Instant::now() < deadline, "{address} {arguments:?}: {error}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // `ip netns exec` executes iperf3 in its own process, so the pid is that of iperf3.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
