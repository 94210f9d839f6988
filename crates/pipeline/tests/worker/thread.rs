//! A worker on its own thread.

use std::time::{Duration, Instant};

use xdpfwd_pipeline::{Idle, Stopped, mailbox};
use xdpfwd_testkit::wires::{cross_connect, numbers, packet};

#[test]
fn worker_thread_forwards_then_replies_then_stops() {
    for idle in [Idle::Poll, Idle::Spin] {
        let (remote, mailbox) = mailbox::<()>().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut worker, wires) = cross_connect((), ());
            (0..100).for_each(|n| wires.lan.deliver(&packet(n)).unwrap());
            worker.run(&mailbox, idle);
            numbers(&wires.wan.take_sent())
        });
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(20));
            let report = remote.ask(|worker| worker.report(), Duration::from_secs(20)).unwrap();
            assert_eq!(report.frames.leaked, 0);
            assert_eq!(report.waits > 0, idle == Idle::Poll);
        }
        remote.stop();
        assert_eq!(thread.join().unwrap(), (0..100).collect::<Vec<_>>());
        assert_eq!(remote.ask(|_| (), Duration::from_secs(20)), Err(Stopped));
    }
}

/// Each `ask` sends a command. A command cuts at most two waits short: the current one, and the
/// next if the command runs before the wake-up arrives. Every other wait lasts at least 1 ms.
#[test]
fn idle_worker_waits_again_after_each_command() {
    let (remote, mailbox) = mailbox::<()>().unwrap();
    let thread = std::thread::spawn(move || cross_connect((), ()).0.run(&mailbox, Idle::Poll));
    let ask = || remote.ask(|worker| worker.report().waits, Duration::from_secs(20)).unwrap();
    let waits_before = ask();
    let start = Instant::now();
    const COMMANDS: u64 = 200;
    for _ in 0..COMMANDS {
        std::thread::sleep(Duration::from_millis(2));
        ask();
    }
    let waits = ask() - waits_before;
    // Besides those of the loop, the first and the last `ask` are commands.
    let limit = start.elapsed().as_millis() as u64 + 2 * (COMMANDS + 2);
    assert!(waits <= limit, "{waits} waits; expected at most {limit}");
    remote.stop();
    thread.join().unwrap();
}
