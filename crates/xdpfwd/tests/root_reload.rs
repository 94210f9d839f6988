//! Tests reload on SIGHUP: under load, without packet loss or wrong verdicts, and with invalid
//! files. Needs root.
//!
//! The lab connects gen0 to fwd0 and fwd1 to sink0; xdpfwd forwards between fwd0 and fwd1.

mod support;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use support::socket::Socket;
use support::{Config, FinalReport, Running, TIMEOUT, build_lab, cross_connect, run_with_grants};
use xdpfwd_lab::{Chain, Sink, Traffic};

/// A file of filter rules, removed on drop.
struct Rules(PathBuf);

impl Rules {
    fn new(name: &str, rules: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{}-{name}.rules", std::process::id()));
        fs::write(&path, rules).unwrap();
        Self(path)
    }

    fn write(&self, rules: &str) {
        // Atomically, as an editor does.
        let new = self.0.with_extension("new");
        fs::write(&new, rules).unwrap();
        fs::rename(new, &self.0).unwrap();
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Returns a configuration that forwards both ways, with a filter in each direction: `forth` from
/// lan to wan, `back` from wan to lan.
fn config(place: &str, forth: &Rules, back: &Rules) -> String {
    config_with(place, forth, back, "")
}

fn config_with(place: &str, forth: &Rules, back: &Rules, engine: &str) -> String {
    let stages = |text: String, to: &str, name: &str| {
        text.replace(&format!("to = \"{to}\""), &format!("to = \"{to}\"\nstages = [\"{name}\"]"))
    };
    let text = stages(
        stages(cross_connect(1, &format!("cores = [1]\n{engine}")), "wan", "forth"),
        "lan",
        "back",
    );
    let filter = |name: &str, rules: &Rules| {
        let rules = rules.0.to_str().unwrap();
        format!(
            "[stage.{name}]\nkind = \"filter\"\nplace = \"{place}\"\n\
             default = \"drop\"\nrules = {rules:?}\n"
        )
    };
    format!("{text}\n{}{}", filter("forth", forth), filter("back", back))
}

/// Returns `count` rules that match no packet of the test, with ports from `first_port` on, and
/// `last_rule`.
fn rules_ending_with(count: usize, first_port: usize, last_rule: &str) -> String {
    let unmatched = (0..count).map(|n| {
        format!("drop src 198.18.{}.0/24 proto tcp dport {}\n", n % 256, first_port + n / 256)
    });
    unmatched.collect::<String>() + last_rule + "\n"
}

#[test]
fn hundred_reloads_under_load_lose_no_packet() {
    reload_in_user_space(100);
}

#[test]
#[ignore = "long: make test-long"]
fn thousand_reloads_under_load_lose_no_packet() {
    reload_in_user_space(1000);
}

fn reload_in_user_space(reloads: usize) {
    let final_report = reload_under_load("user", reloads);
    // The rule `accept` counted all packets, so its counter survived every reload.
    let stages = final_report.json["stages"].as_array().unwrap();
    let forth = stages.iter().find(|stage| stage["name"] == "forth").unwrap();
    assert_eq!(forth["counters"]["accepted"], forth["packets"], "{forth}");
}

#[test]
fn hundred_reloads_of_kernel_filter_lose_no_packet() {
    reload_in_the_kernel(100);
}

#[test]
#[ignore = "long: make test-long"]
fn thousand_reloads_of_kernel_filter_lose_no_packet() {
    reload_in_the_kernel(1000);
}

fn reload_in_the_kernel(reloads: usize) {
    let final_report = reload_under_load("kernel", reloads);
    assert_eq!(final_report.parsed.drops["policy"], 0, "{}", final_report.json);
}

fn reload_under_load(place: &str, reloads: usize) -> FinalReport {
    let lab = build_lab(Chain::builder());
    let unique = |name: &str| format!("{place}-{reloads}-{name}");
    let (accepting, dropping) = (
        Rules::new(&unique("accepting"), &rules_ending_with(1000, 1, "accept")),
        Rules::new(&unique("dropping"), &rules_ending_with(1000, 1, "drop")),
    );
    let socket = Socket::new(&unique("reload"));
    let control = format!("control = {:?}", socket.path());
    let running = Running::start(&lab, &config_with(place, &accepting, &dropping, &control));
    let sink_at_sink0 = Sink::builder().check(true).attach(lab.sink(), "sink0").unwrap();
    let sink_at_gen0 = Sink::attach(lab.gen_(), "gen0").unwrap();
    let traffic = Traffic::new().size(60).flows(16).rate(10_000).on_grant().core(0);
    let generator_forth = traffic.start(lab.gen_(), "gen0").unwrap();
    let generator_back = traffic.start(lab.sink(), "sink0").unwrap();
    // Each generator may send only 200 packets more than its sink has received. The filter `back`
    // drops all packets, so `sink_at_gen0` cannot pace `generator_back`: `sink_at_sink0` paces both
    // generators. This suffices because one worker processes both directions.
    let pairs = [(&generator_forth, &sink_at_sink0), (&generator_back, &sink_at_sink0)];
    run_with_grants(&pairs, || {
        for round in 0..reloads {
            let shift = 1 + round % 7;
            accepting.write(&rules_ending_with(1000 + 10 * shift, shift, "accept"));
            dropping.write(&rules_ending_with(2000 - 10 * shift, shift, "drop"));
            running.reload("INFO reloaded");
        }
    });
    let (sent_forth, sent_back) = (generator_forth.stop().unwrap(), generator_back.stop().unwrap());
    // Wait for packets in flight.
    let deadline = Instant::now() + TIMEOUT;
    while sink_at_sink0.seen().unwrap().arrived.packets < sent_forth.packets
        && Instant::now() < deadline
    {
        thread::sleep(Duration::from_millis(10));
    }
    // The last rule of each filter counted all packets: its counter survived every reload.
    let filters = socket.query("rules")["filters"].clone();
    let last_rule_packets = |filter: usize| {
        filters[filter]["rules"].as_array().unwrap().last().unwrap()["packets"].clone()
    };
    assert_eq!(
        filters[0]["rules"].as_array().unwrap().len(),
        1000 + 10 * (1 + (reloads - 1) % 7) + 1,
        "wrong number of rules after the last reload"
    );
    assert_eq!(
        (last_rule_packets(0), last_rule_packets(1)),
        (sent_forth.packets.into(), sent_back.packets.into())
    );
    let (exit, final_report) = running.stop();
    assert!(exit.status.success(), "{exit:?}");
    final_report.assert_frames_and_packets_add_up();
    let seen = sink_at_sink0.seen().unwrap();
    assert!(seen.is_clean(), "{seen:?}: {}", final_report.json);
    assert_eq!(seen.arrived.packets, sent_forth.packets, "{}", final_report.json);
    assert_eq!(
        sink_at_gen0.seen().unwrap().arrived.packets,
        0,
        "packets at gen0, although a rule drops them: {}",
        final_report.json
    );
    let dropped_in_kernel = final_report.json["ports"][1]["xdp_dropped"].as_u64().unwrap();
    assert_eq!(
        final_report.parsed.drops["policy"] + dropped_in_kernel,
        sent_back.packets,
        "{}",
        final_report.json
    );
    println!(
        "{} packets forth and {} back, {reloads} reloads",
        sent_forth.packets, sent_back.packets
    );
    final_report
}

#[test]
fn rejected_reload_changes_nothing() {
    let lab = build_lab(Chain::builder());
    let (forth, back) = (Rules::new("forth", "accept"), Rules::new("back", "drop"));
    let valid = config("user", &forth, &back);
    let config = Config::new(&valid);
    let mut forwarder = xdpfwd_lab::Forwarder::spawn(
        lab.fwd(),
        &[support::XDPFWD, "--config", config.path(), "--json", "--interval", "0.05"],
    )
    .unwrap();
    forwarder.wait_for_line(TIMEOUT, |line| line.contains(r#""type":"interval""#)).unwrap();
    let unused = Config::new(""); // `config` is the file that xdpfwd reads
    let running = Running::from_forwarder(forwarder, unused);
    let sink = Sink::builder().check(true).attach(lab.sink(), "sink0").unwrap();
    let assert_arrivals_of_100 = |expected: u64| {
        let before = sink.seen().unwrap().arrived.packets;
        Traffic::new()
            .size(60)
            .rate(10_000)
            .count(100)
            .core(0)
            .start(lab.gen_(), "gen0")
            .unwrap()
            .finish(TIMEOUT)
            .unwrap();
        thread::sleep(Duration::from_millis(100));
        assert_eq!(
            sink.seen().unwrap().arrived.packets - before,
            expected,
            "{:#?}",
            running.forwarder.stderr()
        );
    };
    assert_arrivals_of_100(100);
    forth.write("drop\naccept proto nonsense\n");
    running.reload("not reloaded: the configuration is invalid");
    assert_eq!(
        running.count_log_lines("forth.rules:2:14: unknown protocol `nonsense`"),
        1,
        "{:#?}",
        running.forwarder.stderr()
    );
    assert_arrivals_of_100(100);
    forth.write("accept");
    fs::write(config.path(), valid.replace("cores = [1]", "cores = [0]")).unwrap();
    running.reload("not reloaded: `cores` cannot change on reload; restart to apply it");
    assert_arrivals_of_100(100);
    fs::write(config.path(), &valid).unwrap();
    forth.write("drop proto udp\naccept");
    running.reload("INFO reloaded");
    assert_arrivals_of_100(0);
    let (exit, final_report) = running.stop();
    assert!(exit.status.success(), "{exit:?}");
    assert_eq!(final_report.parsed.drops["policy"], 100, "{}", final_report.json);
    final_report.assert_frames_and_packets_add_up();
}
