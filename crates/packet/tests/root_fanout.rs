//! Tests several packet sockets on one interface. Each received packet must reach one socket,
//! selected by its queue, and packets that this host sends must reach none. Needs root.

use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use xdpfwd_lab::Chain;
use xdpfwd_packet::{MmapPort, MmsgPort, PacketSocket, SocketConfig};
use xdpfwd_xsk::{Batch, EgressQueue, Frame, HugePages, Pool, Port, Umem, UmemConfig};

/// Maximum wait for a packet, far longer than its arrival takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Creates the lab: a chain of network namespaces. The tests send from its interface gen0 and
/// receive on its interface fwd0.
fn chain(queues: u16) -> Chain {
    let chain = Chain::builder().queues(queues).build();
    chain.unwrap_or_else(|error| panic!("{error}\n(tests named root_* need root: `make test`)"))
}

fn open(chain: &Chain, queues: u16, config: SocketConfig) -> Vec<PacketSocket> {
    let open = move || {
        PacketSocket::open_queues(if_nametoindex("fwd0").unwrap(), queues, &config).unwrap()
    };
    chain.fwd().run(open).unwrap()
}

fn receive(port: &mut impl Port, pool: &mut Pool) -> usize {
    let mut batch = Batch::new();
    let mut total = 0;
    loop {
        let count = port.receive(&mut batch, pool);
        if count == 0 {
            return total;
        }
        total += count;
        batch
            .slots_mut()
            .iter_mut()
            .filter_map(Option::take)
            .for_each(|frame| pool.free(frame).unwrap());
        batch.clear_taken();
    }
}

/// Sends packets from gen0. The CPU core selects the transmit queue, and thereby the receive queue.
///
/// The lab's generator is unsuitable here: veth does not record the queue of frames from
/// `BPF_PROG_TEST_RUN`.
fn send(chain: &Chain, core: usize, count: usize) {
    let send = move || {
        let mut cores = CpuSet::new();
        cores.set(core).unwrap();
        sched_setaffinity(Pid::from_raw(0), &cores).unwrap();
        let (umem, mut pool) = umem();
        let index = if_nametoindex("gen0").unwrap();
        let socket =
            PacketSocket::open_queues(index, 1, &SocketConfig::default()).unwrap().remove(0);
        let mut port = MmsgPort::new(socket, &umem).unwrap();
        let mut queue = EgressQueue::new(&umem, count);
        (0..count).for_each(|_| queue.push(frame(&mut pool)).unwrap());
        while !queue.is_empty() {
            port.transmit(&mut queue);
            port.reclaim(&mut pool);
        }
        assert_eq!(port.counters().tx_dropped, 0);
    };
    // The affinity applies to this thread only, which ends here.
    chain.gen_().run(send).unwrap();
}

fn frame(pool: &mut Pool) -> Frame {
    let mut frame = pool.alloc().unwrap();
    let bytes = frame.append(60).unwrap();
    bytes.fill(0);
    bytes[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
    frame
}

fn umem() -> (Umem, Pool) {
    Umem::new(&UmemConfig { huge_pages: HugePages::Off, ..UmemConfig::default() }).unwrap()
}

#[test]
fn packets_of_one_queue_reach_one_socket() {
    let chain = chain(2);
    let (umem, mut pool) =
        Umem::new(&UmemConfig { huge_pages: HugePages::Off, ..UmemConfig::default() }).unwrap();
    let sockets = open(&chain, 2, SocketConfig::default());
    let mut ports: Vec<_> =
        sockets.iter().map(|socket| MmsgPort::new(socket.clone(), &umem).unwrap()).collect();
    let mut received =
        |pool: &mut Pool| ports.iter_mut().map(|port| receive(port, pool)).collect::<Vec<_>>();

    send(&chain, 0, 100);
    assert_eq!(received(&mut pool), [0, 0], "packets were received before start");
    sockets.iter().for_each(|socket| socket.start().unwrap());
    // A second start has no effect.
    sockets.iter().for_each(|socket| socket.start().unwrap());
    send(&chain, 0, 300);
    let from_core_0 = received(&mut pool);
    send(&chain, 1, 200);
    let from_core_1 = received(&mut pool);
    // The kernel selects the socket by the queue number in the packet's metadata. There, veth
    // writes the index of the transmit queue, other drivers the index of the receive queue plus
    // one. So accept either assignment of the two queues to the two sockets.
    assert!(
        matches!((&from_core_0[..], &from_core_1[..]), ([300, 0], [0, 200]) | ([0, 300], [200, 0])),
        "packets per socket from core 0: {from_core_0:?}, from core 1: {from_core_1:?}"
    );
    send(&chain, 1, 50);
    sockets.iter().for_each(|socket| socket.stop().unwrap());
    send(&chain, 0, 100);
    assert_eq!(
        received(&mut pool).iter().sum::<usize>(),
        50,
        "expected only the packets sent before the stop"
    );
    assert!(ports.iter().all(|port| port.kernel_counters() == Default::default()));
    drop(ports);
    assert_eq!(pool.len() as u32, umem.frames());
}

#[test]
fn packets_of_one_queue_reach_one_receive_ring() {
    let chain = chain(2);
    let (umem, mut pool) = umem();
    let config = SocketConfig { rings: Some(2048), ..SocketConfig::default() };
    let sockets = open(&chain, 2, config);
    let mut ports: Vec<_> =
        sockets.iter().map(|socket| MmapPort::new(socket.clone(), &umem).unwrap()).collect();
    let delay = ports[0].receive_delay();
    sockets.iter().for_each(|socket| socket.start().unwrap());
    // Receives at least `count` packets, and those that arrive soon after.
    let mut received = |count: usize| {
        let (mut received, start) = ([0, 0], Instant::now());
        let mut complete_since = None;
        while complete_since.is_none_or(|since: Instant| since.elapsed() < delay) {
            for (sum, port) in received.iter_mut().zip(&mut ports) {
                *sum += receive(port, &mut pool);
            }
            if complete_since.is_none() && received.iter().sum::<usize>() >= count {
                complete_since = Some(Instant::now());
            }
            assert!(start.elapsed() < TIMEOUT, "{received:?} of {count} packets arrived");
        }
        received
    };
    send(&chain, 0, 300);
    let from_core_0 = received(300);
    send(&chain, 1, 200);
    let from_core_1 = received(200);
    assert!(
        matches!((from_core_0, from_core_1), ([300, 0], [0, 200]) | ([0, 300], [200, 0])),
        "packets per ring from core 0: {from_core_0:?}, from core 1: {from_core_1:?}"
    );
    assert!(ports.iter().all(|port| port.kernel_counters() == Default::default()));
    drop(ports);
    assert_eq!(pool.len() as u32, umem.frames());
}

#[test]
fn packets_sent_by_this_host_reach_no_socket() {
    for queues in [1, 2] {
        let chain = chain(queues);
        let (umem, mut pool) =
            Umem::new(&UmemConfig { huge_pages: HugePages::Off, ..UmemConfig::default() }).unwrap();
        let sockets = open(&chain, queues, SocketConfig::default());
        sockets.iter().for_each(|socket| socket.start().unwrap());
        let mut ports: Vec<_> =
            sockets.iter().map(|socket| MmsgPort::new(socket.clone(), &umem).unwrap()).collect();
        let mut queue = EgressQueue::new(&umem, 64);
        for _ in 0..10 {
            queue.push(frame(&mut pool)).unwrap();
        }
        assert_eq!(ports[0].transmit(&mut queue), 10);
        assert_eq!(ports[0].reclaim(&mut pool), 10);
        // This packet must be the only one that the ports receive.
        send(&chain, 0, 1);
        let start = Instant::now();
        let mut received = 0;
        while received == 0 {
            received = ports.iter_mut().map(|port| receive(port, &mut pool)).sum::<usize>();
            assert!(start.elapsed() < TIMEOUT, "no packet received within {TIMEOUT:?}");
        }
        assert_eq!(received, 1, "packets received with {queues} queues");
    }
}
