//! Runs xdpfwd for a long time, with traffic of several lengths, reloads, flapping links and
//! interfaces that are created again. Every frame must be accounted for at all times, and memory,
//! descriptors and BPF objects must not grow. Needs root.

mod support;

use std::fs;
use std::time::{Duration, Instant};

use support::hosts::{Network, report, stop, wait_for_report};
use support::ip_batch;
use xdpfwd_lab::BpfObjects;

/// The environment variable with the number of minutes, which `make soak` sets.
const MINUTES: &str = "XDPFWD_SOAK_MINUTES";
/// Time after which memory and descriptors must not grow any more.
const WARM_UP: Duration = Duration::from_secs(20);

/// What a process uses.
#[derive(Debug)]
struct Usage {
    resident_kib: u64,
    descriptors: usize,
    bpf_objects: usize,
}

impl Usage {
    fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Self {
            resident_kib: resident.split_whitespace().next().unwrap().parse().unwrap(),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            bpf_objects: BpfObjects::of_process(pid).unwrap().count(),
        }
    }
}

#[test]
#[ignore = "long: make test-long"]
fn frames_memory_descriptors_and_bpf_objects_stay() {
    let minutes: f64 = std::env::var(MINUTES).map_or(1.0, |text| text.parse().unwrap());
    let network = Network::new(1);
    let config = |rule: u64| {
        let stages = "stages = [\"fw\", \"ids\"]";
        network.config("").replace("to = \"wan\"", &format!("to = \"wan\"\n{stages}"))
            + &format!(
                "[stage.fw]\nkind = \"filter\"\ndefault = \"accept\"\nnot_ip = \"accept\"\n\
                 rules = [\"drop proto udp dport {}\"]\n\
                 [stage.ids]\nkind = \"payload\"\nsignatures = ['drop text \"soak {}\"']\n",
                1 + rule % 65535,
                rule % 1000
            )
    };
    let mut running = network.start(&config(0));
    network.wait_until_forwarding(&mut running);
    let pid = running.forwarder.pid();
    let _load = [18, 500, 1400].map(|bytes| network.load_of(bytes));
    let start = Instant::now();
    let (mut baseline, mut losses) = (None, 0);
    for second in 1.. {
        std::thread::sleep(Duration::from_secs(1));
        running.forwarder.check_running().unwrap();
        let frames = report(&running)["frames"].clone();
        let count = |key: &str| frames[key].as_i64().unwrap();
        let sum: i64 =
            ["pool", "fill", "rx", "in_flight", "tx", "completion", "quarantined", "leaked"]
                .into_iter()
                .map(count)
                .sum();
        assert_eq!((count("leaked"), sum), (0, count("total")), "{frames}");
        running.config.write(&config(second));
        running.reload("INFO reloaded");
        if second % 5 == 0 {
            ip_batch(Some(&network.forwarder), "link set lan0 down\nlink set lan0 up\n");
        }
        if second % 7 == 0 {
            losses += 1;
            network.disconnect(1);
            wait_for_report(&running, "the loss is counted", |report| {
                report["ports"][1]["losses"] == losses
            });
            network.connect(1);
            wait_for_report(&running, "wan is up", |report| report["ports"][1]["state"] == "up");
        }
        if baseline.is_none() && start.elapsed() >= WARM_UP {
            baseline = Some(Usage::of(pid));
        }
        if start.elapsed().as_secs_f64() >= 60.0 * minutes {
            break;
        }
    }
    network.wait_until_forwarding(&mut running);
    let (baseline, end) = (baseline.expect("the test ended before the warm-up"), Usage::of(pid));
    println!("after {} s: {baseline:?}, at the end: {end:?}", WARM_UP.as_secs());
    assert_eq!(end.descriptors, baseline.descriptors, "{baseline:?} {end:?}");
    assert_eq!(end.bpf_objects, baseline.bpf_objects, "{baseline:?} {end:?}");
    // Allocators keep some memory; a leak of 1 KiB per reload would exceed this in an hour.
    assert!(end.resident_kib <= baseline.resident_kib + 2048, "{baseline:?} {end:?}");
    let final_report = stop(running, losses);
    println!("{}", final_report["ports"]);
}
