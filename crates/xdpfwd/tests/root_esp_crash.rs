//! Kills xdpfwd at random times, and checks that no sequence number and no IV is used twice
//! (docs/esp.md). To repeat the random numbers of an earlier run (but not its timing), set the
//! environment variable `ESP_SEED` to the seed that it printed. Needs root.
//!
//! xdpfwd 0 encapsulates and is killed; xdpfwd 1 decapsulates. Arrays in [`Setup`] have an element
//! for each xdpfwd.

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

/// Labs that run in parallel. A lab waits most of the time: each start needs a new epoch (the upper
/// half of IVs, in whole seconds), so xdpfwd can start only once per second.
const LABS: usize = 4;

/// Sequence numbers that xdpfwd reserves at a time. A crash skips at most this many.
const RESERVED_AT_ONCE: u64 = 1 << 20;

#[test]
fn two_hundred_kills_repeat_no_sequence_number_or_iv() {
    kill_in_every_lab(50);
}

#[test]
#[ignore = "long: make test-long"]
fn thousand_kills_repeat_no_sequence_number_or_iv() {
    kill_in_every_lab(250);
}

fn kill_in_every_lab(kills_per_lab: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed =
        std::env::var("ESP_SEED").map_or(now, |seed| seed.parse().expect("ESP_SEED: not a number"));
    println!("seed {seed}");
    let one_worker = || Setup {
        seal_sa: ["selector = [\"10.77.0.0/16\"]\n".into(), String::new()],
        // A window for two workers, which send sequence numbers out of order.
        open_sa: [String::new(), "window = 4096\n".into()],
        frames: 1024,
        ..Setup::default()
    };
    let two_workers =
        || Setup { queues: 2, engine: ["cores = [0, 1]".into(), String::new()], ..one_worker() };
    let setups: [Setup; LABS] = [
        one_worker(),
        two_workers(),
        Setup { transform: "chacha20-poly1305", transport: true, ..one_worker() },
        Setup { transform: "null-aes-256-gmac", udp: true, ..two_workers() },
    ];
    thread::scope(|scope| {
        let labs = setups.iter().zip(0..).map(|(setup, index)| {
            thread::Builder::new()
                .spawn_scoped(scope, move || kill_repeatedly(setup, seed + index, kills_per_lab))
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
    let lab = Lab::with_silent_hosts(setup.queues);
    let sink = Sink::builder().check(true).attach(lab.namespaces.sink(), "sink0").unwrap();
    let receiver = lab.start_one(setup, 1);
    let on_wire = Arc::new(Mutex::new(vec![]));
    let captured = Arc::clone(&on_wire);
    let tap = Tap::start_with(&lab.wire, "tap0", move |frame, _| {
        captured.lock().unwrap().push(Kind::expect_esp(frame))
    });
    let config = Config::new(&setup.config(&lab, 0));
    let start = || {
        let arguments = [XDPFWD, "--config", config.path(), "--json", "--interval", "0.05"];
        Forwarder::spawn(lab.namespaces.fwd(), &arguments).unwrap()
    };
    // 1000 packets per second, numbered from 1, until the stop.
    let sender = Sender::start(lab.namespaces.gen_(), "gen0", 1000, 1, None);
    for run in 0..kills {
        let before = tap.count();
        let mut xdpfwd = start();
        let random = random_numbers.draw();
        // Kill xdpfwd either during its start or after its first packet.
        if random.is_multiple_of(4) {
            thread::sleep(Duration::from_millis(random / 4 % 1500));
        } else {
            let deadline = Instant::now() + TIMEOUT;
            while tap.count() == before {
                xdpfwd.check_running().unwrap_or_else(|error| panic!("run {run}: {error}"));
                assert!(
                    Instant::now() < deadline,
                    "run {run}: no packet within {TIMEOUT:?}: {:#?}",
                    xdpfwd.stderr()
                );
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_micros(random / 4 % 150_000));
        }
        xdpfwd.check_running().unwrap_or_else(|error| panic!("run {run}: {error}"));
        // xdpfwd has not been reaped yet, so no other process has its pid.
        kill(Pid::from_raw(xdpfwd.pid() as i32), Signal::SIGKILL).unwrap();
        xdpfwd.stop(TIMEOUT).unwrap();
    }
    let mut xdpfwd = start();
    let before = tap.count();
    tap.wait_for(before + 1000);
    let exit = xdpfwd.stop(TIMEOUT).unwrap();
    assert!(exit.status.success() && !exit.killed, "{:#?}", xdpfwd.stderr());
    sender.stop();
    // Wait for packets in flight.
    thread::sleep(Duration::from_millis(200));
    let sent = tap.count();
    tap.stop();
    let on_wire = std::mem::take(&mut *on_wire.lock().unwrap());
    assert_eq!(on_wire.len() as u64, sent);

    let runs = check_capture(&on_wire, setup.queues == 1);
    let ranges: HashSet<u64> = on_wire.iter().map(Esp::iv_range).collect();
    assert_eq!(
        ranges.len(),
        usize::from(setup.queues),
        "number of IV ranges (bits 26 to 31 of an IV): expected one per worker in all runs"
    );
    // One run in four is killed during its start, perhaps before its first packet.
    assert!(runs > kills * 2 / 3, "only {runs} of {kills} runs sent packets");
    let highest = on_wire.iter().map(|esp| u64::from(esp.sequence)).max().unwrap();
    assert!(
        highest <= (kills + 1) * RESERVED_AT_ONCE,
        "a crash skipped more than {RESERVED_AT_ONCE} sequence numbers: {highest} is the highest"
    );
    let state = fs::read_to_string(lab.state_file(0)).unwrap();
    assert!(
        state.contains(&format!("next = {}", highest + 1)),
        "`next` in the state file is not {highest} + 1: {state}"
    );

    // xdpfwd 1 must accept every packet: it drops none as `late` or `replay`.
    until("xdpfwd 1 has received all packets", || received(&receiver, "wan1") >= sent);
    until("all packets have arrived at the sink", || sink.seen().unwrap().arrived.packets >= sent);
    let (exit, final_report) = receiver.stop();
    assert!(exit.status.success(), "{exit:?}");
    final_report.assert_frames_and_packets_add_up();
    assert_eq!(drops(&final_report.json), [].into(), "{}", final_report.json);
    assert_eq!(final_report.parsed.port("wan1").unwrap().rx_packets, sent);
    let seen = sink.seen().unwrap();
    assert!(seen.arrived.packets == sent && seen.is_clean(), "{sent} packets sent: {seen:?}");
    println!(
        "{}, {} worker(s): {sent} packets of {runs} runs, {kills} killed",
        setup.transform, setup.queues
    );
}

/// Checks that the packets of one SA repeat no IV and no sequence number, and that each run starts
/// above all sequence numbers of earlier runs. If `is_in_order`, the sequence numbers must ascend.
/// Returns the number of runs that sent a packet.
fn check_capture(on_wire: &[Esp], is_in_order: bool) -> u64 {
    let (mut ivs, mut numbers) = (HashSet::new(), HashSet::new());
    let (mut epoch, mut highest_of_earlier_runs, mut highest, mut runs) = (0, 0, 0, 0);
    for esp in on_wire {
        assert_eq!(esp.spi, spi(0, 1));
        assert!(ivs.insert(esp.iv), "repeated IV: {esp:?}");
        assert!(numbers.insert(esp.sequence), "repeated sequence number: {esp:?}");
        let new_epoch = esp.iv >> 32;
        if new_epoch != epoch {
            assert!(new_epoch > epoch, "epoch below {epoch}: {esp:?}");
            (epoch, highest_of_earlier_runs, runs) = (new_epoch, highest, runs + 1);
        }
        assert!(
            esp.sequence > highest_of_earlier_runs,
            "earlier runs used sequence numbers up to {highest_of_earlier_runs}: {esp:?}"
        );
        assert!(
            !is_in_order || esp.sequence > highest,
            "sequence number out of order, after {highest}: {esp:?}"
        );
        highest = highest.max(esp.sequence);
    }
    runs
}
