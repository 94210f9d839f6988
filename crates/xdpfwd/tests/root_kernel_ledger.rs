//! Tests the kernel ledger (`kernel_ledger`): where the kernel spends the time of the workers'
//! cores. Needs root.
//!
//! The lab connects gen0 to fwd0 and fwd1 to sink0; xdpfwd forwards between fwd0 and fwd1.

mod support;

use std::fs;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{Config, Running, TIMEOUT, XDPFWD, build_lab, cross_connect, stderr};
use xdpfwd_lab::{Chain, Generator, Traffic};

const ACCOUNTS: [&str; 6] = ["user", "system_call", "softirq", "far_end", "idle", "other"];

const GROUPS: [&str; 10] = [
    "af_xdp_receive",
    "af_xdp_transmit",
    "packet_socket",
    "driver_transmit",
    "socket_buffers",
    "network_stack",
    "xdp_program",
    "copy",
    "scheduler",
    "other",
];

/// BPF run-time statistics are global, so only one test at a time may use them.
fn use_statistics() -> MutexGuard<'static, ()> {
    static IN_USE: Mutex<()> = Mutex::new(());
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ledger_of(line: &str) -> Value {
    let mut report: Value = serde_json::from_str(line).unwrap_or_default();
    report["kernel_ledger"].take()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

fn account<'v>(accounts: &'v Value, name: &str) -> &'v Value {
    list(accounts).iter().find(|account| account["name"] == name).unwrap()
}

fn send_without_limit(lab: &Chain) -> Generator {
    Traffic::new().core(0).start(lab.gen_(), "gen0").unwrap()
}

fn send(lab: &Chain, packets: u64) {
    let traffic = Traffic::new().rate(20_000).count(packets).core(0);
    traffic.start(lab.gen_(), "gen0").unwrap().finish(TIMEOUT).unwrap();
}

/// Waits for a report whose ledger fulfils `is_enough` and has measured runs of the XDP program.
fn wait_for_ledger(running: &mut Running, is_enough: impl Fn(&Value) -> bool) {
    let is_enough = |line: &str| {
        line.contains("\"interval\"") && {
            let ledger = ledger_of(line);
            number(&ledger["xdp_programs"][0]["runs"]) > 0.0 && is_enough(&ledger)
        }
    };
    running.forwarder.wait_for_line(TIMEOUT, is_enough).unwrap();
}

/// Checks what holds in both modes.
#[track_caller]
fn assert_is_complete(ledger: &Value, packets: f64) {
    assert_eq!(ledger["unavailable"], Value::Null, "{ledger}");
    let names: Vec<&Value> =
        list(&ledger["accounts"]).iter().map(|account| &account["name"]).collect();
    assert_eq!(names, ACCOUNTS);
    let cycles = |accounts: &Value| -> f64 {
        list(accounts).iter().map(|account| number(&account["cycles"])).sum()
    };
    let shares: f64 =
        list(&ledger["accounts"]).iter().map(|account| number(&account["share_percent"])).sum();
    assert!((99.0..101.0).contains(&shares), "{ledger}");
    for core in list(&ledger["cores"]) {
        let names: Vec<&Value> =
            list(&core["accounts"]).iter().map(|account| &account["name"]).collect();
        assert_eq!(names, ACCOUNTS);
    }
    let of_cores: f64 = list(&ledger["cores"]).iter().map(|core| cycles(&core["accounts"])).sum();
    let ratio = of_cores / cycles(&ledger["accounts"]);
    assert!((0.99..1.01).contains(&ratio), "{ledger}");
    for account in list(&ledger["accounts"]) {
        let per_packet = number(&account["cycles"]) / packets;
        let difference = (number(&account["cycles_per_packet"]) - per_packet).abs();
        assert!(difference <= 0.06, "{account} {packets}");
    }
    let worker = &ledger["workers"][0];
    assert_eq!(worker["worker"], 0);
    assert!(number(&worker["voluntary_switches"]) > 0.0, "{ledger}");
    assert!(number(&ledger["syscalls_per_packet"]) > 0.0, "{ledger}");
    assert_eq!(ledger["xdp_unavailable"], Value::Null, "{ledger}");
    for (program, (port, interface)) in
        list(&ledger["xdp_programs"]).iter().zip([("lan", "fwd0"), ("wan", "fwd1")])
    {
        assert_eq!((&program["port"], &program["interface"]), (&port.into(), &interface.into()));
    }
    let lan = &ledger["xdp_programs"][0];
    // Only some runs are measured.
    assert!(number(&lan["runs"]) > 0.0 && number(&lan["cycles_per_run"]) > 0.0, "{ledger}");
}

#[test]
fn sampled_ledger_has_samples_in_all_accounts_of_the_worker() {
    let _statistics = use_statistics();
    let lab = build_lab(Chain::builder());
    let config = cross_connect(1, "cores = [1]\nkernel_ledger = \"sampled\"");
    let mut running = Running::start(&lab, &config);
    let generator = send_without_limit(&lab);
    let wanted = ["user", "system_call", "softirq", "far_end"];
    wait_for_ledger(&mut running, |ledger| {
        wanted.iter().all(|name| number(&account(&ledger["accounts"], name)["samples"]) >= 3.0)
    });
    generator.stop().unwrap();
    let (_, final_report) = running.stop();
    final_report.assert_frames_and_packets_add_up();
    let ledger = &final_report.json["kernel_ledger"];
    assert_eq!((&ledger["mode"], &ledger["tracing"]), (&"sampled".into(), &Value::Null));
    assert_is_complete(ledger, final_report.parsed.received() as f64);

    let sampling = &ledger["sampling"];
    let samples: f64 =
        list(&ledger["accounts"]).iter().map(|account| number(&account["samples"])).sum();
    assert_eq!(samples, number(&sampling["samples"]));
    let expected = 241.0 * list(&ledger["cores"]).len() as f64 * number(&ledger["seconds"]);
    let all = samples + number(&sampling["lost"]);
    // A virtual machine loses timer interrupts while the host does not run it.
    assert!((0.3..1.2).contains(&(all / expected)), "{all} of {expected} samples: {ledger}");
    assert_eq!(sampling["frequency_hz"], 241);
    assert!(number(&sampling["sample_nanoseconds"]) > 0.0);
    let cost = 241.0 * number(&sampling["sample_nanoseconds"]) * 1e-7;
    assert!((number(&sampling["cost_percent"]) - cost).abs() < 0.01, "{ledger}");

    for name in ["system_call", "softirq", "far_end"] {
        let groups = list(&ledger["groups"]).iter().filter(|group| group["account"] == name);
        let sum: f64 = groups.clone().map(|group| number(&group["samples"])).sum();
        assert_eq!(sum, number(&account(&ledger["accounts"], name)["samples"]), "{ledger}");
        for group in groups {
            assert!(GROUPS.iter().any(|known| group["name"] == *known), "{group}");
        }
    }
    let worker_core = list(&ledger["cores"]).iter().find(|core| core["core"] == 1).unwrap();
    assert_eq!(worker_core["workers"], Value::from(vec![0]));
    // The worker runs nowhere else.
    for core in list(&ledger["cores"]).iter().filter(|core| core["core"] != 1) {
        assert_eq!(core["workers"], Value::from(Vec::<usize>::new()));
        for name in ["user", "system_call", "far_end"] {
            assert_eq!(account(&core["accounts"], name)["samples"], 0, "{core}");
        }
    }
}

#[test]
fn exact_ledger_adds_up_to_the_time_of_the_cores() {
    let _statistics = use_statistics();
    let lab = build_lab(Chain::builder());
    let config = cross_connect(1, "cores = [1]\nkernel_ledger = \"exact\"");
    let mut running = Running::start(&lab, &config);
    let generator = send_without_limit(&lab);
    let wanted = ["user", "system_call", "softirq", "far_end"];
    wait_for_ledger(&mut running, |ledger| {
        wanted.iter().all(|name| number(&account(&ledger["accounts"], name)["cycles"]) > 1e6)
    });
    generator.stop().unwrap();
    let (_, final_report) = running.stop();
    final_report.assert_frames_and_packets_add_up();
    let ledger = &final_report.json["kernel_ledger"];
    assert_eq!((&ledger["mode"], &ledger["sampling"]), (&"exact".into(), &Value::Null));
    assert_is_complete(ledger, final_report.parsed.received() as f64);
    assert_eq!(ledger["groups"], Value::from(Vec::<Value>::new()));
    let tracing = &ledger["tracing"];
    assert!(number(&tracing["events"]) > 0.0 && number(&tracing["cost_percent"]) > 0.0, "{ledger}");
    let rate = number(&final_report.json["ledger"]["cycles_per_second"]);
    for core in list(&ledger["cores"]) {
        let cycles: f64 =
            list(&core["accounts"]).iter().map(|account| number(&account["cycles"])).sum();
        let ratio = cycles / rate / number(&ledger["seconds"]);
        assert!((0.95..1.05).contains(&ratio), "{ratio}: {ledger}");
        assert!(list(&core["accounts"]).iter().all(|account| account["samples"] == 0));
    }
}

#[test]
fn disabled_ledger_measures_nothing() {
    let lab = build_lab(Chain::builder());
    let (_, final_report) = Running::start(&lab, &cross_connect(1, "")).stop();
    let ledger = &final_report.json["kernel_ledger"];
    assert_eq!(ledger["mode"], "off");
    for key in ["unavailable", "sampling", "tracing", "xdp_unavailable"] {
        assert_eq!(ledger[key], Value::Null, "{key}");
    }
    for key in ["accounts", "groups", "cores", "workers", "xdp_programs"] {
        assert_eq!(ledger[key], Value::from(Vec::<Value>::new()), "{key}");
    }
}

/// Without CAP_PERFMON no XDP program can be loaded, so the ports use packet sockets.
#[test]
fn missing_capabilities_are_warned_of_and_packets_are_forwarded() {
    let lab = build_lab(Chain::builder());
    let packet =
        |config: String| config.replace("interface =", "io = \"packet-mmsg\"\ninterface =");
    for (mode, dropped, needs) in [
        ("sampled", "-syslog,-sys_admin", "needs CAP_SYSLOG"),
        ("sampled", "-perfmon,-sys_admin", "needs CAP_PERFMON"),
        ("exact", "-perfmon,-bpf,-sys_admin", "needs CAP_BPF and CAP_PERFMON"),
    ] {
        let config = packet(cross_connect(1, &format!("kernel_ledger = \"{mode}\"")));
        let bounding_set = format!("--bounding-set={dropped}");
        let program = ["setpriv", &*bounding_set, XDPFWD];
        let running = Running::try_start_as(&program, &lab, &config).unwrap();
        send(&lab, 1000);
        assert_eq!(running.count_log_lines(needs), 1, "{:#?}", running.forwarder.stderr());
        let (_, final_report) = running.stop();
        final_report.assert_frames_and_packets_add_up();
        assert_eq!(final_report.json["ports"][0]["rx_packets"], 1000);
        let ledger = &final_report.json["kernel_ledger"];
        assert!(ledger["unavailable"].as_str().unwrap().starts_with(needs), "{ledger}");
        assert!(list(&ledger["accounts"]).is_empty(), "{ledger}");
        assert_eq!(ledger["xdp_unavailable"], "needs CAP_SYS_ADMIN", "{ledger}");

        let file = Config::new(&config);
        let command = |arguments: &[&str]| {
            let mut command = lab.fwd().command("setpriv");
            let output = command.args([&*bounding_set, XDPFWD]).args(arguments).output().unwrap();
            assert!(matches!(output.status.code(), Some(0 | 1)), "{}", stderr(&output));
            String::from_utf8(output.stdout).unwrap()
        };
        let check = command(&["--check", "--json", "--config", file.path()]);
        let check: Value = serde_json::from_str(&check).unwrap();
        assert_eq!(check["kernel_ledger"], mode);
        let warned = |text: &str| {
            list(&check["warnings"])
                .iter()
                .any(|warning| warning["message"].as_str().unwrap().contains(text))
        };
        assert!(warned(needs) && warned("needs CAP_SYS_ADMIN"), "{check}");
        let doctor = command(&["doctor", "--no-probe", "--config", file.path()]);
        assert!(doctor.contains(needs), "{doctor}");
    }
}

#[test]
fn reload_continues_run_time_of_replaced_program() {
    let _statistics = use_statistics();
    let lab = build_lab(Chain::builder());
    let config = |rule: &str| {
        cross_connect(1, "kernel_ledger = \"sampled\"").replacen(
            "to = \"wan\"",
            "to = \"wan\"\nstages = [\"edge\"]",
            1,
        ) + "\n[stage.edge]\nkind = \"filter\"\ndefault = \"accept\"\nplace = \"kernel\"\n"
            + &format!("rules = [\"{rule}\"]\n")
    };
    let mut running = Running::start(&lab, &config("drop proto tcp dport 1"));
    let generator = Traffic::new().rate(20_000).core(0).start(lab.gen_(), "gen0").unwrap();
    let runs = |ledger: &Value| number(&ledger["xdp_programs"][0]["runs"]);
    wait_for_ledger(&mut running, |ledger| runs(ledger) >= 100.0);
    // Without packets, no program runs any more: the new program starts with 0 runs and keeps them.
    generator.stop().unwrap();
    let last_line = |running: &Running| {
        running.forwarder.last_line(|line| line.contains("\"interval\"")).unwrap()
    };
    let before = ledger_of(&last_line(&running));
    running.config.write(&config("drop proto tcp dport 2"));
    running.reload("INFO reloaded");
    let (_, final_report) = running.stop();
    let program = &final_report.json["kernel_ledger"]["xdp_programs"][0];
    assert!(number(&program["runs"]) >= runs(&before), "{program}, before: {before}");
    assert!(number(&program["nanoseconds"]) > 0.0, "{program}");
}

/// Returns the runs that the kernel has measured of the programs of a process.
fn measured_runs(pid: u32) -> u64 {
    let folder = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let infos = folder.flatten().filter_map(|file| fs::read_to_string(file.path()).ok());
    infos
        .filter_map(|info| {
            let line = info.lines().find_map(|line| line.strip_prefix("run_cnt:"))?;
            Some(line.trim().parse::<u64>().unwrap())
        })
        .sum()
}

/// Returns whether a process has a descriptor that keeps run-time statistics on.
fn is_any_process_measuring() -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let folders = processes.filter_map(|process| fs::read_dir(process.path().join("fd")).ok());
    let mut links = folders.flat_map(Iterator::flatten).map(|file| fs::read_link(file.path()));
    links.any(|link| link.is_ok_and(|link| link.as_os_str() == "anon_inode:bpf-stats"))
}

#[test]
fn killed_xdpfwd_leaves_no_run_time_statistics() {
    let _statistics = use_statistics();
    let lab = build_lab(Chain::builder());
    let mut running = Running::start(&lab, &cross_connect(1, "kernel_ledger = \"sampled\""));
    let generator = send_without_limit(&lab);
    let runs = |ledger: &Value| number(&ledger["xdp_programs"][0]["runs"]);
    wait_for_ledger(&mut running, |ledger| runs(ledger) > 0.0);
    assert!(measured_runs(running.forwarder.pid()) > 0);
    running.signal(Signal::SIGKILL);
    running.wait();
    generator.stop().unwrap();
    let running = Running::start(&lab, &cross_connect(1, ""));
    send(&lab, 1000);
    // Any other process on this machine may have the statistics on.
    if !is_any_process_measuring() {
        assert_eq!(measured_runs(running.forwarder.pid()), 0);
    }
    running.stop();
}

/// Compares the accounts of the worker's core with those that a script with rules of its own
/// computes from `perf record` of the same time. The interval reports before and after the
/// recording give the ledger of that time.
#[test]
#[ignore = "long: make test-long"]
fn accounts_agree_with_perf_record_within_five_points() {
    let _statistics = use_statistics();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel_ledger_from_perf.py");
    for io in ["af_xdp", "packet-mmsg"] {
        let lab = build_lab(Chain::builder());
        let config = cross_connect(1, "mode = \"auto\"\ncores = [1]\nkernel_ledger = \"sampled\"");
        let config = config.replace("interface =", &format!("io = \"{io}\"\ninterface ="));
        let mut running = Running::start(&lab, &config);
        let generator = send_without_limit(&lab);
        // Do not compare the start of the traffic.
        wait_for_ledger(&mut running, |ledger| number(&ledger["seconds"]) > 1.0);
        let latest = |running: &Running| {
            let line = running.forwarder.last_line(|line| line.contains("\"interval\""));
            accounts_of_core(&ledger_of(&line.unwrap()), 1)
        };
        let before = latest(&running);
        let data = Config::new("");
        let mut record = Command::new("perf");
        record.args([
            "record",
            "-q",
            "-e",
            "cpu-clock",
            "-F",
            "997",
            "-a",
            "-g",
            "-o",
            data.path(),
        ]);
        let recorded = record.args(["--", "sleep", "20"]).output();
        let recorded = recorded.expect("perf is missing; install the Debian package linux-perf");
        assert!(recorded.status.success(), "{}", stderr(&recorded));
        let after = latest(&running);
        generator.stop().unwrap();
        running.stop();

        let command = format!(
            "perf script -i {} -F comm,pid,tid,cpu,time,event,ip,sym | python3 {script} 1",
            data.path()
        );
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let perf: Value = serde_json::from_slice(&output.stdout).unwrap();
        let samples: f64 = after.iter().sum::<f64>() - before.iter().sum::<f64>();
        println!("{io}: {samples} samples of xdpfwd, {} of perf", perf["samples"]);
        assert!(samples >= 2000.0 && number(&perf["samples"]) >= 2000.0);
        for (index, name) in ACCOUNTS.into_iter().enumerate() {
            let own = 100.0 * (after[index] - before[index]) / samples;
            let other = number(&perf["shares"][name]);
            println!("  {name:<12}{own:6.1} %{other:8.1} %");
            assert!((own - other).abs() < 5.0, "{io} {name}: {own} {other}");
        }
    }
}

/// Returns the samples of a core by account.
fn accounts_of_core(ledger: &Value, number_of_core: usize) -> [f64; ACCOUNTS.len()] {
    let core = list(&ledger["cores"]).iter().find(|core| core["core"] == number_of_core).unwrap();
    ACCOUNTS.map(|name| number(&account(&core["accounts"], name)["samples"]))
}
