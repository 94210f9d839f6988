//! Kills xdpfwd at random times and checks what docs/esp.md guarantees for the state file: no
//! sequence number and no IV is used twice. `ESP_SEED=n` repeats the random numbers of a run, but
//! not its timing. Needs root.

mod support;

use std::collections::HashSet;
use std::fs;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::esp::{Esp, Kind, Lab, Sender, Setup, Tap, drops, received, spi};
use support::{Config, TIMEOUT, XDPFWD, until};
use xdpfwd_lab::{Forwarder, Sink};
use xdpfwd_testkit::random_filter::SplitMix64;

/// The number of parallel labs. Each start takes a second of the clock as its epoch, so starts with
/// one state file are at least a second apart.
const LABS: usize = 4;

/// Sequence numbers that are reserved at once in the state file: the most that a crash skips.
const RESERVED: u64 = 1 << 20;

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
    // Two setups with one worker, whose numbers leave in order, and two with two workers.
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
                .spawn_scoped(scope, move || kill_repeatedly(setup, seed + number, kills))
                .unwrap()
        });
        let labs: Vec<_> = labs.collect();
        for lab in labs {
            lab.join().unwrap();
        }
    });
}

fn kill_repeatedly(setup: &Setup, seed: u64, kills: u64) {
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
        // Kill at a random time during the start, or after the first packet. That packet may take
        // long, but must come.
        if random.is_multiple_of(4) {
            thread::sleep(Duration::from_millis(random / 4 % 1500));
        } else {
            let deadline = Instant::now() + TIMEOUT;
            while tap.count() == before {
                xdpfwd.check_running().unwrap_or_else(|error| panic!("start {number}: {error}"));
                assert!(
                    Instant::now() < deadline,
                    "start {number}: no packet within {TIMEOUT:?}: {:#?}",
                    xdpfwd.stderr()
                );
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_micros(random / 4 % 150_000));
        }
        xdpfwd.check_running().unwrap_or_else(|error| panic!("start {number}: {error}"));
        // The process is not reaped yet, so no other process has its pid.
        kill(Pid::from_raw(xdpfwd.pid() as i32), Signal::SIGKILL).unwrap();
        xdpfwd.stop(TIMEOUT).unwrap();
    }
    // The last run ends in an orderly way.
    let mut xdpfwd = start();
    let before = tap.count();
    tap.wait_for(before + 1000);
    let ended = xdpfwd.stop(TIMEOUT).unwrap();
    assert!(ended.status.success() && !ended.killed, "{:#?}", xdpfwd.stderr());
    sender.stop();
    // Wait for packets in flight.
    thread::sleep(Duration::from_millis(200));
    let sent = tap.count();
    tap.stop();
    let on_wire = std::mem::take(&mut *on_wire.lock().unwrap());
    assert_eq!(on_wire.len() as u64, sent);

    let runs = check_capture(&on_wire, setup.queues == 1);
    let ranges: HashSet<u64> = on_wire.iter().map(Esp::iv_range).collect();
    assert_eq!(ranges.len(), usize::from(setup.queues), "IV ranges, one for each worker");
    // One run in four may end before its first packet.
    assert!(runs > kills * 2 / 3, "only {runs} of {kills} runs sent packets");
    let highest = on_wire.iter().map(|esp| u64::from(esp.sequence)).max().unwrap();
    assert!(
        highest <= (kills + 1) * RESERVED,
        "a crash skips more than {RESERVED} numbers: {highest} is the highest"
    );
    let state = fs::read_to_string(lab.state_file(0)).unwrap();
    assert!(
        state.contains(&format!("next = {}", highest + 1)),
        "the state file lacks the number after {highest}: {state}"
    );

    // The peer accepts every sent packet: none is late, none is a replay.
    until("the peer has received all packets", || received(&peer, "wan1") >= sent);
    until("all packets have arrived at the sink", || sink.seen().unwrap().arrived.packets >= sent);
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

/// Checks captured packets of one SA and returns the number of runs that sent any.
fn check_capture(on_wire: &[Esp], in_order: bool) -> u64 {
    let (mut ivs, mut numbers) = (HashSet::new(), HashSet::new());
    let (mut epoch, mut before_run, mut highest, mut runs) = (0, 0, 0, 0);
    for esp in on_wire {
        assert_eq!(esp.spi, spi(0, 1));
        assert!(ivs.insert(esp.iv), "repeated IV: {esp:?}");
        assert!(numbers.insert(esp.sequence), "repeated sequence number: {esp:?}");
        if esp.iv >> 32 != epoch {
            assert!(esp.iv >> 32 > epoch, "epoch below {epoch}: {esp:?}");
            (epoch, before_run, runs) = (esp.iv >> 32, highest, runs + 1);
        }
        assert!(
            esp.sequence > before_run,
            "number not above {before_run}, the highest of earlier runs: {esp:?}"
        );
        assert!(!in_order || esp.sequence > highest, "out of order, after {highest}: {esp:?}");
        highest = highest.max(esp.sequence);
    }
    runs
}
