//! Draining a worker whose port receives with a delay.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use xdpfwd_pipeline::Worker;
use xdpfwd_testkit::wires::{LAN, WAN, assert_conserved, packet, umem_config};
use xdpfwd_xsk::fake_kernel::FakeKernel;
use xdpfwd_xsk::{
    Batch, Counters, EgressQueue, KernelCounters, Pool, Port, PortFrameCounts, Quarantine, Umem,
    XskPort,
};

/// A port to which a packet is delivered 20 ms after the first call of `receive`, as by a kernel
/// that collects packets.
struct DelayedPort {
    port: XskPort,
    wire: FakeKernel,
    first_call: Option<Instant>,
    is_delivered: bool,
}

impl Port for DelayedPort {
    fn receive(&mut self, batch: &mut Batch, pool: &mut Pool) -> usize {
        let first_call = *self.first_call.get_or_insert_with(Instant::now);
        if !self.is_delivered && first_call.elapsed() >= Duration::from_millis(20) {
            self.wire.deliver(&packet(1)).unwrap();
            self.is_delivered = true;
        }
        self.port.receive(batch, pool)
    }

    fn receive_delay(&self) -> Duration {
        // Far longer than 20 ms, so that the test passes on a busy machine.
        Duration::from_millis(500)
    }

    fn umem(&self) -> Option<&Umem> {
        self.port.umem()
    }

    fn transmit(&mut self, queue: &mut EgressQueue) -> usize {
        self.port.transmit(queue)
    }

    fn reclaim(&mut self, pool: &mut Pool) -> usize {
        self.port.reclaim(pool)
    }

    fn has_unsent(&self) -> bool {
        self.port.has_unsent()
    }

    fn fd(&self) -> Option<RawFd> {
        self.port.fd()
    }

    fn frame_counts(&self) -> PortFrameCounts {
        self.port.frame_counts()
    }

    fn counters(&self) -> Counters {
        self.port.counters()
    }

    fn kernel_counters(&self) -> KernelCounters {
        self.port.kernel_counters()
    }

    fn close(self: Box<Self>, pool: &mut Pool) -> Quarantine {
        Box::new(self.port).close(pool)
    }
}

#[test]
fn drain_receives_packet_that_arrives_within_receive_delay_of_port() {
    let (umem, mut pool) = Umem::new(&umem_config()).unwrap();
    let (port, lan) = FakeKernel::port(&umem, &mut pool, 0);
    let (wan_port, wan) = FakeKernel::port(&umem, &mut pool, 1);
    let lan_port = DelayedPort { port, wire: lan, first_call: None, is_delivered: false };
    let mut worker = Worker::builder(umem, pool)
        .port(vec![Box::new(lan_port)])
        .port(vec![Box::new(wan_port)])
        .path(LAN, WAN, ())
        .build()
        .unwrap();
    worker.drain(Duration::from_secs(60));
    assert_eq!(wan.take_sent(), [packet(1)]);
    assert_conserved(&mut worker);
}
