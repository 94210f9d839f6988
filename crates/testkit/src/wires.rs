//! A worker between two fake kernels, and accounting of the worker's packets.

pub use xdpfwd_pipeline::testing::assert_conserved;
use xdpfwd_pipeline::{Chain, FrameCounts, PortId, Worker};
use xdpfwd_xsk::fake_kernel::{FakeKernel, FakeKernelConfig, FakeRingSizes};
use xdpfwd_xsk::{HugePages, Umem, UmemConfig};

pub const LAN: PortId = PortId(0);
pub const WAN: PortId = PortId(1);

/// The fake kernels of a worker's two ports. A fake kernel takes the place of the wire: it delivers
/// packets to the port, and takes the packets that the port sends.
pub struct Wires {
    pub lan: FakeKernel,
    pub wan: FakeKernel,
}

/// Packet counts, which [`Self::balance`] compares with the worker's counters.
#[derive(Debug, Default)]
pub struct WireAccounting {
    /// Packets delivered to the worker.
    pub delivered: u64,
    /// Packets that the worker sent.
    pub sent: u64,
    /// Packets that the fake kernels discarded.
    pub discarded: u64,
    /// The numbers inside the packets sent on lan and on wan, in order; see [`number()`].
    pub sent_numbers: [Vec<u64>; 2],
}

impl WireAccounting {
    /// Tries to deliver `count` packets, which contain consecutive numbers. If a packet cannot be
    /// delivered, the next one takes its number.
    pub fn deliver(&mut self, wire: &FakeKernel, count: u64) {
        (0..count).for_each(|_| {
            self.delivered += u64::from(wire.deliver(&packet(self.delivered)).is_ok())
        });
    }

    /// Takes the sent packets, and asserts that each delivered packet was sent, discarded or
    /// dropped for a reason, or is still in a ring or in flight. The stages must not create
    /// packets. Returns the worker's frame counts.
    #[track_caller]
    pub fn balance<C: Chain>(&mut self, worker: &mut Worker<C>, wires: &Wires) -> FrameCounts {
        for (wire, sent_numbers) in [&wires.lan, &wires.wan].into_iter().zip(&mut self.sent_numbers)
        {
            let sent = wire.take_sent();
            self.sent += sent.len() as u64;
            self.discarded += wire.take_discarded().len() as u64;
            sent_numbers.extend(numbers(&sent));
        }
        let frames = assert_conserved(worker);
        let report = worker.report();
        let mut counters = xdpfwd_xsk::Counters::default();
        report.queues.iter().for_each(|queue| counters += queue.counters);
        let drops = report.drops.total();
        let unsent = u64::from(wires.lan.unsent()) + u64::from(wires.wan.unsent());
        assert_eq!(self.delivered, counters.rx_packets + frames.rx, "{report:?}");
        assert_eq!(
            counters.rx_packets,
            counters.tx_packets + drops + frames.in_flight,
            "{report:?}"
        );
        assert_eq!(counters.tx_packets, self.sent + self.discarded + unsent, "{report:?}");
        assert_eq!(
            (counters.tx_dropped, counters.invalid_descriptors),
            (self.discarded, 0),
            "{report:?}"
        );
        frames
    }
}

/// Returns a configuration with 1024 frames, without huge pages.
pub fn umem_config() -> UmemConfig {
    UmemConfig { frames: 1024, huge_pages: HugePages::Off, ..UmemConfig::default() }
}

/// Creates a worker that runs `lan_chain` on packets from lan to wan, and `wan_chain` on packets
/// from wan to lan.
pub fn cross_connect<C: Chain>(lan_chain: C, wan_chain: C) -> (Worker<C>, Wires) {
    cross_connect_with(lan_chain, wan_chain, FakeKernelConfig::default())
}

/// Like [`cross_connect`], with a configuration for the fake kernel of wan.
pub fn cross_connect_with<C: Chain>(
    lan_chain: C,
    wan_chain: C,
    wan: FakeKernelConfig,
) -> (Worker<C>, Wires) {
    cross_connect_on(&umem_config(), lan_chain, wan_chain, wan)
}

/// Like [`cross_connect_with`], with a configuration for the UMEM.
pub fn cross_connect_on<C: Chain>(
    umem: &UmemConfig,
    lan_chain: C,
    wan_chain: C,
    wan: FakeKernelConfig,
) -> (Worker<C>, Wires) {
    let (umem, mut pool) = Umem::new(umem).unwrap();
    let (lan_index, wan_index, rings) = (0, 1, FakeRingSizes::default());
    let (lan_port, lan) = FakeKernel::port(&umem, &mut pool, lan_index);
    let (wan_port, wan) = FakeKernel::port_with(&umem, &mut pool, wan_index, rings, wan);
    let worker = Worker::builder(umem, pool)
        .port(vec![Box::new(lan_port)])
        .port(vec![Box::new(wan_port)])
        .path(LAN, WAN, lan_chain)
        .path(WAN, LAN, wan_chain)
        .build()
        .unwrap();
    (worker, Wires { lan, wan })
}

/// Returns a packet of 60 to 70 bytes that contains a number, which [`number()`] reads.
pub fn packet(number: u64) -> Vec<u8> {
    let mut packet = vec![0; 60 + (number % 11) as usize];
    packet[..14].copy_from_slice(b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x88\xb5");
    packet[14..22].copy_from_slice(&number.to_be_bytes());
    packet
}

/// Returns the number that a packet made by [`packet`] contains.
pub fn number(packet: &[u8]) -> u64 {
    u64::from_be_bytes(packet[14..22].try_into().unwrap())
}

pub fn numbers(packets: &[Vec<u8>]) -> Vec<u64> {
    packets.iter().map(|packet| number(packet)).collect()
}
