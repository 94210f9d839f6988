//! Ports that are closed and opened again while the worker runs.

use std::time::Duration;

use xdpfwd_pipeline::{Idle, Reason, Transmission, Worker, mailbox};
use xdpfwd_testkit::wires::{LAN, WAN, numbers, packet, umem_config};
use xdpfwd_xsk::fake_kernel::{FakeKernel, FakeKernelConfig, FakeRingSizes};
use xdpfwd_xsk::{Umem, XskPort};

/// A worker with the ports lan and wan, and another port, which is not in use yet.
struct Network {
    worker: Worker<()>,
    lan: FakeKernel,
    wan: FakeKernel,
    spare: (XskPort, FakeKernel),
}

impl Network {
    fn new(wan_config: FakeKernelConfig) -> Self {
        let (umem, mut pool) = Umem::new(&umem_config()).unwrap();
        let (lan_port, lan) = FakeKernel::port(&umem, &mut pool, 0);
        let (wan_port, wan) =
            FakeKernel::port_with(&umem, &mut pool, 1, FakeRingSizes::default(), wan_config);
        let spare = FakeKernel::port(&umem, &mut pool, 2);
        let worker = Worker::builder(umem, pool)
            .port(vec![Box::new(lan_port)])
            .port(vec![Box::new(wan_port)])
            .path(LAN, WAN, ())
            .path(WAN, LAN, ())
            .build()
            .unwrap();
        Self { worker, lan, wan, spare }
    }

    /// Delivers packets with these numbers to lan, and runs the worker.
    fn send(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.lan.deliver(&packet(number)).unwrap();
        }
        self.worker.poll_once();
    }
}

#[test]
fn closed_port_drops_packets_and_its_frames_return_with_proof() {
    let never_completes =
        FakeKernelConfig { completion_delay: None, ..FakeKernelConfig::default() };
    let mut network = Network::new(never_completes);
    network.send(0..40);
    // The kernel has taken all packets and reports none as sent.
    let transmission = Transmission { waits: false, sent: 0 };
    assert_eq!(network.worker.transmission(WAN), [transmission]);
    // Received by wan before it is closed, so still forwarded.
    network.wan.deliver(&packet(100)).unwrap();
    network.worker.close_port(WAN);
    assert_eq!(numbers(&network.lan.take_sent()), [100]);
    assert!(!network.worker.is_port_bound(WAN) && network.worker.is_port_bound(LAN));
    network.send(40..50);
    let Network { mut worker, lan, spare: (port, wan), .. } = network;
    let report = worker.report();
    assert_eq!(report.drops[Reason::PORT_DOWN], 10);
    assert_eq!(report.drops[Reason::EGRESS_FULL], 0);
    assert_eq!((report.frames.quarantined, report.frames.tx), (40, 0));
    assert_eq!(report.queues[1].counters.tx_packets, 40, "the counters of the closed socket");
    assert_eq!(report.queues[1].counters.tx_lost, 40);

    assert_eq!(worker.take_back(&FakeKernel::release(2)), 0, "a proof about another queue");
    assert_eq!(worker.take_back(&FakeKernel::release(1)), 40);
    worker.open_port(WAN, vec![Box::new(port)]).unwrap();
    for number in 50..60 {
        lan.deliver(&packet(number)).unwrap();
    }
    worker.poll_once();
    assert_eq!(numbers(&wan.take_sent()), (50..60).collect::<Vec<_>>());
    worker.drain(Duration::from_secs(5));
    let report = worker.report();
    assert_eq!((report.frames.quarantined, report.frames.leaked), (0, 0), "{report:?}");
    assert_eq!(report.queues[1].counters.tx_packets, 50);
    let received: u64 = report.queues.iter().map(|queue| queue.counters.rx_packets).sum();
    let sent: u64 = report.queues.iter().map(|queue| queue.counters.tx_packets).sum();
    assert_eq!(received, sent + 10);
    assert_eq!(report.frames.pool + report.frames.fill, report.frames.total);
}

#[test]
fn packets_in_egress_queue_of_closed_port_are_dropped_as_port_down() {
    let stalled = FakeKernelConfig { budget: 0, ..FakeKernelConfig::default() };
    let mut network = Network::new(stalled);
    // The TX ring has 128 entries; the other packets wait in the egress queue.
    for round in 0..4 {
        network.send(round * 50..(round + 1) * 50);
    }
    let transmission = Transmission { waits: true, sent: 0 };
    assert_eq!(network.worker.transmission(WAN), [transmission]);
    network.worker.close_port(WAN);
    network.worker.close_port(WAN);
    let report = network.worker.report();
    assert_eq!(report.drops[Reason::PORT_DOWN], 200 - 128);
    assert_eq!(report.queues[1].counters.tx_lost, 128);
    assert_eq!((report.frames.quarantined, report.frames.in_flight), (128, 0));
}

#[test]
fn running_worker_closes_and_opens_port() {
    let (remote, mailbox) = mailbox::<()>().unwrap();
    let thread = std::thread::spawn(move || {
        let Network { mut worker, spare: (port, _kernel), .. } =
            Network::new(FakeKernelConfig::default());
        worker.run(&mailbox, Idle::Poll);
        // After the end of the loop, because a port cannot be sent to this thread.
        worker.open_port(WAN, vec![Box::new(port)]).unwrap();
        worker.poll_once();
        worker.report().frames
    });
    let timeout = Duration::from_secs(60);
    remote.ask(|worker| worker.close_port(WAN), timeout).unwrap();
    assert_eq!(remote.ask(|worker| worker.is_port_bound(WAN), timeout), Ok(false));
    remote.stop();
    let frames = thread.join().unwrap();
    assert_eq!((frames.leaked, frames.quarantined), (0, 0), "{frames:?}");
}
