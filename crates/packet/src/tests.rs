//! Tests the ports without rings on connected Unix datagram sockets, which also preserve message
//! boundaries. Tests on packet sockets need root: see `tests/root_mmap.rs` and
//! `crates/xdpfwd/tests/root_io.rs`.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use xdpfwd_xsk::{Batch, EgressQueue, HugePages, Pool, Port, Umem, UmemConfig};

use crate::mmsg::Mmsg;
use crate::port::{MAX_COMPLETIONS, Method, PacketPort};
use crate::single::{MAX_RECEIVED, Single};

/// Runs each test with both methods.
macro_rules! with_both_methods {
    ($($test:ident),* $(,)?) => {
        mod single {
            $(#[test] fn $test() { super::$test::<super::Single>() })*
        }
        mod mmsg {
            $(#[test] fn $test() { super::$test::<super::Mmsg>() })*
        }
    };
}

with_both_methods! {
    receive_returns_packets_complete_and_in_order,
    receive_drops_packet_longer_than_frame_and_counts_it,
    receive_without_free_frames_leaves_packets_in_kernel,
    transmit_keeps_unsent_packets_and_sends_them_later,
    transmit_drops_unsendable_packets_and_counts_them,
    transmit_with_full_completions_sends_nothing_until_reclaim,
    port_does_not_allocate_per_packet,
}

struct Fixture<M> {
    port: Box<PacketPort<M>>,
    umem: Umem,
    pool: Pool,
    queue: EgressQueue,
    batch: Batch,
    peer: UnixDatagram,
}

fn fixture<M: Method>() -> Fixture<M> {
    let (local, peer) = UnixDatagram::pair().unwrap();
    fixture_on(local, peer)
}

fn fixture_on<M: Method>(local: UnixDatagram, peer: UnixDatagram) -> Fixture<M> {
    let config = UmemConfig { frames: 256, huge_pages: HugePages::Off, ..UmemConfig::default() };
    let (umem, pool) = Umem::new(&config).unwrap();
    peer.set_nonblocking(true).unwrap();
    let port = Box::new(PacketPort::new(local.into(), &umem).unwrap());
    let queue = EgressQueue::new(&umem, 512);
    Fixture { port, umem, pool, queue, batch: Batch::new(), peer }
}

fn packet(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number * 7 + at) as u8).collect()
}

impl<M: Method> Fixture<M> {
    /// Asserts that the port's frame counts agree with the UMEM's record.
    #[track_caller]
    fn assert_frames_consistent(&self) {
        let frame_counts = self.port.frame_counts();
        let ownership = self.umem.ownership();
        assert_eq!(ownership.pool as usize, self.pool.len());
        assert_eq!((u64::from(ownership.tx), ownership.fill), (frame_counts.total(), 0));
        let in_batch = self.batch.slots().iter().flatten().count();
        assert_eq!(ownership.held as usize, in_batch + self.queue.len());
        assert_eq!((ownership.lost, ownership.closed), (0, 0));
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        let count = self.port.receive(&mut self.batch, &mut self.pool);
        assert_eq!(count, self.batch.len());
        self.assert_frames_consistent();
        let mut packets = Vec::new();
        for frame in self.batch.slots_mut().iter_mut().filter_map(Option::take) {
            packets.push(frame.to_vec());
            self.pool.free(frame).unwrap();
        }
        self.batch.clear_taken();
        packets
    }

    fn push(&mut self, packet: &[u8]) {
        let mut frame = self.pool.alloc().unwrap();
        frame.append(packet.len()).unwrap().copy_from_slice(packet);
        self.queue.push(frame).unwrap();
    }

    fn received_by_peer(&self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut buffer = [0; 65536];
        loop {
            match self.peer.recv(&mut buffer) {
                Ok(len) => packets.push(buffer[..len].to_vec()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    return packets;
                }
            }
        }
    }
}

fn receive_returns_packets_complete_and_in_order<M: Method>() {
    let mut fixture = fixture::<M>();
    assert_eq!(fixture.receive(), Vec::<Vec<u8>>::new(), "an empty socket returned packets");
    let lengths = [60, 61, 64, 590, 1514, 1792, 15];
    let mut sent = Vec::new();
    for number in 0.. {
        let packet = packet(number, lengths[number % lengths.len()]);
        match fixture.peer.send(&packet) {
            Ok(_) => sent.push(packet),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    assert!(sent.len() >= 10, "the socket accepted only {} packets", sent.len());
    let mut received = Vec::new();
    for _ in 0..sent.len() {
        received.extend(fixture.receive());
    }
    assert_eq!(received, sent);
    let counters = fixture.port.counters();
    assert_eq!(counters.rx_packets as usize, sent.len());
    assert_eq!(counters.rx_bytes as usize, sent.iter().map(Vec::len).sum::<usize>());
}

fn receive_drops_packet_longer_than_frame_and_counts_it<M: Method>() {
    let mut fixture = fixture::<M>();
    // A frame holds 1792 bytes: 2048 minus 256 bytes of headroom.
    for len in [1792, 1793, 9000, 60] {
        fixture.peer.send(&packet(1, len)).unwrap();
    }
    assert_eq!(fixture.receive(), [packet(1, 1792), packet(1, 60)]);
    assert_eq!(fixture.port.kernel_counters().rx_dropped, 2);
    assert_eq!(fixture.port.counters().rx_packets, 2);
    assert_eq!(fixture.pool.len(), 256);
}

fn receive_without_free_frames_leaves_packets_in_kernel<M: Method>() {
    let mut fixture = fixture::<M>();
    // 3 of 256 frames stay free.
    let held: Vec<_> = (0..253).map(|_| fixture.pool.alloc().unwrap()).collect();
    for number in 0..5 {
        fixture.peer.send(&packet(number, 60)).unwrap();
    }
    let Fixture { port, pool, batch, .. } = &mut fixture;
    assert_eq!(port.receive(batch, pool), 3);
    let syscalls = port.counters().syscalls;
    assert_eq!(port.receive(batch, pool), 0);
    assert_eq!(
        port.counters().syscalls,
        syscalls,
        "receive made a system call without a free frame"
    );
    for frame in batch.slots_mut().iter_mut().filter_map(Option::take).chain(held) {
        pool.free(frame).unwrap();
    }
    batch.clear_taken();
    assert_eq!(fixture.receive(), [packet(3, 60), packet(4, 60)]);
}

fn transmit_keeps_unsent_packets_and_sends_them_later<M: Method>() {
    let mut fixture = fixture::<M>();
    let packets: Vec<_> = (0..200).map(|number| packet(number, 60 + number)).collect();
    packets.iter().for_each(|packet| fixture.push(packet));
    let mut arrived = Vec::new();
    let mut iterations = 0;
    while arrived.len() < packets.len() {
        let before = fixture.queue.len();
        let sent = fixture.port.transmit(&mut fixture.queue);
        assert_eq!(fixture.queue.len(), before - sent);
        fixture.assert_frames_consistent();
        arrived.extend(fixture.received_by_peer());
        fixture.port.reclaim(&mut fixture.pool);
        fixture.assert_frames_consistent();
        iterations += 1;
        assert!(iterations < 1000, "not all packets were sent in 1000 iterations");
    }
    assert_eq!(arrived, packets);
    let counters = fixture.port.counters();
    assert_eq!((counters.tx_packets, counters.tx_dropped), (200, 0));
    assert_eq!(counters.tx_bytes as usize, packets.iter().map(Vec::len).sum::<usize>());
    // Each iteration except the last filled the peer's buffer (its size depends on
    // net.unix.max_dgram_qlen).
    assert!(counters.tx_retries as usize >= iterations - 1, "{counters:?}");
    assert_eq!(fixture.pool.len(), 256);
}

fn transmit_drops_unsendable_packets_and_counts_them<M: Method>() {
    let mut fixture = fixture::<M>();
    for number in 0..3 {
        fixture.push(&packet(number, 60));
    }
    // Close the peer, so that sending fails with ECONNREFUSED or ENOTCONN.
    drop(std::mem::replace(&mut fixture.peer, UnixDatagram::unbound().unwrap()));
    assert_eq!(fixture.port.transmit(&mut fixture.queue), 3);
    let counters = fixture.port.counters();
    assert_eq!((counters.tx_packets, counters.tx_dropped), (3, 3));
    fixture.assert_frames_consistent();
    assert_eq!(fixture.port.close(&mut fixture.pool).frames(), 0);
    assert_eq!(fixture.pool.len(), 256);
}

fn transmit_with_full_completions_sends_nothing_until_reclaim<M: Method>() {
    let config = UmemConfig { frames: 2048, huge_pages: HugePages::Off, ..UmemConfig::default() };
    let (umem, mut pool) = Umem::new(&config).unwrap();
    let (local, peer) = UnixDatagram::pair().unwrap();
    let mut port = PacketPort::<M>::new(local.into(), &umem).unwrap();
    let mut queue = EgressQueue::new(&umem, 2048);
    for _ in 0..MAX_COMPLETIONS + 1 {
        let mut frame = pool.alloc().unwrap();
        frame.append(60).unwrap().fill(7);
        queue.push(frame).unwrap();
    }
    let mut buffer = [0; 64];
    while queue.len() > 1 {
        let sent = port.transmit(&mut queue);
        (0..sent).for_each(|_| assert_eq!(peer.recv(&mut buffer).unwrap(), 60));
    }
    let counters = port.counters();
    assert_eq!(port.transmit(&mut queue), 0);
    assert_eq!(port.counters().syscalls, counters.syscalls);
    assert_eq!(
        (port.frame_counts().completion as usize, port.reclaim(&mut pool)),
        (MAX_COMPLETIONS, MAX_COMPLETIONS)
    );
    assert_eq!(port.transmit(&mut queue), 1);
    port.reclaim(&mut pool);
    assert_eq!(pool.len(), 2048);
}

fn port_does_not_allocate_per_packet<M: Method>() {
    let mut fixture = fixture::<M>();
    let (short, long) = (packet(1, 60), packet(2, 1514));
    for round in 0..20 {
        fixture.peer.send(&short).unwrap();
        fixture.peer.send(&long).unwrap();
        let Fixture { port, pool, batch, queue, .. } = &mut fixture;
        let info = allocation_counter::measure(|| {
            assert_eq!(port.receive(batch, pool), 2);
            for frame in batch.slots_mut().iter_mut().filter_map(Option::take) {
                queue.push(frame).unwrap();
            }
            batch.clear_taken();
            assert_eq!(port.transmit(queue), 2);
            assert_eq!(port.reclaim(pool), 2);
        });
        assert_eq!(info.count_total, 0, "round {round}: {info:?}");
        assert_eq!(fixture.received_by_peer(), [short.clone(), long.clone()]);
    }
}

/// Sends as many packets as the peer accepts, up to `count`.
fn send_some<M: Method>(fixture: &Fixture<M>, count: usize) -> usize {
    let sent = (0..count).take_while(|&number| fixture.peer.send(&packet(number, 60)).is_ok());
    sent.count()
}

#[test]
fn mmsg_receives_batch_with_one_system_call() {
    let mut fixture = fixture::<Mmsg>();
    let sent = send_some(&fixture, 64);
    assert!(sent >= 10, "the socket accepted only {sent} packets");
    assert_eq!((fixture.receive().len(), fixture.receive().len()), (sent, 0));
    assert_eq!(fixture.port.counters().syscalls, 2);
}

#[test]
fn single_makes_one_system_call_per_packet_and_one_to_end_batch() {
    let mut fixture = fixture::<Single>();
    let sent = send_some(&fixture, 10);
    assert_eq!(fixture.receive().len(), sent);
    assert_eq!(fixture.port.counters().syscalls as usize, sent + 1);
    (0..7).for_each(|number| fixture.push(&packet(number, 60)));
    assert_eq!(fixture.port.transmit(&mut fixture.queue), 7);
    let counters = fixture.port.counters();
    assert_eq!((counters.syscalls as usize, counters.tx_wakes), (sent + 1 + 7, 7));
}

#[test]
fn single_receives_at_most_half_a_batch_per_call() {
    // A datagram socket holds too few messages (`net.unix.max_dgram_qlen`).
    let flags = SockFlag::empty();
    let (local, peer) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    let mut fixture = fixture_on::<Single>(local.into(), peer.into());
    assert_eq!(send_some(&fixture, MAX_RECEIVED + 8), MAX_RECEIVED + 8);
    assert_eq!(fixture.receive().len(), MAX_RECEIVED);
    // The end of the waiting packets was not reached, so no call failed.
    assert_eq!(fixture.port.counters().syscalls as usize, MAX_RECEIVED);
    assert_eq!(fixture.receive().len(), 8);
    assert_eq!(fixture.port.counters().syscalls as usize, MAX_RECEIVED + 9);
}
