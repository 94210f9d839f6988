//! Tests the log on stderr, in text and JSON format. Needs root.

mod support;

use serde_json::Value;
use support::{Config, TIMEOUT, XDPFWD, build_lab, cross_connect};
use xdpfwd_lab::{Chain, Forwarder, Sink, Traffic};

/// Returns the log of a run of xdpfwd, which receives on fwd0 `packets` packets of each of three
/// sorts: 60 bytes long, too long for a UMEM frame, and on a queue that xdpfwd does not serve.
fn log_of_run(format: &str, packets: u64) -> Vec<String> {
    let lab = build_lab(Chain::builder().queues(2));
    for (namespace, interface) in
        [(lab.gen_(), "gen0"), (lab.fwd(), "fwd0"), (lab.fwd(), "fwd1"), (lab.sink(), "sink0")]
    {
        // xdpfwd accepts an MTU of at most 1770 at start. The test raises the MTU of fwd0 later.
        let mtu = if interface.starts_with("fwd") { "1770" } else { "2000" };
        assert!(
            namespace
                .command("ip")
                .args(["link", "set", "dev", interface, "mtu", mtu])
                .status()
                .unwrap()
                .success()
        );
    }
    let config = Config::new(&(cross_connect(1, "") + "\n[umem]\nframes = 256\n"));
    let arguments =
        [XDPFWD, "--config", config.path(), "--json", "--interval", "0.1", "--log-format", format];
    let command = [&["env", "RUST_LOG=trace"], &arguments[..]].concat();
    let mut forwarder = Forwarder::spawn(lab.fwd(), &command).unwrap();
    forwarder.wait_for_line(TIMEOUT, |line| line.contains(r#""type":"interval""#)).unwrap();
    assert!(
        lab.fwd()
            .command("ip")
            .args(["link", "set", "dev", "fwd0", "mtu", "2000"])
            .status()
            .unwrap()
            .success()
    );
    let sink = Sink::attach(lab.sink(), "sink0").unwrap();
    // veth selects the queue by the sender's core. xdpfwd serves only queue 0.
    for (core, size) in [(0, 60), (0, 2000), (1, 60)] {
        let generator =
            Traffic::new().size(size).count(packets).core(core).start(lab.gen_(), "gen0").unwrap();
        generator.finish(TIMEOUT).unwrap();
    }
    assert!(forwarder.stop(TIMEOUT).unwrap().status.success());
    let final_report = forwarder.last_line(|line| line.contains(r#""type":"final""#)).unwrap();
    let final_report: Value = serde_json::from_str(&final_report).unwrap();
    let [redirected, kernel] =
        ["xdp_redirected", "kernel"].map(|key| &final_report["ports"][0][key]);
    if packets > 0 {
        assert!(sink.seen().unwrap().arrived.packets > 0);
        assert_eq!(redirected, 2 * packets, "{final_report}");
        assert!(kernel["rx_dropped"].as_u64().unwrap() >= packets, "{final_report}");
        assert!(
            final_report["ports"][0]["xdp_passed"].as_u64().unwrap() >= packets,
            "{final_report}"
        );
    }
    forwarder.stderr()
}

fn level_and_message(line: &str) -> (String, String) {
    let json: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert!(json.is_object(), "{line}");
    let time = json["timestamp"].as_str().unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "{line}");
    let message =
        json["fields"]["message"].as_str().unwrap_or_else(|| panic!("no message: {line}"));
    (json["level"].as_str().unwrap().to_owned(), message.to_owned())
}

#[test]
fn packets_cause_no_log_line_and_json_lines_are_objects() {
    let without_packets: Vec<_> =
        log_of_run("json", 0).iter().map(|line| level_and_message(line)).collect();
    let with_packets: Vec<_> =
        log_of_run("json", 20_000).iter().map(|line| level_and_message(line)).collect();
    assert_eq!(without_packets, with_packets, "60000 packets changed the log");
    let has_message = |expected_level: &str, start: &str| {
        with_packets
            .iter()
            .any(|(level, message)| level == expected_level && message.starts_with(start))
    };
    assert!(has_message("WARN", "queues = 1: fwd0 has 2 active queues"), "{with_packets:?}");
    assert!(
        has_message("INFO", "forwarding") && has_message("INFO", "stopping"),
        "{with_packets:?}"
    );
}

#[test]
fn json_log_has_named_fields() {
    let lines = log_of_run("json", 0);
    let events =
        lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
    let fields = |message: &str| {
        let event = events
            .iter()
            .find(|event| event["fields"]["message"].as_str().unwrap().starts_with(message));
        &event.unwrap_or_else(|| panic!("no {message:?} in {lines:#?}"))["fields"]
    };
    let forwarding = fields("forwarding");
    assert_eq!((&forwarding["port"], &forwarding["interface"]), (&"lan".into(), &"fwd0".into()));
    assert_eq!((&forwarding["queues"], &forwarding["mode"]), (&1.into(), &"copy".into()));
    assert_eq!(fields("stopping")["signal"], 2); // SIGINT
    let warning = fields("queues = 1");
    assert!(
        warning["line"].as_u64().is_some() && warning["column"].as_u64().is_some(),
        "{warning}"
    );
    assert!(warning["file"].as_str().unwrap().ends_with(".toml"), "{warning}");
}

#[test]
fn text_log_has_time_level_message_and_fields() {
    let lines = log_of_run("text", 2_000);
    let text = lines.join("\n");
    let forwarding = lines.iter().find(|line| line.contains("forwarding")).unwrap();
    let (time, after_time) = forwarding.split_once(' ').unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{forwarding}");
    assert_eq!(
        after_time.trim_start(),
        r#"INFO forwarding port="lan" interface="fwd0" queues=1 mode="copy""#
    );
    assert!(text.contains("INFO stopping signal=2"), "{text}");
    // The log has no colours, because stderr is not a terminal.
    assert!(!text.contains('\u{1b}'), "{text}");
    // Configuration diagnostics have the format of `--check`.
    assert!(lines[0].contains(".toml:") && lines[0].contains(": warning: queues = 1"), "{text}");
}

#[test]
fn startup_error_is_a_json_log_event() {
    let lab = build_lab(Chain::builder());
    let valid = cross_connect(1, "");
    for (config, code, message) in [
        (
            cross_connect(1, "mode = \"zero-copy\""),
            3,
            "worker 0: cannot bind fwd0 queue 0 in zero-",
        ),
        (valid.replace("fwd1", "a/b"), 2, "interface = \"a/b\": must be"),
    ] {
        let config = Config::new(&config);
        let arguments = ["--config", config.path(), "--log-format", "json"];
        let output = lab.fwd().command(XDPFWD).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        let text = String::from_utf8(output.stderr).unwrap();
        // A warning may precede the error, and findings of `doctor` follow it.
        let events: Vec<_> = text.lines().map(level_and_message).collect();
        assert!(
            events.iter().any(|(level, logged)| level == "ERROR" && logged.starts_with(message)),
            "{text}"
        );
    }
}
