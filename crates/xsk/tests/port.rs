//! The AF_XDP port on the fake kernel: what comes in goes out, and every frame is in one place, whatever the kernel does.

use std::collections::VecDeque;

use proptest::prelude::*;
use xsk::fake_kernel::{Behaviour, FakeKernel, Lost, Sizes};
use xsk::{Batch, EgressQueue, Frame, HugePages, Ownership, Pool, Port, Umem, UmemConfig, XskPort};

fn umem(frames: u32) -> (Umem, Pool) {
    Umem::new(&UmemConfig { frames, huge_pages: HugePages::Off, ..UmemConfig::default() }).unwrap()
}

fn packet(number: u64) -> Vec<u8> {
    let mut packet = vec![0x5a; 60 + (number % 7) as usize];
    packet[..8].copy_from_slice(&number.to_be_bytes());
    packet
}

fn move_all(batch: &mut Batch, queue: &mut EgressQueue) {
    for place in batch.places_mut() {
        queue.push(place.take().unwrap()).unwrap();
    }
    batch.clear_taken();
}

/// The structural count and the record agree, and nothing is lost.
fn assert_conserved(umem: &Umem, pool: &Pool, ports: &[&XskPort], held: usize) {
    let mut at_the_kernel = xsk::Census::default();
    for port in ports {
        at_the_kernel += port.census();
    }
    let total = pool.len() as u64 + at_the_kernel.total() + held as u64;
    assert_eq!(total, u64::from(umem.frames()), "pool {}, kernel {at_the_kernel:?}, held {held}", pool.len());
    let expected = Ownership {
        pool: pool.len() as u32,
        held: held as u32,
        fill: (at_the_kernel.fill + at_the_kernel.rx) as u32,
        tx: (at_the_kernel.tx + at_the_kernel.completion) as u32,
        ..Ownership::default()
    };
    assert_eq!(umem.ownership(), expected);
}

#[test]
fn the_fill_ring_is_full_before_anything_else_happens() {
    let (umem, mut pool) = umem(256);
    let (port, kernel) = FakeKernel::port(&umem, &mut pool, 0);
    assert_eq!(kernel.posted(), 128);
    assert_eq!(port.census().fill, 128);
    assert_conserved(&umem, &pool, &[&port], 0);
}

#[test]
fn a_frame_whose_start_moved_is_sent_from_there_and_comes_back_whole() {
    let (umem, mut pool) = umem(256);
    let (mut port, kernel) = FakeKernel::port(&umem, &mut pool, 0);
    let mut queue = EgressQueue::new(&umem, 64);
    let mut batch = Batch::new();
    for (front, back) in [(-256i32, 0usize), (0, 1700), (20, 3), (-18, 16)] {
        kernel.deliver(&packet(1)).unwrap();
        assert_eq!(port.receive(&mut batch, &mut pool), 1);
        let mut frame = batch.places_mut()[0].take().unwrap();
        batch.clear_taken();
        assert_eq!(frame.headroom(), 256, "what the kernel leaves in front");
        let mut expected = packet(1);
        if front < 0 {
            let n = front.unsigned_abs() as usize;
            frame.prepend(n).unwrap().fill(7);
            expected.splice(0..0, vec![7; n]);
        } else {
            frame.trim_front(front as usize);
            expected.drain(..front as usize);
        }
        frame.append(back).unwrap().fill(9);
        expected.extend(vec![9; back]);
        queue.push(frame).unwrap();
        assert_eq!(port.transmit(&mut queue), 1);
        assert_eq!(kernel.take_sent(), [expected]);
        assert_eq!(port.reclaim(&mut pool), 1);
        assert_eq!(port.counters().invalid_descriptors, 0);
        assert_conserved(&umem, &pool, &[&port], 0);
    }
    // The chunk that comes back starts afresh.
    assert!((0..pool.len()).map(|_| pool.alloc().unwrap()).all(|frame: Frame| {
        let fresh = frame.headroom() == Pool::HEADROOM && frame.is_empty();
        std::mem::forget(frame);
        fresh
    }));
}

#[test]
fn what_the_tx_ring_cannot_take_stays_in_the_queue() {
    let (umem, mut pool) = umem(1024);
    let never = Behaviour { budget: 0, ..Behaviour::default() };
    let (mut port, kernel) = FakeKernel::port_with(&umem, &mut pool, 0, Sizes::default(), never);
    let mut queue = EgressQueue::new(&umem, 512);
    for number in 0..200 {
        let mut frame = pool.alloc().unwrap();
        frame.append(60).unwrap()[..8].copy_from_slice(&u64::to_be_bytes(number));
        queue.push(frame).unwrap();
    }
    assert_eq!(port.transmit(&mut queue), 128, "the ring's size");
    assert!(port.unsent());
    assert_eq!(port.transmit(&mut queue), 0);
    assert_eq!(queue.len(), 72);
    assert_conserved(&umem, &pool, &[&port], 72);

    kernel.set(Behaviour::default());
    while port.unsent() || !queue.is_empty() {
        port.transmit(&mut queue);
        port.reclaim(&mut pool);
    }
    let order: Vec<u64> = kernel.take_sent().iter().map(|p| u64::from_be_bytes(p[..8].try_into().unwrap())).collect();
    assert_eq!(order, (0..200).collect::<Vec<_>>());
    assert_conserved(&umem, &pool, &[&port], 0);
}

#[test]
fn a_kick_that_fails_is_repeated_without_new_frames() {
    let (umem, mut pool) = umem(256);
    let errors = [libc::EAGAIN, libc::ENOBUFS, libc::ENETDOWN, libc::ENXIO];
    let behaviour = Behaviour { errors: errors.into(), ..Behaviour::default() };
    let (mut port, kernel) = FakeKernel::port_with(&umem, &mut pool, 0, Sizes::default(), behaviour);
    let mut queue = EgressQueue::new(&umem, 64);
    let mut frame = pool.alloc().unwrap();
    frame.append(60).unwrap().fill(1);
    queue.push(frame).unwrap();
    for retries in 1..=errors.len() as u64 {
        port.transmit(&mut queue);
        assert!(port.unsent());
        assert_eq!(port.counters().tx_retries, retries);
        assert!(kernel.take_sent().is_empty());
    }
    port.transmit(&mut queue);
    assert!(!port.unsent());
    assert_eq!(kernel.take_sent().len(), 1);
    assert_eq!(port.counters().tx_packets, 1, "counted once");
}

/// `EBUSY` means that the interface threw a packet away; the rest goes out in the same call.
#[test]
fn packets_that_the_interface_throws_away_are_counted() {
    let (umem, mut pool) = umem(256);
    let behaviour = Behaviour { errors: [libc::EBUSY, libc::EBUSY].into(), ..Behaviour::default() };
    let (mut port, kernel) = FakeKernel::port_with(&umem, &mut pool, 0, Sizes::default(), behaviour);
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

/// Chunk numbers of one UMEM mean other bytes in another: a port refuses to mix them up.
#[test]
fn pools_and_queues_of_another_umem_are_refused() {
    type Act = fn(XskPort, &mut Pool, &mut EgressQueue) -> usize;
    let acts: [Act; 4] = [
        |mut port, pool, _| port.receive(&mut Batch::new(), pool),
        |mut port, pool, _| port.reclaim(pool),
        |mut port, _, queue| port.transmit(queue),
        |port, pool, _| Box::new(port).close(pool),
    ];
    for (index, act) in acts.into_iter().enumerate() {
        let (umem, mut pool) = umem(256);
        let (other, mut other_pool) = self::umem(256);
        let (port, _kernel) = FakeKernel::port(&umem, &mut pool, 0);
        let mut queue = EgressQueue::new(&other, 64);
        let act = std::panic::AssertUnwindSafe(|| act(port, &mut other_pool, &mut queue));
        let panic = std::panic::catch_unwind(act).expect_err(&format!("call {index}"));
        assert!(panic.downcast_ref::<&str>().unwrap().contains("is of another UMEM than the port"));
    }
}

#[test]
#[should_panic(expected = "another port of this UMEM has index 0")]
fn two_ports_cannot_have_one_index() {
    let (umem, mut pool) = umem(512);
    let _first = FakeKernel::port(&umem, &mut pool, 0);
    let _second = FakeKernel::port(&umem, &mut pool, 0);
}

/// A kernel that sends 32 descriptors a call, as before Linux 6.17, is called until all are sent.
#[test]
fn a_small_budget_is_no_reason_to_wait_for_the_next_turn() {
    let (umem, mut pool) = umem(1024);
    let sizes = Sizes { tx: 256, completion: 256, ..Sizes::default() };
    let behaviour = Behaviour { budget: 32, ..Behaviour::default() };
    let (mut port, kernel) = FakeKernel::port_with(&umem, &mut pool, 0, sizes, behaviour);
    let mut queue = EgressQueue::new(&umem, 256);
    for _ in 0..256 {
        let mut frame = pool.alloc().unwrap();
        frame.append(60).unwrap().fill(0);
        queue.push(frame).unwrap();
    }
    assert_eq!(port.transmit(&mut queue), 256);
    assert_eq!(kernel.take_sent().len(), 256);
    assert_eq!((port.unsent(), port.counters().syscalls, port.counters().tx_retries), (false, 8, 0));
}

#[test]
fn no_wake_up_that_was_not_asked_for() {
    let (umem, mut pool) = umem(256);
    let busy = Behaviour { wants_tx_wakeup: false, ..Behaviour::default() };
    let (mut port, kernel) = FakeKernel::port_with(&umem, &mut pool, 0, Sizes::default(), busy);
    let mut queue = EgressQueue::new(&umem, 64);
    let mut frame = pool.alloc().unwrap();
    frame.append(60).unwrap().fill(1);
    queue.push(frame).unwrap();
    port.transmit(&mut queue);
    assert_eq!((kernel.wakeups(), port.counters().syscalls), (0, 0));
    kernel.run();
    assert_eq!(kernel.take_sent().len(), 1);

    kernel.set(Behaviour { wants_rx_wakeup: true, ..Behaviour::default() });
    let mut batch = Batch::new();
    port.receive(&mut batch, &mut pool);
    assert_eq!((kernel.wakeups(), port.counters().syscalls), (1, 1), "the fill ring's flag is heeded");
}

#[test]
fn a_lying_kernel_is_refused_and_counted() {
    let (umem, mut pool) = umem(256);
    let (mut port, kernel) = FakeKernel::port(&umem, &mut pool, 0);
    let free = 2048 * 200; // a chunk that is in the pool
    let lies = [(free + 256, 60), (u64::MAX, 60), (256 * 2048, 60), (2048 + 2000, 60), (2048, 5000), (0, u32::MAX)];
    for (address, len) in lies {
        assert!(kernel.deliver_descriptor(address, len));
    }
    kernel.deliver(&packet(3)).unwrap();
    let mut batch = Batch::new();
    assert_eq!(port.receive(&mut batch, &mut pool), 1);
    assert_eq!(batch.places()[0].as_deref().unwrap(), packet(3));
    assert_eq!(port.counters().invalid_descriptors, lies.len() as u64);

    let mut queue = EgressQueue::new(&umem, 64);
    move_all(&mut batch, &mut queue);
    kernel.set(Behaviour { completion_delay: None, ..Behaviour::default() });
    port.transmit(&mut queue);
    assert!(kernel.complete_address(free));
    assert_eq!(port.reclaim(&mut pool), 0, "a completion of a frame that was not sent");
    assert_eq!(port.counters().invalid_descriptors, lies.len() as u64 + 1);
    assert_conserved(&umem, &pool, &[&port], 0);
}

#[test]
fn a_closed_port_gives_its_frames_back() {
    let (umem, mut pool) = umem(1024);
    let silent = Behaviour { completion_delay: None, ..Behaviour::default() };
    let (mut gone, kernel) = FakeKernel::port_with(&umem, &mut pool, 0, Sizes::default(), silent);
    let (stays, _) = FakeKernel::port(&umem, &mut pool, 1);
    let mut batch = Batch::new();
    let mut queue = EgressQueue::new(&umem, 64);
    for number in 0..40 {
        kernel.deliver(&packet(number)).unwrap();
    }
    gone.receive(&mut batch, &mut pool);
    move_all(&mut batch, &mut queue);
    gone.transmit(&mut queue);
    for number in 0..10 {
        kernel.deliver(&packet(number)).unwrap();
    }
    assert_eq!((gone.census().tx, gone.census().rx), (40, 10));
    // What was posted for reception is back; what was being sent may still hang somewhere by reference.
    assert_eq!(Box::new(gone).close(&mut pool), 40);
    assert_eq!((umem.ownership().closed, umem.ownership().tx), (40, 0));
    assert_eq!(pool.len() as u64 + 40 + stays.census().total(), 1024);
    assert_eq!(kernel.deliver(&packet(0)), Err(Lost::FillRingEmpty), "it writes to nothing that was taken back");
}

#[test]
fn the_kernels_losses_are_counted() {
    let (umem, mut pool) = umem(256);
    let sizes = Sizes { fill: 16, rx: 8, ..Sizes::default() };
    let (port, kernel) = FakeKernel::port_with(&umem, &mut pool, 0, sizes, Behaviour::default());
    for number in 0..8 {
        kernel.deliver(&packet(number)).unwrap();
    }
    assert_eq!(kernel.deliver(&packet(8)), Err(Lost::RxRingFull));
    assert_eq!(kernel.deliver(&[0; 1793]), Err(Lost::TooLong));
    assert_eq!((port.kernel_counters().rx_ring_full, port.kernel_counters().rx_dropped), (1, 1));
}

#[derive(Clone, Debug)]
enum Step {
    Deliver(u8),
    Receive,
    DropOne,
    Enqueue(usize),
    Transmit,
    Run,
    Reclaim,
    Behave(Behaviour),
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    let errno = prop::sample::select(vec![libc::EAGAIN, libc::ENOBUFS, libc::ENETDOWN]);
    (
        prop_oneof![Just(0u32), 1..40u32, Just(u32::MAX)],
        prop::option::of(0..4u32),
        prop_oneof![Just(0u32), 1..40u32, Just(u32::MAX)],
        prop::collection::vec(errno, 0..3),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(budget, completion_delay, completions_per_wakeup, errors, wants_tx_wakeup, wants_rx_wakeup)| Behaviour {
                budget,
                completion_delay,
                completions_per_wakeup,
                errors: errors.into(),
                wants_tx_wakeup,
                wants_rx_wakeup,
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..80u8).prop_map(Step::Deliver),
        4 => Just(Step::Receive),
        1 => Just(Step::DropOne),
        4 => (1..64usize).prop_map(Step::Enqueue),
        4 => Just(Step::Transmit),
        2 => Just(Step::Run),
        4 => Just(Step::Reclaim),
        1 => behaviour().prop_map(Step::Behave),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the order of events and however the kernel behaves: each frame is in one place at each moment, packets
    /// leave unchanged and in order, and once the kernel does its work nothing is left on the way.
    #[test]
    fn conserves(steps in prop::collection::vec(step(), 1..120), back in 0..300u32) {
        let (umem, mut pool) = umem(512);
        let sizes = Sizes { start: 0u32.wrapping_sub(back), ..Sizes::default() };
        let (mut port, kernel) = FakeKernel::port_with(&umem, &mut pool, 0, sizes, Behaviour::default());
        let mut batch = Batch::new();
        let mut user: VecDeque<Frame> = VecDeque::new();
        let mut queue = EgressQueue::new(&umem, 100);
        let mut next = 0u64;
        let mut to_be_sent = vec![];
        let mut sent = vec![];
        for step in steps {
            match step {
                Step::Deliver(n) => {
                    for _ in 0..n {
                        if kernel.deliver(&packet(next)).is_ok() {
                            next += 1;
                        }
                    }
                }
                Step::Receive => {
                    port.receive(&mut batch, &mut pool);
                    user.extend(batch.places_mut().iter_mut().filter_map(Option::take));
                    batch.clear_taken();
                }
                Step::DropOne => {
                    if let Some(frame) = user.pop_back() {
                        pool.free(frame).unwrap();
                    }
                }
                Step::Enqueue(n) => {
                    for _ in 0..n.min(user.len()) {
                        let frame = user.pop_front().unwrap();
                        let bytes = frame.to_vec();
                        match queue.push(frame) {
                            Ok(()) => to_be_sent.push(bytes),
                            Err(xsk::Refused::Full(frame)) => pool.free(frame).unwrap(),
                            Err(other) => prop_assert!(false, "{other}"),
                        }
                    }
                }
                Step::Transmit => { port.transmit(&mut queue); }
                Step::Run => kernel.run(),
                Step::Reclaim => { port.reclaim(&mut pool); }
                Step::Behave(behaviour) => kernel.set(behaviour),
            }
            assert_conserved(&umem, &pool, &[&port], user.len() + queue.len());
            sent.extend(kernel.take_sent());
        }
        kernel.set(Behaviour::default());
        let mut turns = 0;
        while !queue.is_empty() || port.unsent() || port.census().tx + port.census().completion > 0 {
            port.transmit(&mut queue);
            kernel.run();
            port.reclaim(&mut pool);
            turns += 1;
            prop_assert!(turns < 50, "does not come to an end: {port:?} {queue:?}");
        }
        sent.extend(kernel.take_sent());
        prop_assert_eq!(sent, to_be_sent);
        prop_assert_eq!(port.counters().invalid_descriptors, 0);
        assert_conserved(&umem, &pool, &[&port], user.len());
        user.into_iter().for_each(|frame| pool.free(frame).unwrap());
    }
}
