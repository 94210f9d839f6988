//! Tests the port with rings on the kernel's rings. Needs root.
//!
//! The lab connects gen0 to fwd0; the port under test is on fwd0, and a port with `recvmmsg` and
//! `sendmmsg` on gen0.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use xdpfwd_lab::{Chain, Namespace};
use xdpfwd_packet::{MmapPort, MmsgPort, PacketSocket, Qdisc, SocketConfig};
use xdpfwd_xsk::{Batch, EgressQueue, HugePages, Pool, Port, Umem, UmemConfig, WaitSet};

/// Maximum wait for an event, far longer than it takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The slots of a transmit ring.
const SLOTS: usize = 512;

/// A port with its own memory and egress queue.
struct End {
    port: Box<dyn Port>,
    umem: Umem,
    pool: Pool,
    queue: EgressQueue,
    batch: Batch,
}

impl End {
    /// Creates a port with rings if the configuration has any.
    fn new(namespace: &Namespace, interface: &'static str, config: SocketConfig) -> Self {
        let open = move || {
            let index = if_nametoindex(interface).unwrap();
            PacketSocket::open_queues(index, 1, &config).unwrap().remove(0)
        };
        let socket = namespace.run(open).unwrap();
        let umem_config =
            UmemConfig { frames: 4096, huge_pages: HugePages::Off, ..UmemConfig::default() };
        let (umem, pool) = Umem::new(&umem_config).unwrap();
        let port: Box<dyn Port> = match config.rings {
            Some(_) => Box::new(MmapPort::new(socket.clone(), &umem).unwrap()),
            None => Box::new(MmsgPort::new(socket.clone(), &umem).unwrap()),
        };
        socket.start().unwrap();
        let queue = EgressQueue::new(&umem, 2048);
        Self { port, umem, pool, queue, batch: Batch::new() }
    }

    fn push(&mut self, packet: &[u8]) {
        let mut frame = self.pool.alloc().unwrap();
        // A long packet begins in the headroom, as after a stage that adds a header.
        let room = frame.tailroom().min(packet.len());
        frame.append(room).unwrap();
        frame.prepend(packet.len() - room).unwrap();
        frame.copy_from_slice(packet);
        self.queue.push(frame).unwrap();
    }

    /// Sends packets. Returns only when the kernel has taken all.
    fn send(&mut self, packets: &[Vec<u8>]) {
        packets.iter().for_each(|packet| self.push(packet));
        let start = Instant::now();
        while !self.queue.is_empty() {
            self.port.transmit(&mut self.queue);
            self.port.reclaim(&mut self.pool);
            assert!(start.elapsed() < TIMEOUT, "{} packets are not sent", self.queue.len());
        }
    }

    /// Receives packets until there are `count`.
    fn receive(&mut self, count: usize) -> Vec<Vec<u8>> {
        let start = Instant::now();
        let mut packets = Vec::new();
        while packets.len() < count {
            packets.extend(self.receive_now());
            assert!(start.elapsed() < TIMEOUT, "{} of {count} packets arrived", packets.len());
        }
        packets
    }

    fn receive_now(&mut self) -> Vec<Vec<u8>> {
        self.port.receive(&mut self.batch, &mut self.pool);
        let frames: Vec<_> = self.batch.slots_mut().iter_mut().filter_map(Option::take).collect();
        self.batch.clear_taken();
        let packets = frames.iter().map(|frame| frame.to_vec()).collect();
        frames.into_iter().for_each(|frame| self.pool.free(frame).unwrap());
        packets
    }

    /// Asserts that no frame is lost.
    fn close(mut self) {
        while let Some(frame) = self.queue.pop() {
            self.pool.free(frame).unwrap();
        }
        assert_eq!(self.port.close(&mut self.pool).frames(), 0);
        assert_eq!(self.pool.len() as u32, self.umem.frames());
    }
}

const RINGS: SocketConfig = SocketConfig { qdisc: Qdisc::Bypass, rings: Some(2048) };

fn lab() -> Chain {
    let chain = Chain::builder().build();
    chain.unwrap_or_else(|error| panic!("{error}\n(tests named root_* need root: `make test`)"))
}

/// Returns a port with this configuration on fwd0, and one without rings on gen0.
fn ends(lab: &Chain, config: SocketConfig) -> (End, End) {
    let plain = SocketConfig::default();
    (End::new(lab.fwd(), "fwd0", config), End::new(lab.gen_(), "gen0", plain))
}

fn run(namespace: &Namespace, command: &str) -> String {
    let words: Vec<_> = command.split(' ').collect();
    let output = namespace.command(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns a frame for 02:00:00:00:00:01 with a number and an EtherType for experiments.
fn packet(number: usize, len: usize) -> Vec<u8> {
    let mut packet = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
    packet.extend((number as u32).to_be_bytes());
    packet.extend((packet.len()..len).map(|at| (number * 7 + at) as u8));
    packet
}

fn tagged(number: usize, len: usize) -> Vec<u8> {
    let mut packet = packet(number, len);
    packet[12..14].copy_from_slice(&[0x81, 0]);
    packet[14..18].copy_from_slice(&[0, 100, 0x88, 0xb5]);
    packet
}

/// Waits until an interface has a carrier or none.
fn wait_for_carrier(namespace: &Namespace, interface: &str, carrier: bool) {
    let start = Instant::now();
    let flag = "LOWER_UP";
    while run(namespace, &format!("ip link show {interface}")).contains(flag) != carrier {
        assert!(start.elapsed() < TIMEOUT, "carrier of {interface} is not {carrier}");
    }
}

#[test]
fn rings_carry_identical_packets_both_ways_and_wrap_around() {
    let lab = lab();
    let (mut ring, mut plain) = ends(&lab, RINGS);
    // More packets than the transmit ring has slots, and more bytes than the receive ring has.
    for round in 0..6 {
        let packets: Vec<_> = (0..SLOTS * 2)
            .map(|number| {
                let len = 60 + (number * 97 + round * 13) % 1455;
                if number % 5 == 0 { tagged(number, len) } else { packet(number, len) }
            })
            .collect();
        ring.send(&packets);
        assert!(plain.receive(packets.len()) == packets, "round {round}, from the ring");
        plain.send(&packets);
        assert!(ring.receive(packets.len()) == packets, "round {round}, into the ring");
    }
    let counters = ring.port.counters();
    assert_eq!((counters.tx_packets, counters.rx_packets), (6 * 1024, 6 * 1024));
    assert_eq!((counters.tx_dropped, counters.invalid_descriptors), (0, 0));
    assert_eq!(ring.port.kernel_counters(), Default::default());
    ring.close();
    plain.close();
}

#[test]
fn second_port_on_same_rings_and_port_without_rings_are_errors() {
    let lab = lab();
    let open = |config| {
        let open = move || {
            PacketSocket::open_queues(if_nametoindex("fwd0").unwrap(), 1, &config)
                .unwrap()
                .remove(0)
        };
        lab.fwd().run(open).unwrap()
    };
    let (umem, _pool) = Umem::new(&UmemConfig::default()).unwrap();
    let error = |socket| MmapPort::new(socket, &umem).unwrap_err().to_string();
    let socket = open(RINGS);
    let first = MmapPort::new(socket.clone(), &umem).unwrap();
    assert!(error(socket.clone()).contains("another port has used the rings"));
    drop(first);
    assert!(error(socket).contains("another port has used the rings"));
    assert!(error(open(SocketConfig::default())).contains("opened without rings"));
    let config = SocketConfig { rings: Some(0), ..RINGS };
    let error = lab.fwd().run(move || PacketSocket::open_queues(1, 1, &config).unwrap_err());
    assert!(error.unwrap().to_string().contains("must be 2048 or 4096"));
}

#[test]
fn lone_packet_arrives_before_sender_sends_next() {
    let lab = lab();
    let (mut ring, mut plain) = ends(&lab, RINGS);
    let mut wait_set = WaitSet::new(ring.port.fd());
    for number in 0..50 {
        plain.send(&[packet(number, 60)]);
        // A block with one packet is far from full: only the retire timeout hands it over. It also
        // wakes a worker that waits.
        if number % 2 == 0 {
            wait_set.wait(TIMEOUT);
            assert!(wait_set.is_ready(ring.port.fd().unwrap()), "packet {number} wakes no worker");
            assert_eq!(ring.receive_now(), [packet(number, 60)]);
        } else {
            assert_eq!(ring.receive(1), [packet(number, 60)]);
        }
    }
    ring.close();
}

#[test]
fn overflow_of_receive_ring_is_counted_exactly() {
    let lab = lab();
    let (mut ring, mut plain) = ends(&lab, RINGS);
    // The ring has 4 MiB.
    let packets: Vec<_> = (0..1000).map(|number| packet(number, 1514)).collect();
    (0..5).for_each(|_| plain.send(&packets));
    assert_eq!(plain.port.counters().tx_dropped, 0);
    let mut received = 0;
    let start = Instant::now();
    let lost = |ring: &End| ring.port.kernel_counters().rx_ring_full;
    while received + lost(&ring) < 5000 {
        received += ring.receive_now().len() as u64;
        assert!(start.elapsed() < TIMEOUT, "{received} received, {} lost", lost(&ring));
    }
    assert!(lost(&ring) > 0, "no overflow");
    // The ring is not stuck.
    plain.send(&packets[..10]);
    assert_eq!(ring.receive(10), packets[..10]);
    assert_eq!(received + lost(&ring), 5000);
    ring.close();
}

#[test]
fn received_packet_longer_than_frame_or_block_is_dropped_and_counted() {
    let lab = lab();
    run(lab.gen_(), "ip link set gen0 mtu 65000");
    run(lab.fwd(), "ip link set fwd0 mtu 65000");
    let (mut ring, _plain) = ends(&lab, RINGS);
    // A UMEM frame has room for 1792 bytes, a block for 32 KiB.
    let script = "import socket\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
                  s.bind(('gen0', 0))\n\
                  for n in (60, 1792, 1793, 33000, 61): s.send(bytes(range(250)) * 140 if n > 33000 \
                  else bytes([2] * 12 + [0x88, 0xb5]) + bytes(n - 14))";
    let output = lab.gen_().command("python3").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lengths: Vec<_> = ring.receive(3).iter().map(Vec::len).collect();
    assert_eq!(lengths, [60, 1792, 61]);
    assert_eq!(ring.port.kernel_counters().rx_dropped, 2);
    ring.close();
}

#[test]
fn transmit_ring_recovers_after_carrier_was_lost() {
    let lab = lab();
    let (mut ring, mut plain) = ends(&lab, RINGS);
    let packets: Vec<_> = (0..SLOTS + 100).map(|number| packet(number, 100)).collect();
    for round in 1..=2 {
        run(lab.gen_(), "ip link set gen0 down");
        wait_for_carrier(lab.fwd(), "fwd0", false);
        // Without a carrier, the interface drops packets. Each is counted.
        ring.send(&packets);
        let counters = ring.port.counters();
        assert_eq!(counters.tx_dropped, round * packets.len() as u64);
        run(lab.gen_(), "ip link set gen0 up");
        wait_for_carrier(lab.fwd(), "fwd0", true);
        ring.send(&packets);
        assert_eq!(ring.port.counters().tx_dropped, counters.tx_dropped);
        assert!(plain.receive(packets.len()) == packets, "round {round}");
    }
    ring.close();
}

#[test]
fn transmit_ring_keeps_packets_while_interface_is_down() {
    let lab = lab();
    let (mut ring, mut plain) = ends(&lab, RINGS);
    run(lab.fwd(), "ip link set fwd0 down");
    let packets: Vec<_> = (0..100).map(|number| packet(number, 100)).collect();
    packets.iter().for_each(|packet| ring.push(packet));
    for _ in 0..10 {
        assert_eq!(ring.port.transmit(&mut ring.queue), 0);
    }
    let counters = ring.port.counters();
    assert_eq!((counters.tx_packets, ring.queue.len()), (0, 100));
    assert!(counters.tx_retries >= 10, "{counters:?}");
    run(lab.fwd(), "ip link set fwd0 up");
    wait_for_carrier(lab.fwd(), "fwd0", true);
    ring.send(&[]);
    assert!(plain.receive(100) == packets);
    plain.send(&packets);
    assert!(ring.receive(100) == packets, "reception resumes");
    ring.close();
}

/// While the interface goes down, the kernel stores an error in the socket, with which `poll`
/// returns at once. Without a remedy, an idle worker would use its whole core.
#[test]
fn idle_port_can_wait_again_after_interface_was_down() {
    let lab = lab();
    let (mut ring, _plain) = ends(&lab, RINGS);
    let fd: RawFd = ring.port.fd().unwrap();
    let mut wait_set = WaitSet::new([fd]);
    run(lab.fwd(), "ip link set fwd0 down");
    wait_set.wait(Duration::ZERO);
    assert!(wait_set.is_ready(fd), "the error is not pending: this test checks nothing");
    let start = Instant::now();
    while wait_set.is_ready(fd) {
        assert_eq!(ring.receive_now(), Vec::<Vec<u8>>::new());
        wait_set.wait(Duration::ZERO);
        assert!(start.elapsed() < TIMEOUT, "the error stays");
    }
    ring.close();
}

#[test]
fn transmit_ring_drops_packets_longer_than_mtu_and_sends_others() {
    let lab = lab();
    let (mut ring, mut plain) = ends(&lab, RINGS);
    // With MTU 1500, an interface accepts 1514 bytes, or 1518 with a tag. A slot holds 2000.
    let lengths = [60, 1515, 1514, 2000, 2040, 61];
    let mut packets: Vec<_> =
        lengths.iter().enumerate().map(|(number, &len)| packet(number, len)).collect();
    packets.extend([tagged(6, 1519), tagged(7, 1518)]);
    ring.send(&packets);
    let expected = [0, 2, 5, 7].map(|number: usize| packets[number].clone());
    assert_eq!(plain.receive(4), expected);
    assert_eq!(ring.port.counters().tx_dropped, 4);
    // The MTU changes while the port is open: first lower, then higher.
    run(lab.fwd(), "ip link set fwd0 mtu 1000");
    ring.send(&[packet(8, 1015), packet(9, 60), packet(10, 1200), packet(11, 1014)]);
    assert_eq!(plain.receive(2), [packet(9, 60), packet(11, 1014)]);
    assert_eq!(ring.port.counters().tx_dropped, 6);
    run(lab.fwd(), "ip link set fwd0 mtu 1600");
    run(lab.gen_(), "ip link set gen0 mtu 1600");
    ring.send(&[packet(12, 1614), packet(13, 60)]);
    assert_eq!(plain.receive(2), [packet(12, 1614), packet(13, 60)]);
    assert_eq!(ring.port.counters().tx_dropped, 6);
    ring.close();
}

#[test]
fn transmit_ring_reads_mtu_once_for_a_batch_of_packets_longer_than_mtu() {
    let lab = lab();
    let (mut ring, _plain) = ends(&lab, RINGS);
    (0..64).for_each(|number| ring.push(&packet(number, 1600)));
    let before = ring.port.counters();
    ring.port.transmit(&mut ring.queue);
    let after = ring.port.counters();
    assert_eq!(after.tx_dropped - before.tx_dropped, 64);
    // A socket ioctl and the call that finds the interface's name.
    assert_eq!(after.syscalls - before.syscalls, 2);
    ring.close();
}

/// The interface accepts what its other end drops.
#[test]
fn transmit_ring_passes_packet_that_other_end_drops() {
    let lab = lab();
    run(lab.fwd(), "ip link set fwd0 mtu 1700");
    let (mut ring, mut plain) = ends(&lab, RINGS);
    let packets: Vec<_> =
        (0..100).map(|number| packet(number, if number % 3 == 0 { 1600 } else { 60 })).collect();
    ring.send(&packets);
    let expected: Vec<_> = packets.iter().filter(|packet| packet.len() == 60).cloned().collect();
    assert!(plain.receive(expected.len()) == expected);
    assert_eq!(ring.port.counters().tx_dropped, 34);
    ring.close();
}

#[test]
fn qdisc_use_sends_through_queueing_discipline_and_bypass_does_not() {
    let lab = lab();
    run(lab.fwd(), "tc qdisc replace dev fwd0 root pfifo limit 1000");
    let packets: Vec<_> = (0..40).map(|number| packet(number, 100)).collect();
    let mut counted = Vec::new();
    for (qdisc, rings) in [
        (Qdisc::Bypass, Some(2048)),
        (Qdisc::Use, Some(2048)),
        (Qdisc::Bypass, None),
        (Qdisc::Use, None),
    ] {
        let config = SocketConfig { qdisc, rings };
        let (mut end, mut plain) = ends(&lab, config);
        end.send(&packets);
        assert!(plain.receive(40) == packets, "{config:?}");
        let text = run(lab.fwd(), "tc -s qdisc show dev fwd0");
        let words: Vec<_> = text.split_whitespace().collect();
        let sent = words.iter().position(|word| *word == "pkt").unwrap() - 1;
        counted.push(words[sent].parse::<usize>().unwrap());
    }
    assert_eq!(counted, [0, 40, 40, 80]);
}

/// Queued packets keep their slots, so the ring fills up. It must go on when the queue sends.
#[test]
fn transmit_ring_waits_for_slow_queueing_discipline() {
    let lab = lab();
    run(lab.fwd(), "tc qdisc replace dev fwd0 root tbf rate 40mbit burst 10k limit 2mb");
    let (mut ring, mut plain) = ends(&lab, SocketConfig { qdisc: Qdisc::Use, ..RINGS });
    let packets: Vec<_> = (0..SLOTS * 2).map(|number| packet(number, 1000)).collect();
    packets.iter().for_each(|packet| ring.push(packet));
    let first = ring.port.transmit(&mut ring.queue);
    assert!(first < packets.len(), "all packets found a slot: the queue is not slow");
    ring.send(&[]);
    assert!(plain.receive(packets.len()) == packets);
    let counters = ring.port.counters();
    assert_eq!((counters.tx_packets as usize, counters.tx_dropped), (packets.len(), 0));
    ring.close();
}

#[test]
fn port_with_rings_does_not_allocate_per_packet() {
    let lab = lab();
    let (mut ring, mut plain) = ends(&lab, RINGS);
    for round in 0..20 {
        plain.send(&[packet(round, 60), tagged(round, 1514)]);
        let End { port, pool, queue, batch, .. } = &mut ring;
        let start = Instant::now();
        let mut received = 0;
        let info = allocation_counter::measure(|| {
            while received < 2 && start.elapsed() < TIMEOUT {
                received += port.receive(batch, pool);
                for frame in batch.slots_mut().iter_mut().filter_map(Option::take) {
                    queue.push(frame).unwrap();
                }
                batch.clear_taken();
            }
            port.transmit(queue);
            port.reclaim(pool);
        });
        assert_eq!((received, info.count_total), (2, 0), "round {round}: {info:?}");
        assert_eq!(plain.receive(2), [packet(round, 60), tagged(round, 1514)]);
    }
}
