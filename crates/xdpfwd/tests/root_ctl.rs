//! Tests `xdpfwd ctl` and the control socket. Needs root.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid as Process;
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
fn ctl_ledger_lists_costs_since_the_start_and_of_an_interval() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("ledger"));
    let running = Running::start(&lab, &socket.config(&["accept"]));
    send(&lab, 1000);
    let deadline = Instant::now() + TIMEOUT;
    let ledger = loop {
        let ledger = socket.query("ledger");
        if ledger["rx_packets"] == 1000 {
            break ledger;
        }
        assert!(Instant::now() < deadline, "{ledger}");
    };
    let stats = socket.query("stats");
    assert_eq!(ledger["type"], "ledger");
    for (part, key) in [("ledger", "cycles_per_second"), ("stages", "name")] {
        let first = |value: &Value| value[part].get(0).unwrap_or(&value[part])[key].clone();
        assert_eq!(first(&ledger), first(&stats), "{ledger}");
    }
    assert_eq!(ledger["stages"][0]["packets"], 1000);
    let cycles = ledger["stages"][0]["cycles"].as_f64().unwrap();
    let per_packet = ledger["stages"][0]["cycles_per_packet"].as_f64().unwrap();
    assert!((cycles / 1000.0 - per_packet).abs() <= 0.051, "{ledger}");
    assert!(ledger.get("kernel_ledger").is_some(), "{ledger}");
    let text = |arguments: &[&str]| {
        let output = socket.ctl(arguments);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let since_start = text(&["ledger"]);
    assert!(since_start.starts_with("since the start, "), "{since_start}");
    for part in
        ["s: 1,000 packets received\n", "\ntransmit ", "lan->wan  edge ", "kernel's share: "]
    {
        assert!(since_start.contains(part), "{part:?} in {since_start}");
    }
    // No packets in the interval, but the workers' time goes on.
    let idle = text(&["ledger", "--interval", "0.2"]);
    assert!(idle.starts_with("in 0.") && idle.contains(" s: 0 packets received\n"), "{idle}");
    let idle: Value =
        serde_json::from_str(&text(&["ledger", "--interval", "0.2", "--json"])).unwrap();
    assert_eq!((&idle["type"], &idle["rx_packets"]), (&json!("ledger"), &json!(0)));
    assert_eq!(idle["stages"][0]["packets"], 0, "{idle}");
    let seconds = idle["interval_seconds"].as_f64().unwrap();
    let cycles = |worker: &Value| {
        ["busy_cycles", "idle_cycles"].map(|key| worker[key].as_f64().unwrap()).iter().sum::<f64>()
    };
    let measured = cycles(&idle["ledger"]) / idle["ledger"]["cycles_per_second"].as_f64().unwrap();
    // The worker adds the cycles of a wait when it ends, about every 100 ms.
    assert!(seconds >= 0.2 && (measured - seconds).abs() < seconds, "{measured} of {idle}");
    let output = socket.ctl(&["stats", "--interval", "1"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("only `ledger` does"), "{output:?}");
    running.stop();
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
        (&[&[b' '; 4096][..], b"{\"command\":\"status\"}\n"].concat(), "at most 4096 bytes"),
        (b"{\"command\":\"rules\",\"arguments\":[\"--form=1\"]}\n", "`rules`: unexpected argument"),
        (b"{\"command\":\"rules\",\"arguments\":[\"--from=x\"]}\n", "`rules`: invalid value"),
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

/// Sends each request in two parts, of which the first has no line end.
#[test]
fn request_in_two_parts_beyond_the_limit_is_rejected() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("parts"));
    let running = Running::start(&lab, &socket.config(&["accept"]));
    for (padding, is_accepted) in [(4000, true), (4096, false), (8000, false)] {
        let mut stream = UnixStream::connect(&socket.0).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let request = " ".repeat(padding) + "{\"command\":\"status\"}\n";
        let (first, second) = request.split_at(padding.min(4090));
        stream.write_all(first.as_bytes()).unwrap();
        // The server reads the parts together or one by one; both must give the same answer.
        thread::yield_now();
        let _ = stream.write_all(second.as_bytes());
        let mut response = String::new();
        BufReader::new(stream).read_line(&mut response).unwrap();
        assert_eq!(response.contains("\"error\""), !is_accepted, "{padding}: {response}");
    }
    running.stop();
}

#[test]
fn ctl_lists_many_rules_in_full_and_by_selection() {
    const RULES: u64 = 20_000;
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("many"));
    let folder = Folder::new();
    let text = |rule: u64| format!("drop src 45.{}.{}.0/24 proto udp", rule / 256, rule % 256);
    let rules: String = (0..RULES).map(|rule| text(rule) + "\n").collect();
    fs::write(folder.join("edge.rules"), rules + "continue proto udp\n").unwrap();
    let config = socket.config(&[]).replace("rules = []", "rules = \"edge.rules\"");
    let path = folder.join("many.toml");
    fs::write(&path, config).unwrap();
    let arguments = [XDPFWD, "--config", path.to_str().unwrap(), "--interval", "0.05"];
    let mut forwarder = xdpfwd_lab::Forwarder::spawn(lab.fwd(), &arguments).unwrap();
    forwarder.wait_for_line(TIMEOUT, |line| line.contains("Mpps")).unwrap();
    // Send more packets than the rings hold, while the test lists the rules again and again. If the
    // lists delayed the worker, packets would be lost.
    let sent = 20_000;
    let traffic = Traffic::new().size(60).flows(4).rate(20_000).count(sent).core(0);
    let generator = traffic.start(lab.gen_(), "gen0").unwrap();
    let default = |answer: &Value| answer["filters"][0]["default"].as_u64().unwrap();
    let deadline = Instant::now() + TIMEOUT;
    let all = loop {
        let all = socket.query("rules");
        if default(&all) == sent {
            break all;
        }
        assert!(Instant::now() < deadline, "{} of {sent} packets", default(&all));
    };
    generator.finish(TIMEOUT).unwrap();
    let listed = all["filters"][0]["rules"].as_array().unwrap();
    assert_eq!(listed.len() as u64, RULES + 1);
    assert_eq!(listed[5], json!({ "rule": 5, "packets": 0, "text": text(5) }));
    assert_eq!(listed[RULES as usize]["packets"], sent);
    assert_eq!(all["filters"][0].get("rules_omitted"), None);
    let rules = |options: &[&str]| {
        let output = socket.ctl(&[&["rules", "--json"], options].concat());
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["filters"][0].clone()
    };
    let numbers = |filter: &Value| {
        let rules = filter["rules"].as_array().unwrap();
        rules.iter().map(|rule| rule["rule"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    for (options, expected) in [
        (&["--from", "19999"][..], &[19_999, 20_000][..]),
        (&["--from", "7", "--count", "2"], &[7, 8]),
        (&["--count", "0"], &[]),
        (&["--from", "20001"], &[]),
        (&["--matching", "45.78.31.0"], &[19_999]),
        (&["--matching", ".7.0/24", "--from", "300", "--count", "2"], &[519, 775]),
    ] {
        let filter = rules(options);
        assert_eq!(numbers(&filter), expected, "{options:?}");
        assert_eq!(filter["rules_omitted"], RULES + 1 - expected.len() as u64, "{options:?}");
        assert_eq!(filter["default"], sent, "{options:?}");
    }
    let text = |arguments: &[&str]| String::from_utf8(socket.ctl(arguments).stdout).unwrap();
    let lines = text(&["rules", "--matching", "continue"]);
    let expected = "edge of lan->wan\n 20000         20000  continue proto udp\n\
                    \x20              20000  (default)\n";
    assert_eq!(lines, expected);
    // Each table has a title and a line with the names of its columns.
    let exceptions = 2 + xdpfwd_stages::filter::PacketException::WITH_KEY.len() as u64;
    assert_eq!(text(&["inspect"]).lines().count() as u64, RULES + 4 + exceptions);
    let lines = text(&["inspect", "--from", "20000"]);
    assert!(lines.contains("-      20000    (default)\nedge of lan->wan: exceptions\n"), "{lines}");
    let output = socket.ctl(&["status", "--count", "1"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    // A client that reads nothing blocks neither other clients nor the forwarder.
    let mut idle = UnixStream::connect(&socket.0).unwrap();
    idle.write_all(b"{\"command\":\"rules\"}\n").unwrap();
    assert_eq!(socket.query("status")["type"], "status");
    // If the reader of stdout closes the pipe after one line, `ctl` ends without an error.
    let mut command = Command::new(XDPFWD);
    command.args(["ctl", "rules", "--socket", socket.path()]).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    drop(idle);
    forwarder.stop(TIMEOUT).unwrap();
}

/// Starts a server on the socket that calls `answer` for each client, after the client's request.
/// `answer` writes the response.
fn fake_server(socket: &Socket, answer: impl Fn(&mut UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(&socket.0).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = String::new();
            let _ = BufReader::new(&stream).read_line(&mut request);
            answer(&mut stream);
        }
    });
}

#[test]
fn ctl_escapes_control_characters_of_answers() {
    let socket = Socket::new("escapes");
    fake_server(&socket, |stream| {
        let text = r#""a\u001b[2J\u009b\u202e\n""#;
        let answer = format!(
            r#"{{"program":{text},"version":{text},"pid":1,"workers":{text},"elapsed_seconds":{text},
            "config":{text},"ports":[{{"name":{text},"interface":{text},"mode":{text}}}],
            "paths":[{{"path":{text},"stages":[{{"name":{text},"summary":{text}}}]}}],
            "filters":[{{"path":{text},"stage":{text},"rules":[{{"text":{text}}}]}}],
            "tables":[{{"name":{text},"columns":[{{"name":{text}}}],"rows":[[{text}]]}}],
            "warnings":[{text}],"drops":{{{text}:1}},"sas":[{{"stage":{text},"drops":{{{text}:1}}}}],
            "stages":[{{"name":{text},"path":{text},"packets":{text}}}]}}"#
        );
        let _ = stream.write_all((answer.replace('\n', " ") + "\n").as_bytes());
    });
    for command in ["status", "stats", "reload", "rules", "sa", "inspect"] {
        for arguments in [&[command][..], &[command, "--json"]] {
            let output = socket.ctl(arguments);
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            let is_unsafe = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
            assert!(!text.contains(is_unsafe), "{arguments:?}: {text:?}");
            assert!(text.contains("a\\u"), "{arguments:?}: {text:?}");
        }
    }
    let socket = Socket::new("names");
    fake_server(&socket, |stream| {
        let name = r#""a\u001b[2J\u202e""#;
        let answer = format!(
            r#"{{"ledger":{{"on":true,"tasks":[{{"name":{name},"cycles":1}}]}},
            "stages":[{{"name":{name},"path":{name}}}],"kernel_ledger":{{"mode":"sampled",
            "accounts":[{{"name":{name}}}],"xdp_unavailable":{name}}}}}"#
        );
        let _ = stream.write_all((answer.replace('\n', " ") + "\n").as_bytes());
    });
    for arguments in [&["ledger"][..], &["ledger", "--json"]] {
        let output = socket.ctl(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
        assert!(text.matches("a\\u").count() >= 4, "{text}");
    }
    let socket = Socket::new("error");
    fake_server(&socket, |stream| {
        let _ = stream.write_all(b"{\"error\":\"no\\u001b[2J\",\"problems\":[\"\\u009b\"]}\n");
    });
    for command in ["status", "rules"] {
        let output = socket.ctl(&[command]);
        assert_eq!((output.status.code(), stderr(&output).contains('\u{1b}')), (Some(1), false));
        assert!(stderr(&output).contains("no\\u{1b}[2J\n\\u{9b}"), "{output:?}");
    }
}

#[test]
fn ctl_fails_if_the_server_closes_without_an_answer() {
    let socket = Socket::new("closes");
    let listener = UnixListener::bind(&socket.0).unwrap();
    // Closes each connection at once, mostly before the client sends its request.
    thread::spawn(move || listener.incoming().for_each(drop));
    for command in ["reload", "status", "stats", "ledger", "sa", "rules", "inspect"] {
        let output = socket.ctl(&[command]);
        assert_eq!(output.status.code(), Some(1), "{command}: {output:?}");
        assert!(!output.stderr.is_empty(), "{command}: {output:?}");
    }
}

#[test]
fn ctl_refuses_answer_that_does_not_end() {
    let endless = |start: &'static str| {
        move |stream: &mut UnixStream| {
            let _ = stream.write_all(start.as_bytes());
            while stream.write_all(&[b'a'; 1 << 16]).is_ok() {}
        }
    };
    for (name, command, start) in
        [("garbage", "status", ""), ("text", "stats", "{\"a\":\""), ("list", "rules", "")]
    {
        let socket = Socket::new(name);
        fake_server(&socket, endless(start));
        let output = socket.ctl(&[command]);
        assert_eq!(output.status.code(), Some(1), "{name}: {output:?}");
        assert!(output.stderr.len() < 1000, "{name}: {output:?}");
    }
    let socket = Socket::new("early");
    fake_server(&socket, |stream| drop(stream.write_all(b"{\"filters\":[")));
    let output = socket.ctl(&["rules"]);
    assert!(stderr(&output).contains("the response ends early"), "{output:?}");
}

#[test]
fn ctl_rejects_server_of_another_user() {
    let socket = Socket::new("impostor");
    let script = "import socket, sys\n\
                  s = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\n\
                  print('ready', flush=True)\ns.accept()[0].recv(1)\n";
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]);
    command.args(["/usr/bin/python3", "-c", script, socket.path()]).stdout(Stdio::piped());
    let mut server = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let output = socket.ctl(&["status"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(stderr(&output).contains(r#"runs as user "nobody", who could invent"#), "{output:?}");
    let _ = server.kill();
    server.wait().unwrap();
}

#[test]
fn forwarder_without_reader_of_stdout_continues_to_forward() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("reader"));
    let folder = Folder::new();
    let path = folder.join("reader.toml");
    fs::write(&path, socket.config(&["accept"])).unwrap();
    let run = |stdout: Stdio| {
        let mut command = lab.fwd().command(XDPFWD);
        command.arg("--config").arg(&path).args(["--interval", "0.01"]);
        command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap()
    };
    // Waits until xdpfwd has received `packets` packets. Returns its process.
    let wait_for_packets = |child: &Child, packets: u64| {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let output = socket.ctl(&["stats", "--json"]);
            let answer = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default();
            if answer["ports"][0]["rx_packets"] == packets && answer["elapsed_seconds"] != 0.0 {
                break;
            }
            assert!(Instant::now() < deadline, "pid {}: {output:?}", child.id());
        }
        Process::from_raw(child.id().cast_signed())
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = run(writer.into());
    wait_for_packets(&child, 0);
    send(&lab, 1000);
    kill(wait_for_packets(&child, 1000), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let log = stderr(&output);
    assert_eq!(log.matches("the reader of stdout is gone").count(), 1, "{log}");
    assert!(!log.contains("Broken pipe"), "{log}");
    // If the disk behind stdout is full, xdpfwd continues to forward, but its exit status is 1.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let child = run(full.into());
    wait_for_packets(&child, 0);
    send(&lab, 1000);
    kill(wait_for_packets(&child, 1000), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("cannot write to stdout: No space left"), "{output:?}");
}
