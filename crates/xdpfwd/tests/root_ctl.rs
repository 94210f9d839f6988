//! Tests `xdpfwd ctl` and the control socket. Needs root.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::socket::Socket;
use support::{Running, TIMEOUT, XDPFWD, build_lab, stderr};
use xdpfwd_lab::{Chain, Traffic};
use xdpfwd_testkit::Folder;

/// Sends four flows, with UDP source ports 1024 to 1027.
fn send(lab: &Chain, packets: u64) {
    let traffic = Traffic::new().size(60).flows(4).rate(20_000).count(packets).core(0);
    traffic.start(lab.gen_(), "gen0").unwrap().finish(TIMEOUT).unwrap();
}

#[test]
fn ctl_responses_match_traffic_and_final_report() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("answers"));
    let rules = ["continue proto udp", "accept proto udp sport 1024-1025", "drop proto tcp"];
    let running = Running::start(&lab, &socket.config(&rules));
    send(&lab, 1000);
    let deadline = Instant::now() + TIMEOUT;
    while socket.query("stats")["ports"][0]["rx_packets"] != 1000 {
        assert!(Instant::now() < deadline, "{}", socket.query("stats"));
    }
    let status = socket.query("status");
    assert_eq!(
        (&status["type"], &status["pid"]),
        (&json!("status"), &json!(running.forwarder.pid()))
    );
    assert_eq!(
        (&status["ports"][0]["interface"], &status["ports"][0]["mode"]),
        (&json!("fwd0"), &json!("copy"))
    );
    assert_eq!(status["paths"][0]["stages"][0]["name"], "edge", "{status}");
    let rules_response = socket.query("rules");
    let expected = |rules: [(&str, u64); 3], default: u64| {
        let rules: Vec<Value> = rules
            .iter()
            .enumerate()
            .map(|(index, (text, packets))| {
                json!({ "rule": index, "packets": packets, "text": text })
            })
            .collect();
        let exceptions = [
            "not_ip",
            "malformed",
            "vlan_stack",
            "extension_chain",
            "ip_options",
            "routing_header",
            "later_fragment",
        ];
        let exceptions =
            exceptions.map(|name| json!({ "exception": name, "accepted": 0, "dropped": 0 }));
        let edge = json!({
            "path": "lan->wan", "stage": "edge", "place": "user", "rules": rules, "default": default,
            "exceptions": exceptions,
        });
        json!({ "schema": 1, "type": "rules", "workers": 1, "answered": 1, "filters": [edge] })
    };
    assert_eq!(rules_response, expected([(rules[0], 1000), (rules[1], 500), (rules[2], 0)], 500));
    let text = String::from_utf8(socket.ctl(&["rules"]).stdout).unwrap();
    assert!(text.contains("     1           500  accept proto udp sport 1024-1025\n"), "{text}");
    assert!(
        String::from_utf8(socket.ctl(&["status"]).stdout)
            .unwrap()
            .contains("path lan->wan: edge (3 rules")
    );
    assert!(
        String::from_utf8(socket.ctl(&["stats"]).stdout)
            .unwrap()
            .contains("dropped as policy: 500\n")
    );
    let inspected = socket.query("inspect");
    assert_eq!((&inspected["type"], &inspected["answered"]), (&json!("inspect"), &json!(1)));
    let table = &inspected["tables"][0];
    assert_eq!(
        table["columns"],
        json!([{ "name": "rule" }, { "name": "packets", "unit": "packets" }, { "name": "text" }])
    );
    assert_eq!(table["rows"][1], json!([1, 500, rules[1]]), "{table}");
    assert_eq!(table["rows"][3], json!([null, 500, "(default)"]), "{table}");
    let text = String::from_utf8(socket.ctl(&["inspect"]).stdout).unwrap();
    assert!(text.contains("edge of lan->wan: rules\n"), "{text}");
    // `afresh` lists the stages that start anew.
    let reloaded = socket.query("reload");
    assert_eq!(reloaded, json!({ "schema": 1, "type": "reload", "afresh": [], "warnings": [] }));
    assert_eq!(socket.query("rules"), rules_response);
    let (exit, final_report) = running.stop();
    assert!(exit.status.success());
    assert_eq!(final_report.json["drops"]["policy"], 500);
    assert_eq!(
        final_report.json["tables"][0]["rows"], table["rows"],
        "the final report has other rows than `ctl inspect`"
    );
    assert!(!socket.0.exists(), "xdpfwd did not remove its socket");
}

/// The stage `ttl` has counters, but no other state.
#[test]
fn reload_keeps_counters_of_stages_without_state() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("counters"));
    let folder = Folder::new();
    let path = folder.join("ttl.toml");
    let config = |kind: &str| {
        let filter = socket.config(&["accept"]);
        let (ports_and_paths, _) = filter.split_once("[stage.edge]").unwrap();
        format!("{ports_and_paths}[stage.edge]\nkind = \"{kind}\"\n")
    };
    fs::write(&path, config("ttl")).unwrap();
    let arguments = [XDPFWD, "--config", path.to_str().unwrap(), "--interval", "0.05"];
    let mut forwarder = xdpfwd_lab::Forwarder::spawn(lab.fwd(), &arguments).unwrap();
    forwarder.wait_for_line(TIMEOUT, |line| line.contains("Mpps")).unwrap();
    let reload = |restarted_stages: &[&str]| {
        let expected = json!({
            "schema": 1, "type": "reload", "afresh": restarted_stages, "warnings": []
        });
        assert_eq!(socket.query("reload"), expected);
        socket.query("stats")["stages"][0].clone()
    };
    send(&lab, 1000);
    let deadline = Instant::now() + TIMEOUT;
    while socket.query("stats")["ports"][0]["rx_packets"] != 1000 {
        assert!(Instant::now() < deadline, "{}", socket.query("stats"));
    }
    let before = socket.query("stats")["stages"][0].clone();
    let after = reload(&[]);
    assert_eq!((&after["counters"], &after["packets"]), (&before["counters"], &before["packets"]));
    let text = |command: &str| String::from_utf8(socket.ctl(&[command]).stdout).unwrap();
    assert_eq!(text("rules"), "no stage has rules\n");
    assert_eq!(text("sa"), "no stage has security associations\n");
    assert_eq!(text("inspect"), "no stage has tables\n");
    fs::write(&path, config("mac-swap")).unwrap();
    assert_eq!(reload(&["edge"])["counters"], Value::Null);
    forwarder.stop(TIMEOUT).unwrap();
}

#[test]
fn failed_ctl_reload_prints_the_reason() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("reload"));
    let folder = Folder::new();
    let path = folder.join("ctl.toml");
    fs::write(&path, socket.config(&["accept"])).unwrap();
    let arguments = [XDPFWD, "--config", path.to_str().unwrap(), "--json", "--interval", "0.05"];
    let mut forwarder = xdpfwd_lab::Forwarder::spawn(lab.fwd(), &arguments).unwrap();
    forwarder.wait_for_line(TIMEOUT, |line| line.contains(r#""type":"interval""#)).unwrap();
    fs::write(&path, socket.config(&["accept porto tcp"])).unwrap();
    let output = socket.ctl(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = stderr(&output);
    assert!(text.contains("not reloaded") && text.contains("unknown word `porto`"), "{text}");
    assert!(text.contains(&format!("{}:", path.display())), "{text}");
    fs::write(&path, socket.config(&["drop"])).unwrap();
    assert!(socket.ctl(&["reload"]).status.success());
    assert_eq!(socket.query("rules")["filters"][0]["rules"][0]["text"], "drop");
    forwarder.stop(TIMEOUT).unwrap();
}

#[test]
fn control_socket_rejects_other_users_and_invalid_requests() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("guarded"));
    let running = Running::start(&lab, &socket.config(&["accept"]));
    assert_eq!(fs::metadata(&socket.0).unwrap().permissions().mode() & 0o777, 0o600);
    let folder = Folder::shared();
    let binary = folder.join("xdpfwd");
    fs::copy(XDPFWD, &binary).unwrap();
    let assert_unprivileged_user_is_rejected = || {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"])
            .arg(&binary)
            .args(["ctl", "status"]);
        let output = command.args(["--socket", socket.path()]).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(stderr(&output).contains("only root"), "{output:?}");
    };
    assert_unprivileged_user_is_rejected();
    // xdpfwd rejects other users even if the file's mode lets them connect.
    fs::set_permissions(&socket.0, fs::Permissions::from_mode(0o666)).unwrap();
    assert_unprivileged_user_is_rejected();
    for (request, error) in [
        (&b"nonsense\n"[..], "invalid request"),
        (b"{\"command\":\"format\"}\n", "unknown command"),
        (b"{\"command\":\"status\",\"more\":1}\n", "invalid request"),
        (b"{\"command\":\"status\"}", "one line of at most 4096 bytes"),
        (&[b'x'; 5000], "one line of at most 4096 bytes"),
        (b"\n", "invalid request"),
    ] {
        let response = socket.send_raw(request);
        assert!(response["error"].as_str().unwrap().contains(error), "{response}");
    }
    let silent = UnixStream::connect(&socket.0).unwrap();
    let start = Instant::now();
    assert_eq!(socket.query("status")["type"], "status");
    assert!(start.elapsed() < Duration::from_secs(30), "the silent client blocks others");
    drop(silent);
    let (exit, final_report) = running.stop();
    assert!(exit.status.success());
    final_report.assert_frames_and_packets_add_up();
}

#[test]
fn control_socket_is_replaced_only_if_no_process_listens() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("stale"));
    let mut first = Running::start(&lab, &socket.config(&["accept"]));
    first.signal(Signal::SIGKILL);
    first.wait();
    assert!(socket.0.exists(), "after SIGKILL, no socket file is left to replace");
    let output = socket.ctl(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains(&format!("no xdpfwd listens on {}", socket.path())),
        "{output:?}"
    );
    let second = Running::start(&lab, &socket.config(&["accept"]));
    assert_eq!(socket.query("status")["pid"], second.forwarder.pid());
    // A third xdpfwd with this path, in another lab, forwards without a control socket.
    let other_lab = build_lab(Chain::builder());
    let third = Running::start(&other_lab, &socket.config(&["accept"]));
    let has_warning =
        third.forwarder.stderr().iter().any(|line| line.contains("no control socket"));
    assert!(has_warning, "{:#?}", third.forwarder.stderr());
    third.stop();
    assert_eq!(socket.query("status")["pid"], second.forwarder.pid());
    second.stop();
    assert!(!socket.0.exists());
}
