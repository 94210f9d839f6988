//! Tests filters with `place = "kernel"` or `"auto"`, which run in the XDP program. Needs root.
//!
//! The lab connects gen0 to fwd0 and fwd1 to sink0; xdpfwd forwards between fwd0 and fwd1.

mod support;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::socket::Socket;
use support::{Config, Running, TIMEOUT, XDPFWD, build_lab, cross_connect, stderr};
use xdpfwd_lab::{Chain, Forwarder, Sink, Traffic};

/// Sends four flows, with UDP source ports 1024 to 1027. A veth selects the queue by the sending
/// core.
fn send(lab: &Chain, packets: u64, core: usize) {
    let traffic = Traffic::new().size(60).flows(4).rate(20_000).count(packets).core(core);
    traffic.start(lab.gen_(), "gen0").unwrap().finish(TIMEOUT).unwrap();
}

/// Waits until the sum of these counters of the first port is `sum`.
#[track_caller]
fn wait_for_counters(socket: &Socket, counters: &[&str], sum: u64) -> Value {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let stats = socket.query("stats");
        let port = &stats["ports"][0];
        if counters.iter().map(|name| port[name].as_u64().unwrap()).sum::<u64>() == sum {
            return stats;
        }
        assert!(
            Instant::now() < deadline,
            "the sum of {counters:?} is not {sum} after {TIMEOUT:?}: {stats}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the filter's placement, and the packets that matched each rule and, last, no rule.
fn placement_and_matches(socket: &Socket) -> (String, Vec<u64>) {
    let edge = &socket.query("rules")["filters"][0];
    let rules = edge["rules"].as_array().unwrap().iter().map(|rule| &rule["packets"]);
    let counts = rules.chain([&edge["default"]]).map(|count| count.as_u64().unwrap()).collect();
    (edge["place"].as_str().unwrap().to_owned(), counts)
}

#[test]
fn kernel_filter_drops_before_user_space_and_counts_drops() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("kernel"));
    let rules = [
        "drop proto udp sport 1024",
        "continue proto udp",
        "accept proto udp sport 1025-1026",
        "accept proto tcp",
    ];
    let running = Running::start(&lab, &socket.config_with_place("kernel", &rules));
    let sink = Sink::builder().check(true).attach(lab.sink(), "sink0").unwrap();
    send(&lab, 4000, 0);
    let stats = wait_for_counters(&socket, &["xdp_redirected", "xdp_dropped"], 4000);
    let port = &stats["ports"][0];
    assert_eq!(
        (&port["xdp_redirected"], &port["xdp_dropped"]),
        (&json!(2000), &json!(2000)),
        "{port}"
    );
    let other_reasons = [
        "not_ip",
        "malformed",
        "vlan_stack",
        "extension_chain",
        "ip_options",
        "routing_header",
        "later_fragment",
    ];
    assert_eq!(port["xdp_drops"]["policy"], 2000);
    assert!(other_reasons.iter().all(|reason| port["xdp_drops"][reason] == 0), "{port}");
    assert_eq!(stats["stages"][0]["place"], "kernel", "{stats}");
    assert_eq!(placement_and_matches(&socket), ("kernel".into(), vec![1000, 3000, 2000, 0, 1000]));
    let text = String::from_utf8(socket.ctl(&["rules"]).stdout).unwrap();
    assert!(text.starts_with("edge of lan->wan, in the kernel\n"), "{text}");
    let (exit, final_report) = running.stop();
    assert!(exit.status.success());
    final_report.assert_frames_and_packets_add_up();
    assert_eq!(final_report.json["ports"][0]["rx_packets"], 2000, "{}", final_report.json);
    assert_eq!(final_report.parsed.drops["policy"], 0, "{}", final_report.json);
    let seen = sink.seen().unwrap();
    assert!(seen.is_clean() && seen.arrived.packets == 2000, "{seen:?}");
}

#[test]
fn packets_of_unserved_queue_bypass_kernel_filter() {
    // xdpfwd serves only queue 0.
    let (lab, socket) = (build_lab(Chain::builder().queues(2)), Socket::new("unserved"));
    let running = Running::start(&lab, &socket.config_with_place("kernel", &["drop"]));
    send(&lab, 100, 0);
    wait_for_counters(&socket, &["xdp_dropped"], 100);
    send(&lab, 100, 1);
    let stats = wait_for_counters(&socket, &["xdp_passed", "xdp_dropped"], 200);
    assert_eq!(stats["ports"][0]["xdp_passed"], 100, "{stats}");
    running.stop();
}

#[test]
fn rule_counters_survive_reload_and_change_of_placement() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("carried"));
    let config =
        Config::new(&socket.config_with_place("auto", &["accept sport 1024", "drop sport 1025"]));
    let arguments = [XDPFWD, "--config", config.path(), "--json", "--interval", "0.05"];
    let mut forwarder = Forwarder::spawn(lab.fwd(), &arguments).unwrap();
    forwarder.wait_for_line(TIMEOUT, |line| line.contains(r#""type":"interval""#)).unwrap();
    let reload_with = |place: &str, rules: &[&str]| {
        fs::write(config.path(), socket.config_with_place(place, rules)).unwrap();
        socket.ctl(&["reload"])
    };
    send(&lab, 400, 0);
    wait_for_counters(&socket, &["xdp_redirected", "xdp_dropped"], 400);
    assert_eq!(placement_and_matches(&socket), ("kernel".into(), vec![100, 100, 200]));
    // Unchanged rules keep their counters, also at another index.
    assert!(
        reload_with("auto", &["drop sport 1026", "drop sport 1025", "accept sport 1024"])
            .status
            .success()
    );
    assert_eq!(placement_and_matches(&socket), ("kernel".into(), vec![0, 100, 100, 200]));
    send(&lab, 400, 0);
    wait_for_counters(&socket, &["xdp_redirected", "xdp_dropped"], 800);
    assert_eq!(placement_and_matches(&socket), ("kernel".into(), vec![100, 200, 200, 300]));
    // With a limit, the filter runs in user space.
    assert!(
        reload_with("auto", &["drop sport 1025", "accept sport 1024 limit 1Mpps"]).status.success()
    );
    assert_eq!(placement_and_matches(&socket), ("user".into(), vec![200, 0, 300]));
    send(&lab, 400, 0);
    wait_for_counters(&socket, &["rx_packets"], 600);
    assert_eq!(placement_and_matches(&socket), ("user".into(), vec![300, 100, 500]));
    // A reload does not move the filter to the kernel: there, the filter would miss the packets
    // that already wait for a worker.
    assert!(reload_with("auto", &["drop sport 1025"]).status.success());
    assert_eq!(placement_and_matches(&socket), ("user".into(), vec![300, 500]));
    let rejected = reload_with("kernel", &["drop sport 1025"]);
    assert!(stderr(&rejected).contains("the `place` of a stage"), "{rejected:?}");
    assert!(stderr(&rejected).contains("restart to apply it"), "{rejected:?}");
    forwarder.stop(TIMEOUT).unwrap();
}

/// Between the changes in the kernel and in user space, a packet could pass unchecked.
#[test]
fn joint_change_of_kernel_filter_and_later_stage_is_rejected() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("together"));
    let config_with_rules = |edge: &str, inner: &str| {
        let text = socket
            .config_with_place("kernel", &[edge])
            .replace(r#"stages = ["edge"]"#, r#"stages = ["edge", "inner"]"#);
        format!(
            "{text}\n[stage.inner]\nkind = \"filter\"\ndefault = \"accept\"\nrules = [{inner:?}]\n"
        )
    };
    let config = Config::new(&config_with_rules("accept proto udp", "drop sport 1024"));
    let arguments = [XDPFWD, "--config", config.path(), "--json", "--interval", "0.05"];
    let mut forwarder = Forwarder::spawn(lab.fwd(), &arguments).unwrap();
    forwarder.wait_for_line(TIMEOUT, |line| line.contains(r#""type":"interval""#)).unwrap();
    let reload = |text: &str| {
        fs::write(config.path(), text).unwrap();
        socket.ctl(&["reload"])
    };
    let rejected = reload(&config_with_rules("drop sport 1024", "accept"));
    assert!(stderr(&rejected).contains("change them in two reloads"), "{rejected:?}");
    // The stage `inner` still drops 100 of 400 packets.
    send(&lab, 400, 0);
    wait_for_counters(&socket, &["rx_packets"], 400);
    assert_eq!(socket.query("stats")["drops"]["policy"], 100);
    // Reload first the later stage, then the filter in the kernel.
    for (edge, inner) in
        [("accept proto udp", "drop sport 1025"), ("drop sport 1024", "drop sport 1025")]
    {
        let output = reload(&config_with_rules(edge, inner));
        assert!(output.status.success(), "{output:?}");
    }
    let filters = socket.query("rules")["filters"].clone();
    assert_eq!(filters[0]["rules"][0]["text"], "drop sport 1024", "{filters}");
    assert_eq!(filters[1]["rules"][0]["text"], "drop sport 1025", "{filters}");
    // A filter with another value of the key `not_ip` is a changed filter. Change both filters.
    let changed_not_ip = config_with_rules("drop sport 1024", "drop sport 1025")
        .replace("kind = \"filter\"", "kind = \"filter\"\nnot_ip = \"drop\"");
    assert!(stderr(&reload(&changed_not_ip)).contains("change them in two reloads"));
    forwarder.stop(TIMEOUT).unwrap();
}

#[test]
fn reload_adds_and_removes_kernel_filter() {
    let (lab, socket) = (build_lab(Chain::builder()), Socket::new("added"));
    let with_filter = socket
        .config_with_place("kernel", &["drop sport 1024"])
        .replace("default = \"drop\"", "default = \"accept\"");
    let without_filter = cross_connect(1, &format!("cores = [1]\ncontrol = {:?}", socket.path()));
    let config = Config::new(&without_filter);
    let arguments = [XDPFWD, "--config", config.path(), "--json", "--interval", "0.05"];
    let mut forwarder = Forwarder::spawn(lab.fwd(), &arguments).unwrap();
    forwarder.wait_for_line(TIMEOUT, |line| line.contains(r#""type":"interval""#)).unwrap();
    for (text, dropped, received) in [
        (&without_filter, 0, 400),
        (&with_filter, 100, 700),
        (&without_filter, 100, 1100),
        (&with_filter, 200, 1400),
    ] {
        fs::write(config.path(), text).unwrap();
        let reloaded = socket.ctl(&["reload"]);
        assert!(reloaded.status.success(), "{reloaded:?}");
        send(&lab, 400, 0);
        let stats =
            wait_for_counters(&socket, &["xdp_redirected", "xdp_dropped"], dropped + received);
        assert_eq!(stats["ports"][0]["xdp_dropped"], dropped, "{stats}");
        wait_for_counters(&socket, &["rx_packets"], received);
    }
    forwarder.stop(TIMEOUT).unwrap();
}
