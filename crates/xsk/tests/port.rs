//! Tests of the AF_XDP port on the fake kernel. Whatever the kernel refuses, delays or loses,
//! packets are sent in order and every frame has one owner.

use std::time::Instant;

use proptest::prelude::*;
use xdpfwd_xsk::fake_kernel::{DeliveryError, FakeKernel, FakeKernelConfig, FakeRingSizes};
use xdpfwd_xsk::oracle::frame::Edit;
use xdpfwd_xsk::oracle::port::{PortModel, Step, assert_conserved};
use xdpfwd_xsk::{
    Batch, EgressQueue, Frame, HugePages, Pool, Port, Umem, UmemConfig, XskPort, oracle,
};

fn umem(frames: u32) -> (Umem, Pool) {
    Umem::new(&UmemConfig { frames, huge_pages: HugePages::Off, ..UmemConfig::default() }).unwrap()
}

fn packet(number: u64) -> Vec<u8> {
    let mut packet = vec![0x5a; 60 + (number % 7) as usize];
    packet[..8].copy_from_slice(&number.to_be_bytes());
    packet
}

fn move_all(batch: &mut Batch, queue: &mut EgressQueue) {
    for slot in batch.slots_mut() {
        queue.push(slot.take().unwrap()).unwrap();
    }
    batch.clear_taken();
}

#[test]
fn new_port_has_full_fill_ring() {
    let (umem, mut pool) = umem(256);
    let (port, kernel) = FakeKernel::port(&umem, &mut pool, 0);
    assert_eq!(kernel.posted(), 128);
    assert_eq!(port.frame_counts().fill, 128);
    assert_conserved(&umem, &pool, &[&port], 0);
}

#[test]
fn frame_with_moved_start_and_end_is_sent_and_reclaimed() {
    let (umem, mut pool) = umem(256);
    let (mut port, kernel) = FakeKernel::port(&umem, &mut pool, 0);
    let mut queue = EgressQueue::new(&umem, 64);
    let mut batch = Batch::new();
    // Bytes removed at the front (negative: added), and added at the end.
    for (trimmed, appended) in [(-256i32, 0usize), (0, 1700), (20, 3), (-18, 16)] {
        kernel.deliver(&packet(1)).unwrap();
        assert_eq!(port.receive(&mut batch, &mut pool), 1);
        let mut frame = batch.slots_mut()[0].take().unwrap();
        batch.clear_taken();
        assert_eq!(frame.headroom(), 256, "headroom of a received frame");
        let mut expected = packet(1);
        if trimmed < 0 {
            let n = trimmed.unsigned_abs() as usize;
            frame.prepend(n).unwrap().fill(7);
            expected.splice(0..0, vec![7; n]);
        } else {
            frame.trim_front(trimmed as usize);
            expected.drain(..trimmed as usize);
        }
        frame.append(appended).unwrap().fill(9);
        expected.extend(vec![9; appended]);
        queue.push(frame).unwrap();
        assert_eq!(port.transmit(&mut queue), 1);
        assert_eq!(kernel.take_sent(), [expected]);
        assert_eq!(port.reclaim(&mut pool), 1);
        assert_eq!(port.counters().invalid_descriptors, 0);
        assert_conserved(&umem, &pool, &[&port], 0);
    }
    // A reused chunk starts empty.
    let all: Vec<Frame> = std::iter::from_fn(|| pool.alloc()).collect();
    for frame in all {
        assert_eq!((frame.headroom(), frame.len()), (Pool::HEADROOM, 0));
        pool.free(frame).unwrap();
    }
}

#[test]
fn transmit_with_full_tx_ring_leaves_frames_in_queue() {
    let (umem, mut pool) = umem(1024);
    let stalled = FakeKernelConfig { budget: 0, ..FakeKernelConfig::default() };
    let (mut port, kernel) =
        FakeKernel::port_with(&umem, &mut pool, 0, FakeRingSizes::default(), stalled);
    let mut queue = EgressQueue::new(&umem, 512);
    for number in 0..200 {
        let mut frame = pool.alloc().unwrap();
        frame.append(60).unwrap()[..8].copy_from_slice(&u64::to_be_bytes(number));
        queue.push(frame).unwrap();
    }
    assert_eq!(port.transmit(&mut queue), 128, "the TX ring has 128 entries");
    assert!(port.has_unsent());
    assert_eq!(port.transmit(&mut queue), 0);
    assert_eq!(queue.len(), 72);
    assert_conserved(&umem, &pool, &[&port], 72);

    kernel.set(FakeKernelConfig::default());
    while port.has_unsent() || !queue.is_empty() {
        port.transmit(&mut queue);
        port.reclaim(&mut pool);
    }
    let sent: Vec<u64> = kernel
        .take_sent()
        .iter()
        .map(|packet| u64::from_be_bytes(packet[..8].try_into().unwrap()))
        .collect();
    assert_eq!(sent, (0..200).collect::<Vec<_>>());
    assert_conserved(&umem, &pool, &[&port], 0);
}

fn queue_one(pool: &mut Pool, queue: &mut EgressQueue) {
    let mut frame = pool.alloc().unwrap();
    frame.append(60).unwrap().fill(1);
    queue.push(frame).unwrap();
}

#[test]
fn failed_wake_up_is_repeated_without_new_frames() {
    let (umem, mut pool) = umem(256);
    let errors = [libc::EAGAIN, libc::ENOBUFS, libc::ENETDOWN, libc::ENXIO];
    let config = FakeKernelConfig { errors: errors.into(), ..FakeKernelConfig::default() };
    let (mut port, kernel) =
        FakeKernel::port_with(&umem, &mut pool, 0, FakeRingSizes::default(), config);
    let mut queue = EgressQueue::new(&umem, 64);
    queue_one(&mut pool, &mut queue);
    while port.counters().tx_retries < errors.len() as u64 {
        port.transmit(&mut queue);
        assert!(port.has_unsent());
        assert!(kernel.take_sent().is_empty());
    }
    while port.has_unsent() {
        port.transmit(&mut queue);
    }
    assert_eq!(kernel.take_sent().len(), 1);
    assert_eq!(
        (port.counters().tx_packets, kernel.wakeups()),
        (1, 5),
        "expected one packet and five wake-ups"
    );
}

/// Tests each error, and ignored wake-ups. The allowed number of wake-ups depends on the elapsed
/// time.
#[test]
fn wake_ups_without_effect_back_off() {
    let errors = [libc::EAGAIN, libc::ENOBUFS, libc::ENETDOWN, libc::ENXIO].map(|errno| {
        FakeKernelConfig { persistent_error: Some(errno), ..FakeKernelConfig::default() }
    });
    let ignores_all = FakeKernelConfig { ignored_wakeups: u32::MAX, ..FakeKernelConfig::default() };
    let requests_rx_too = FakeKernelConfig { wants_rx_wakeup: true, ..ignores_all.clone() };
    for config in errors.into_iter().chain([ignores_all, requests_rx_too]) {
        let (umem, mut pool) = umem(256);
        let (mut port, kernel) =
            FakeKernel::port_with(&umem, &mut pool, 0, FakeRingSizes::default(), config.clone());
        let mut queue = EgressQueue::new(&umem, 64);
        queue_one(&mut pool, &mut queue);
        let start = Instant::now();
        for _ in 0..20_000 {
            port.transmit(&mut queue);
            port.receive(&mut Batch::new(), &mut pool);
        }
        // Pauses of 10, 20, 40, … 640 µs allow eight wake-ups in the first 1.3 ms, then one per 640
        // µs. Both transmission and reception wake the kernel, hence the factor 2.
        let max = 2 * (8 + start.elapsed().as_micros() / 640);
        assert!(
            u128::from(kernel.wakeups()) <= max,
            "{} wake-ups; expected at most {max}: {config:?}",
            kernel.wakeups()
        );
    }
}

#[test]
fn new_frame_and_completion_end_wake_up_backoff() {
    let (umem, mut pool) = umem(256);
    let refuses = FakeKernelConfig {
        persistent_error: Some(libc::ENOBUFS),
        // Each `run` below completes one packet.
        budget: 1,
        ..FakeKernelConfig::default()
    };
    let (mut port, kernel) =
        FakeKernel::port_with(&umem, &mut pool, 0, FakeRingSizes::default(), refuses);
    let mut queue = EgressQueue::new(&umem, 64);
    queue_one(&mut pool, &mut queue);
    // After nine wake-ups, the pause before the next one has its maximum length.
    while kernel.wakeups() < 9 {
        port.transmit(&mut queue);
    }
    for wake_ups in 10..20 {
        queue_one(&mut pool, &mut queue);
        port.transmit(&mut queue);
        assert_eq!(kernel.wakeups(), wake_ups, "no wake-up for a new frame");
    }
    for wake_ups in 20..25 {
        kernel.run();
        assert_eq!(port.reclaim(&mut pool), 1);
        port.transmit(&mut queue);
        assert_eq!(kernel.wakeups(), wake_ups, "no wake-up after a completion");
    }
}

/// `EBUSY` means that the interface dropped a packet. The same `transmit` sends the other packets.
#[test]
fn packets_dropped_by_interface_are_counted_as_tx_dropped() {
    let (umem, mut pool) = umem(256);
    let config = FakeKernelConfig {
        errors: [libc::EBUSY, libc::EBUSY].into(),
        ..FakeKernelConfig::default()
    };
    let (mut port, kernel) =
        FakeKernel::port_with(&umem, &mut pool, 0, FakeRingSizes::default(), config);
    let mut queue = EgressQueue::new(&umem, 64);
    for number in 0..5 {
        let mut frame = pool.alloc().unwrap();
        frame.append(60).unwrap().fill(number);
        queue.push(frame).unwrap();
    }
    port.transmit(&mut queue);
    let counters = port.counters();
    assert_eq!((counters.tx_packets, counters.tx_dropped, counters.tx_retries), (5, 2, 0));
    assert_eq!(kernel.take_sent().iter().map(|packet| packet[0]).collect::<Vec<_>>(), [2, 3, 4]);
    port.reclaim(&mut pool);
    assert_conserved(&umem, &pool, &[&port], 0);
}

/// In another UMEM, the same chunk number means other bytes.
#[test]
fn port_panics_for_pool_or_queue_of_another_umem() {
    type Call = fn(XskPort, &mut Pool, &mut EgressQueue) -> usize;
    let calls: [Call; 4] = [
        |mut port, pool, _| port.receive(&mut Batch::new(), pool),
        |mut port, pool, _| port.reclaim(pool),
        |mut port, _, queue| port.transmit(queue),
        |port, pool, _| Box::new(port).close(pool).frames(),
    ];
    for (index, call) in calls.into_iter().enumerate() {
        let (umem, mut pool) = umem(256);
        let (other, mut other_pool) = self::umem(256);
        let (port, _kernel) = FakeKernel::port(&umem, &mut pool, 0);
        let mut queue = EgressQueue::new(&other, 64);
        let call = std::panic::AssertUnwindSafe(|| call(port, &mut other_pool, &mut queue));
        let panic =
            std::panic::catch_unwind(call).expect_err(&format!("call {index} did not panic"));
        assert!(panic.downcast_ref::<&str>().unwrap().contains("belong to different UMEMs"));
    }
}

#[test]
#[should_panic(expected = "another port of this UMEM has index 0")]
fn second_port_with_same_index_panics() {
    let (umem, mut pool) = umem(512);
    let _first = FakeKernel::port(&umem, &mut pool, 0);
    let _second = FakeKernel::port(&umem, &mut pool, 0);
}

/// A kernel that sends 32 descriptors per wake-up, as before Linux 6.17, is woken until all are
/// sent.
#[test]
fn transmit_with_small_budget_wakes_kernel_until_all_are_sent() {
    let (umem, mut pool) = umem(1024);
    let sizes = FakeRingSizes { tx: 256, completion: 256, ..FakeRingSizes::default() };
    let config = FakeKernelConfig { budget: 32, ..FakeKernelConfig::default() };
    let (mut port, kernel) = FakeKernel::port_with(&umem, &mut pool, 0, sizes, config);
    let mut queue = EgressQueue::new(&umem, 256);
    for _ in 0..256 {
        let mut frame = pool.alloc().unwrap();
        frame.append(60).unwrap().fill(0);
        queue.push(frame).unwrap();
    }
    assert_eq!(port.transmit(&mut queue), 256);
    assert_eq!(kernel.take_sent().len(), 256);
    assert_eq!(
        (port.has_unsent(), port.counters().syscalls, port.counters().tx_retries),
        (false, 8, 0)
    );
}

#[test]
fn port_wakes_kernel_only_on_request() {
    let (umem, mut pool) = umem(256);
    let requests_none = FakeKernelConfig { wants_tx_wakeup: false, ..FakeKernelConfig::default() };
    let (mut port, kernel) =
        FakeKernel::port_with(&umem, &mut pool, 0, FakeRingSizes::default(), requests_none);
    let mut queue = EgressQueue::new(&umem, 64);
    let mut frame = pool.alloc().unwrap();
    frame.append(60).unwrap().fill(1);
    queue.push(frame).unwrap();
    port.transmit(&mut queue);
    assert_eq!((kernel.wakeups(), port.counters().syscalls), (0, 0));
    kernel.run();
    assert_eq!(kernel.take_sent().len(), 1);

    kernel.set(FakeKernelConfig { wants_rx_wakeup: true, ..FakeKernelConfig::default() });
    let mut batch = Batch::new();
    port.receive(&mut batch, &mut pool);
    assert_eq!(
        (kernel.wakeups(), port.counters().syscalls),
        (1, 1),
        "expected one wake-up because of the fill ring's flag"
    );
}

#[test]
fn invalid_descriptors_of_kernel_are_rejected_and_counted() {
    let (umem, mut pool) = umem(256);
    let (mut port, kernel) = FakeKernel::port(&umem, &mut pool, 0);
    let pool_address = 2048 * 200; // address of chunk 200, which is in the pool
    let invalid = [
        (pool_address + 256, 60), // a chunk that the kernel does not own
        (u64::MAX, 60),           // outside the UMEM
        (256 * 2048, 60),         // directly after the UMEM
        (2048 + 2000, 60),        // across the end of a chunk
        (2048, 5000),             // longer than a chunk
        (0, u32::MAX),            // longer than the UMEM
    ];
    for (address, len) in invalid {
        assert!(kernel.deliver_descriptor(address, len));
    }
    kernel.deliver(&packet(3)).unwrap();
    let mut batch = Batch::new();
    assert_eq!(port.receive(&mut batch, &mut pool), 1);
    assert_eq!(batch.slots()[0].as_deref().unwrap(), packet(3));
    assert_eq!(port.counters().invalid_descriptors, invalid.len() as u64);

    let mut queue = EgressQueue::new(&umem, 64);
    move_all(&mut batch, &mut queue);
    kernel.set(FakeKernelConfig { completion_delay: None, ..FakeKernelConfig::default() });
    port.transmit(&mut queue);
    assert!(kernel.complete_address(pool_address));
    assert_eq!(
        port.reclaim(&mut pool),
        0,
        "the completion of a chunk that was not sent was accepted"
    );
    assert_eq!(port.counters().invalid_descriptors, invalid.len() as u64 + 1);
    assert_conserved(&umem, &pool, &[&port], 0);
}

#[test]
fn closed_port_returns_fill_frames_but_not_tx_frames() {
    let (umem, mut pool) = umem(1024);
    let never_completes =
        FakeKernelConfig { completion_delay: None, ..FakeKernelConfig::default() };
    let (mut closing, kernel) =
        FakeKernel::port_with(&umem, &mut pool, 0, FakeRingSizes::default(), never_completes);
    let (other_port, _) = FakeKernel::port(&umem, &mut pool, 1);
    let mut batch = Batch::new();
    let mut queue = EgressQueue::new(&umem, 64);
    for number in 0..40 {
        kernel.deliver(&packet(number)).unwrap();
    }
    closing.receive(&mut batch, &mut pool);
    move_all(&mut batch, &mut queue);
    closing.transmit(&mut queue);
    for number in 0..10 {
        kernel.deliver(&packet(number)).unwrap();
    }
    assert_eq!((closing.frame_counts().tx, closing.frame_counts().rx), (40, 10));
    // Only frames posted for reception are in the pool again: a device may still refer to the 40
    // frames posted for transmission.
    let quarantine = Box::new(closing).close(&mut pool);
    assert_eq!((quarantine.frames(), umem.ownership().closed, umem.ownership().tx), (40, 0, 40));
    drop(quarantine);
    assert_eq!((umem.ownership().closed, umem.ownership().tx), (40, 0));
    assert_eq!(pool.len() as u64 + 40 + other_port.frame_counts().total(), 1024);
    assert_eq!(
        kernel.deliver(&packet(0)),
        Err(DeliveryError::FillRingEmpty),
        "the kernel wrote to a reclaimed frame"
    );
}

#[test]
fn frames_of_closed_port_return_to_pool_with_later_proof_about_same_queue() {
    let (umem, mut pool) = umem(1024);
    let never_completes =
        FakeKernelConfig { completion_delay: None, ..FakeKernelConfig::default() };
    let (mut closing, _kernel) =
        FakeKernel::port_with(&umem, &mut pool, 0, FakeRingSizes::default(), never_completes);
    let mut queue = EgressQueue::new(&umem, 64);
    for number in 0..40 {
        let (mut frame, bytes) = (pool.alloc().unwrap(), packet(number));
        frame.append(bytes.len()).unwrap().copy_from_slice(&bytes);
        queue.push(frame).unwrap();
    }
    closing.transmit(&mut queue);
    let too_early = FakeKernel::release(0);
    let quarantine = Box::new(closing).close(&mut pool);
    let quarantine = quarantine.take_back(&too_early, &mut pool).unwrap_err();
    let quarantine = quarantine.take_back(&FakeKernel::release(1), &mut pool).unwrap_err();
    assert_eq!((quarantine.frames(), pool.len(), umem.ownership().tx), (40, 1024 - 40, 40));
    assert_eq!(quarantine.take_back(&FakeKernel::release(0), &mut pool).unwrap(), 40);
    assert_eq!((pool.len(), umem.ownership().pool), (1024, 1024));
    // The slot is free again.
    FakeKernel::port(&umem, &mut pool, 0);
}

#[test]
fn port_is_bound_until_its_interface_vanishes() {
    let (umem, mut pool) = umem(256);
    let (port, kernel) = FakeKernel::port(&umem, &mut pool, 0);
    assert!(port.is_bound());
    kernel.vanish();
    assert!(!port.is_bound());
}

#[test]
fn kernel_counters_count_full_rx_ring_and_long_packets() {
    let (umem, mut pool) = umem(256);
    let sizes = FakeRingSizes { fill: 16, rx: 8, ..FakeRingSizes::default() };
    let (port, kernel) =
        FakeKernel::port_with(&umem, &mut pool, 0, sizes, FakeKernelConfig::default());
    for number in 0..8 {
        kernel.deliver(&packet(number)).unwrap();
    }
    assert_eq!(kernel.deliver(&packet(8)), Err(DeliveryError::RxRingFull));
    let too_long = [0; 2048 - Pool::HEADROOM + 1];
    assert_eq!(kernel.deliver(&too_long), Err(DeliveryError::TooLong));
    assert_eq!((port.kernel_counters().rx_ring_full, port.kernel_counters().rx_dropped), (1, 1));
}

/// Runs every kind of step, in a fixed order.
#[test]
fn ports_match_model_for_every_kind_of_step() {
    let mut model = PortModel::new(
        2048,
        FakeRingSizes { fill: 64, start: 0u32.wrapping_sub(40), ..FakeRingSizes::default() },
    );
    let never_completes =
        FakeKernelConfig { completion_delay: None, ..FakeKernelConfig::default() };
    let partial = FakeKernelConfig {
        budget: 7,
        completions_per_wakeup: 3,
        completion_delay: Some(2),
        ..FakeKernelConfig::default()
    };
    let drops_packets = FakeKernelConfig {
        errors: [libc::EBUSY, libc::EBUSY].into(),
        ..FakeKernelConfig::default()
    };
    let ignores_all = FakeKernelConfig { ignored_wakeups: u32::MAX, ..FakeKernelConfig::default() };
    let refuses =
        FakeKernelConfig { persistent_error: Some(libc::ENETDOWN), ..FakeKernelConfig::default() };
    for config in
        [FakeKernelConfig::default(), partial, drops_packets, ignores_all, refuses, never_completes]
    {
        for step in [
            Step::Configure(1, config),
            Step::Deliver { port: 0, count: 70, len: 60 },
            Step::Deliver { port: 0, count: 2, len: 2000 },
            Step::Receive(0),
            Step::Receive(0),
            Step::Edit(3, Edit::Prepend(40)),
            Step::Edit(4, Edit::TrimFront(20)),
            Step::Edit(5, Edit::Append(1600)),
            Step::Edit(6, Edit::Truncate(10)),
            Step::Alloc(100),
            Step::Free(1),
            Step::Lose(1),
            Step::Foreign { port: 1, held: 0 },
            Step::InvalidReception { port: 0, held: Some(2), len: 60 },
            Step::InvalidCompletion(1),
            Step::Enqueue { port: 1, count: 50 },
            Step::Transmit(1),
            Step::Enqueue { port: 0, count: 5 },
            Step::Transmit(0),
            Step::Reclaim(1),
            Step::Run(1),
            Step::Transmit(1),
            Step::Reclaim(1),
        ] {
            model.step(step);
        }
    }
    for step in [
        Step::Close(1),
        Step::Open(1),
        Step::Vanish(0),
        Step::Transmit(0),
        Step::DropPort(0),
        Step::Open(0),
    ] {
        model.step(step);
    }
    model.finish();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// For any steps and kernel behaviour, each frame has one owner, packets are sent unchanged and
    /// in order, and none stays in flight after the kernel works normally again.
    #[test]
    fn ports_match_model_for_random_steps(
        steps in prop::collection::vec(any::<[u8; 4]>(), 1..200),
    ) {
        oracle::port::run(steps);
    }
}
