//! The worker and a kernel that does not do its part: rings that stay full, completions that are
//! late or never come, wake-ups that are lost or refused, an interface that disappears. Nothing
//! blocks, nothing leaks, and after every step each packet that came in is sent, under way, or
//! counted with the reason why not.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use xdpfwd_pipeline::{Idle, Reason, Worker, mailbox};
use xdpfwd_testkit::wires::{
    WireAccounting, Wires, assert_conserved, cross_connect, cross_connect_on, cross_connect_with,
    numbers, packet,
};
use xdpfwd_xsk::fake_kernel::Behaviour;
use xdpfwd_xsk::{UmemConfig, oracle};

#[test]
fn a_port_that_does_not_send_drops_and_counts_and_leaves_the_other_direction_alone() {
    let stalled = Behaviour { budget: 0, ..Behaviour::default() };
    let (mut worker, wires) = cross_connect_with((), (), stalled);
    let mut delivered = 0u64;
    for round in 0..100u64 {
        for _ in 0..32 {
            delivered += u64::from(wires.lan.deliver(&packet(delivered)).is_ok());
        }
        wires.wan.deliver(&packet(round)).unwrap();
        worker.poll_once();
        assert_eq!(numbers(&wires.lan.take_sent()), [round], "the other direction flows");
        assert_conserved(&mut worker);
    }
    let report = worker.report();
    let waiting = report.frames.in_flight + report.frames.tx;
    assert_eq!(
        delivered,
        report.drops[Reason::EGRESS_FULL] + waiting,
        "each is dropped and counted, or waits"
    );
    assert!(report.drops[Reason::EGRESS_FULL] > 2000);

    wires.wan.set(Behaviour::default());
    worker.drain(Duration::from_secs(5));
    assert_eq!(wires.wan.take_sent().len() as u64, waiting);
    assert_eq!(assert_conserved(&mut worker).in_flight, 0);
}

#[test]
fn a_kernel_that_never_completes_stops_transmission_and_nothing_else() {
    let silent = Behaviour { completion_delay: None, ..Behaviour::default() };
    let (mut worker, wires) = cross_connect_with((), (), silent);
    for n in 0..4000 {
        let _ = wires.lan.deliver(&packet(n));
        worker.poll_once();
    }
    assert_conserved(&mut worker);
    let start = Instant::now();
    worker.drain(Duration::from_millis(50));
    assert!(start.elapsed() < Duration::from_secs(20), "drain ends without the completions");
    assert_conserved(&mut worker);
}

#[test]
fn what_is_still_queued_at_the_end_is_dropped_as_shutdown() {
    let stalled = Behaviour { budget: 0, ..Behaviour::default() };
    let (mut worker, wires) = cross_connect_with((), (), stalled);
    for n in 0..200 {
        wires.lan.deliver(&packet(n)).unwrap();
        worker.poll_once();
    }
    worker.drain(Duration::from_millis(20));
    let report = worker.report();
    assert_eq!(report.drops[Reason::SHUTDOWN], 200 - 128, "all but the TX ring's");
    assert_eq!(assert_conserved(&mut worker).in_flight, 0);
}

/// Packets both ways for some rounds, with the books balanced after each; what goes to lan is not
/// held up by wan.
fn rounds(worker: &mut Worker<()>, wires: &Wires, books: &mut WireAccounting, rounds: u64) {
    for _ in 0..rounds {
        books.deliver(&wires.lan, 20);
        books.deliver(&wires.wan, 3);
        worker.poll_once();
        books.balance(worker, wires);
    }
}

/// The kernel has come to its senses: all that is under way gets to its end.
fn recovers(worker: &mut Worker<()>, wires: &Wires, books: &mut WireAccounting) {
    for wire in [&wires.lan, &wires.wan] {
        wire.set(Behaviour::default());
        // What it had sent and not reported, it reports now: nobody may wake it for that.
        wire.run();
    }
    rounds(worker, wires, books, 3);
    worker.drain(Duration::from_secs(20));
    let frames = books.balance(worker, wires);
    assert_eq!((frames.in_flight, frames.tx, frames.completion, frames.rx), (0, 0, 0, 0));
    for left in &books.left {
        assert!(left.is_sorted(), "out of order");
    }
}

/// A worker whose wan kernel behaves like this for a while, and then well.
fn survives(wan: Behaviour) -> WireAccounting {
    let (mut worker, wires) = cross_connect_with((), (), wan);
    let mut books = WireAccounting::default();
    rounds(&mut worker, &wires, &mut books, 60);
    recovers(&mut worker, &wires, &mut books);
    assert_eq!(books.delivered, books.sent + books.thrown_away + worker.report().drops.total());
    books
}

#[test]
fn completions_that_are_late() {
    for delay in [1, 2, 7] {
        survives(Behaviour { completion_delay: Some(delay), ..Behaviour::default() });
    }
}

#[test]
fn completions_that_come_in_part() {
    for completions_per_wakeup in [0, 1, 19] {
        survives(Behaviour { completions_per_wakeup, ..Behaviour::default() });
    }
}

#[test]
fn completions_that_never_come() {
    survives(Behaviour { completion_delay: None, ..Behaviour::default() });
}

#[test]
fn a_transmit_ring_that_stays_full() {
    let books = survives(Behaviour { budget: 0, ..Behaviour::default() });
    assert!(books.delivered > books.sent, "some were dropped");
    survives(Behaviour { budget: 1, ..Behaviour::default() });
}

#[test]
fn wake_ups_that_are_lost() {
    for ignored_wakeups in [1, 3, u32::MAX] {
        survives(Behaviour { ignored_wakeups, ..Behaviour::default() });
    }
}

#[test]
fn wake_ups_that_are_refused_once_or_always() {
    for errno in [libc::EAGAIN, libc::ENOBUFS, libc::ENETDOWN] {
        let once = survives(Behaviour { errors: [errno].into(), ..Behaviour::default() });
        assert_eq!(once.delivered, once.sent, "nothing is lost by it");
        survives(Behaviour { answer: Some(errno), ..Behaviour::default() });
    }
}

#[test]
fn packets_that_the_interface_throws_away() {
    let books = survives(Behaviour { errors: [libc::EBUSY; 50].into(), ..Behaviour::default() });
    assert_eq!((books.delivered, books.thrown_away), (books.sent + 50, 50));
    survives(Behaviour { answer: Some(libc::EBUSY), ..Behaviour::default() });
}

/// A small UMEM whose frames all wait to be sent: none is left for reception. What arrives then the
/// kernel loses, and counts; when frames come back, reception goes on.
#[test]
fn a_fill_ring_that_runs_dry() {
    let small = UmemConfig { frames: 256, ..xdpfwd_testkit::wires::umem_config() };
    let stalled = Behaviour { budget: 0, ..Behaviour::default() };
    let (mut worker, wires) = cross_connect_on(&small, (), (), stalled);
    let mut books = WireAccounting::default();
    for _ in 0..20 {
        books.deliver(&wires.lan, 20);
        worker.poll_once();
        books.balance(&mut worker, &wires);
    }
    assert_eq!(wires.lan.posted(), 0, "dry");
    assert_eq!(worker.frames().pool, 0);
    let lost = worker.report().queues[0].kernel.fill_ring_empty;
    assert_eq!(
        books.delivered + lost,
        20 * 20,
        "each was delivered, or lost by the kernel and counted"
    );
    assert!(lost > 0);
    recovers(&mut worker, &wires, &mut books);
    assert!(wires.lan.posted() > 0);
}

/// The interface goes while it is sending: what it had not sent stays where it is, what comes after
/// is dropped and counted, the other direction gives up its packets in the same way, and the worker
/// ends when it is told to.
#[test]
fn an_interface_that_disappears_in_the_middle_of_a_batch() {
    for after in [1, 19, 50, 777] {
        let (mut worker, wires) = cross_connect_with(
            (),
            (),
            Behaviour { vanishes_after: Some(after), ..Behaviour::default() },
        );
        let mut books = WireAccounting::default();
        rounds(&mut worker, &wires, &mut books, 120);
        assert_eq!(books.left[1], first_of_lan(&books, after), "so many were sent, the first ones");
        let before = worker.report();
        assert!(before.drops[Reason::EGRESS_FULL] > 0);
        assert!(before.queues[1].counters.tx_retries > 0);

        // lan goes as well: no port is left, and still every packet is accounted for.
        wires.lan.vanish();
        rounds(&mut worker, &wires, &mut books, 20);
        worker.drain(Duration::from_millis(20));
        let frames = books.balance(&mut worker, &wires);
        assert_eq!((frames.in_flight, frames.rx), (0, 0), "what was queued is dropped");
        assert!(worker.report().drops[Reason::SHUTDOWN] > 0);
    }
}

/// The numbers of the first packets that lan delivered.
fn first_of_lan(books: &WireAccounting, count: u32) -> Vec<u64> {
    (0..books.delivered).filter(|number| number % 23 < 20).take(count as usize).collect()
}

/// While a port cannot send, an idle worker asks again now and then, not at every turn; measured
/// against the time that went by.
#[test]
fn an_idle_worker_does_not_waste_wake_ups_on_a_port_that_cannot_send() {
    for errno in [libc::EAGAIN, libc::ENETDOWN] {
        for idle in [Idle::Poll, Idle::Spin] {
            let (remote, mailbox) = mailbox::<()>().unwrap();
            let start = Instant::now();
            let thread = std::thread::spawn(move || {
                let cannot = Behaviour { answer: Some(errno), ..Behaviour::default() };
                let (mut worker, wires) = cross_connect_with((), (), cannot);
                (0..10).for_each(|n| wires.lan.deliver(&packet(n)).unwrap());
                worker.run(&mailbox, idle);
                // It was not forgotten, either.
                wires.wan.set(Behaviour::default());
                worker.drain(Duration::from_secs(20));
                (wires.wan.wakeups(), numbers(&wires.wan.take_sent()))
            });
            std::thread::sleep(Duration::from_millis(50));
            remote.stop();
            let (wakeups, sent) = thread.join().unwrap();
            // 10, 20, 40, … 640 µs: seven in the first 1.3 ms.
            let most = 10 + start.elapsed().as_micros() / 640;
            assert!(u128::from(wakeups) <= most, "{wakeups} wake-ups, at most {most} had a reason");
            assert!(wakeups >= 2, "it is asked again");
            assert_eq!(sent, (0..10).collect::<Vec<_>>());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any sequence of misbehaviour on both sides.
    #[test]
    fn balances(
        steps in prop::collection::vec(any::<(u8, u8, u8, bool)>(), 1..40),
        vanish in prop::option::weighted(0.2, 0..40usize),
    ) {
        let (mut worker, wires) = cross_connect((), ());
        let mut books = WireAccounting::default();
        for (index, (ways, a, b, lan)) in steps.into_iter().enumerate() {
            let wire = if lan { &wires.lan } else { &wires.wan };
            wire.set(oracle::port::behaviour(ways, a, b));
            books.deliver(&wires.lan, u64::from(a % 80));
            books.deliver(&wires.wan, u64::from(b % 80));
            worker.poll_once();
            books.balance(&mut worker, &wires);
            if ways % 4 == 0 {
                wires.wan.run();
            }
            if vanish == Some(index) {
                wire.vanish();
            }
        }
        if vanish.is_none() {
            recovers(&mut worker, &wires, &mut books);
        } else {
            worker.drain(Duration::from_millis(20));
            books.balance(&mut worker, &wires);
        }
    }
}
