//! xdpfwd is killed at random moments, again and again, and no number and no IV is used twice: what
//! docs/esp.md promises of its state file. `ESP_SEED=n` repeats a run, as far as chance can be
//! repeated. Needs root.

mod support;

use std::collections::HashSet;
use std::fs;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::esp::{Esp, Kind, Lab, Sender, Setup, Tap, drops, received, spi};
use support::{Config, LONG, XDPFWD, until};
use xdpfwd_lab::{Forwarder, Sink};
use xdpfwd_testkit::random_filter::SplitMix64;

/// Each start takes a second of the clock for itself, its epoch: labs side by side do not wait for
/// each other's.
const LABS: usize = 4;

/// Numbers that are written down at once, so what a crash may cost.
const BLOCK: u64 = 1 << 20;

#[test]
fn two_hundred_kills_repeat_no_sequence_number_or_iv() {
    kill_in_every_lab(50);
}

#[test]
#[ignore = "long: make test-long"]
fn thousand_kills_repeat_no_sequence_number_or_iv() {
    kill_in_every_lab(250);
}

fn kill_in_every_lab(kills: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed =
        std::env::var("ESP_SEED").map_or(now, |seed| seed.parse().expect("ESP_SEED is a number"));
    println!("seed {seed}");
    // Numbers that two workers share; and those of one, which leave in order.
    let base = || Setup {
        seal_sa: ["selector = [\"10.77.0.0/16\"]\n".into(), String::new()],
        open_sa: [String::new(), "window = 4096\n".into()],
        frames: 1024,
        ..Setup::default()
    };
    let two = || Setup { queues: 2, engine: ["cores = [0, 1]".into(), String::new()], ..base() };
    let setups: [Setup; LABS] = [
        base(),
        two(),
        Setup { transform: "chacha20-poly1305", transport: true, ..base() },
        Setup { transform: "null-aes-256-gmac", udp: true, ..two() },
    ];
    thread::scope(|scope| {
        let labs = setups.iter().zip(0..).map(|(setup, number)| {
            thread::Builder::new()
                .spawn_scoped(scope, move || kill_again_and_again(setup, seed + number, kills))
                .unwrap()
        });
        let labs: Vec<_> = labs.collect();
        for lab in labs {
            lab.join().unwrap();
        }
    });
}

fn kill_again_and_again(setup: &Setup, seed: u64, kills: u64) {
    let mut random_numbers = SplitMix64::new(seed);
    let lab = Lab::quiet(setup.queues);
    let sink = Sink::builder().check(true).attach(lab.chain.sink(), "sink0").unwrap();
    let peer = lab.start_one(setup, 1);
    let on_wire = Arc::new(Mutex::new(vec![]));
    let kept = Arc::clone(&on_wire);
    let tap =
        Tap::with(&lab.wire, "tap0", move |frame, _| kept.lock().unwrap().push(Kind::esp(frame)));
    let config = Config::new(&setup.config(&lab, 0));
    let start = || {
        let arguments = [XDPFWD, "--config", config.path(), "--json", "--interval", "0.05"];
        Forwarder::spawn(lab.chain.fwd(), &arguments).unwrap()
    };
    let sender = Sender::start(lab.chain.gen_(), "gen0", 1000, 1, None);
    for number in 0..kills {
        let before = tap.count();
        let mut xdpfwd = start();
        let random = random_numbers.draw();
        // Wherever it is in its start; or behind its first packet. At that it need not come in
        // time, but it has to come.
        if random.is_multiple_of(4) {
            thread::sleep(Duration::from_millis(random / 4 % 1500));
        } else {
            let deadline = Instant::now() + LONG;
            while tap.count() == before {
                xdpfwd.check_running().unwrap_or_else(|error| panic!("start {number}: {error}"));
                assert!(
                    Instant::now() < deadline,
                    "start {number}: nothing is sent: {:#?}",
                    xdpfwd.stderr()
                );
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_micros(random / 4 % 150_000));
        }
        xdpfwd.check_running().unwrap_or_else(|error| panic!("start {number}: {error}"));
        // It is not reaped yet: the number is its own.
        kill(Pid::from_raw(xdpfwd.pid() as i32), Signal::SIGKILL).unwrap();
        xdpfwd.stop(LONG).unwrap();
    }
    // The last one ends in good order.
    let mut xdpfwd = start();
    let before = tap.count();
    tap.wait_for(before + 1000);
    let ended = xdpfwd.stop(LONG).unwrap();
    assert!(ended.status.success() && !ended.killed, "{:#?}", xdpfwd.stderr());
    sender.stop();
    // What is on its way.
    thread::sleep(Duration::from_millis(200));
    let sent = tap.count();
    tap.stop();
    let on_wire = std::mem::take(&mut *on_wire.lock().unwrap());
    assert_eq!(on_wire.len() as u64, sent);

    let runs = judge(&on_wire, setup.queues == 1);
    let lanes: HashSet<u64> = on_wire.iter().map(Esp::lane).collect();
    assert_eq!(lanes.len(), usize::from(setup.queues), "each worker has sealed");
    // One in four may have come to nothing.
    assert!(runs > kills * 2 / 3, "{runs} of {kills} runs sent something");
    let highest = on_wire.iter().map(|esp| u64::from(esp.sequence)).max().unwrap();
    assert!(highest <= (kills + 1) * BLOCK, "{highest}: a crash costs more than it may");
    let state = fs::read_to_string(lab.state_file(0)).unwrap();
    assert!(
        state.contains(&format!("next = {}", highest + 1)),
        "the exact number, after {highest}: {state}"
    );

    // What was sent is what was opened: nothing is behind the window, nothing was there before.
    until("all is received", || received(&peer, "wan1") >= sent);
    until("all has arrived", || sink.seen().unwrap().arrived.packets >= sent);
    let (ended, last) = peer.stop();
    assert!(ended.status.success(), "{ended:?}");
    last.assert_conserved();
    assert_eq!(drops(&last.json), [].into(), "{}", last.json);
    assert_eq!(last.report.port("wan1").unwrap().rx_packets, sent);
    let seen = sink.seen().unwrap();
    assert!(seen.arrived.packets == sent && seen.is_clean(), "{sent}: {seen:?}");
    println!(
        "{} by {} workers: {sent} packets of {runs} runs, {kills} killed",
        setup.transform, setup.queues
    );
}

/// What was on the wire, of one key: how many runs have sent something of it.
fn judge(on_wire: &[Esp], in_order: bool) -> u64 {
    let (mut ivs, mut numbers) = (HashSet::new(), HashSet::new());
    let (mut epoch, mut behind, mut highest, mut runs) = (0, 0, 0, 0);
    for esp in on_wire {
        assert_eq!(esp.spi, spi(0, 1));
        assert!(ivs.insert(esp.iv), "an IV for the second time: {esp:?}");
        assert!(numbers.insert(esp.sequence), "a number for the second time: {esp:?}");
        if esp.iv >> 32 != epoch {
            assert!(esp.iv >> 32 > epoch, "an epoch that was before {epoch}: {esp:?}");
            (epoch, behind, runs) = (esp.iv >> 32, highest, runs + 1);
        }
        assert!(
            esp.sequence > behind,
            "a number from before its run, which begins behind {behind}: {esp:?}"
        );
        assert!(!in_order || esp.sequence > highest, "out of order, behind {highest}: {esp:?}");
        highest = highest.max(esp.sequence);
    }
    runs
}
