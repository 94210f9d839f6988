//! Tests filters in the XDP program: dropped packets never reach user space, counters are reported,
//! and a reload does not move a filter from user space to the kernel. Needs root.

mod support;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::socket::Socket;
use support::{Config, Running, TIMEOUT, XDPFWD, chain, cross_connect, stderr};
use xdpfwd_lab::{Chain, Forwarder, Sink, Traffic};

/// Sends four flows, with source ports 1024 to 1027, from a core.
fn send(chain: &Chain, packets: u64, core: usize) {
    let traffic = Traffic::new().size(60).flows(4).rate(20_000).count(packets).core(core);
    traffic.start(chain.gen_(), "gen0").unwrap().finish(TIMEOUT).unwrap();
}

/// Waits until a sum over the first port's counters has the expected value.
#[track_caller]
fn wait_for(socket: &Socket, counters: &[&str], sum: u64) -> Value {
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

/// Returns the placement, and the matches of each rule and of the default.
fn matched(socket: &Socket) -> (String, Vec<u64>) {
    let edge = &socket.query("rules")["filters"][0];
    let rules = edge["rules"].as_array().unwrap().iter().map(|rule| &rule["packets"]);
    let counts = rules.chain([&edge["default"]]).map(|count| count.as_u64().unwrap()).collect();
    (edge["place"].as_str().unwrap().to_owned(), counts)
}

#[test]
fn kernel_filter_drops_before_user_space_and_counts() {
    let (chain, socket) = (chain(Chain::builder()), Socket::new("kernel"));
    let rules = [
        "drop proto udp sport 1024",
        "continue proto udp",
        "accept proto udp sport 1025-1026",
        "accept proto tcp",
    ];
    let running = Running::start(&chain, &socket.config_in("kernel", &rules));
    let sink = Sink::builder().check(true).attach(chain.sink(), "sink0").unwrap();
    send(&chain, 4000, 0);
    let stats = wait_for(&socket, &["xdp_redirected", "xdp_dropped"], 4000);
    let port = &stats["ports"][0];
    assert_eq!(
        (&port["xdp_redirected"], &port["xdp_dropped"]),
        (&json!(2000), &json!(2000)),
        "{port}"
    );
    let others =
        ["not_ip", "malformed", "vlan_stack", "extension_chain", "ip_options", "later_fragment"];
    assert_eq!(port["xdp_drops"]["policy"], 2000);
    assert!(others.iter().all(|reason| port["xdp_drops"][reason] == 0), "{port}");
    assert_eq!(stats["stages"][0]["place"], "kernel", "{stats}");
    assert_eq!(matched(&socket), ("kernel".into(), vec![1000, 3000, 2000, 0, 1000]));
    let text = String::from_utf8(socket.ctl(&["rules"]).stdout).unwrap();
    assert!(text.starts_with("edge of lan->wan, in the kernel\n"), "{text}");
    let (ended, last) = running.stop();
    assert!(ended.status.success());
    last.assert_conserved();
    // The UMEM received only accepted packets.
    assert_eq!(last.json["ports"][0]["rx_packets"], 2000, "{}", last.json);
    assert_eq!(last.report.drops["policy"], 0, "{}", last.json);
    let seen = sink.seen().unwrap();
    assert!(seen.is_clean() && seen.arrived.packets == 2000, "{seen:?}");
}

#[test]
fn unserved_queue_bypasses_kernel_filter() {
    let (chain, socket) = (chain(Chain::builder().queues(2)), Socket::new("unserved"));
    let running = Running::start(&chain, &socket.config_in("kernel", &["drop"]));
    send(&chain, 100, 0);
    wait_for(&socket, &["xdp_dropped"], 100);
    send(&chain, 100, 1);
    let stats = wait_for(&socket, &["xdp_passed", "xdp_dropped"], 200);
    assert_eq!(stats["ports"][0]["xdp_passed"], 100, "{stats}");
    running.stop();
}

#[test]
fn rule_counters_survive_reload_and_change_of_placement() {
    let (chain, socket) = (chain(Chain::builder()), Socket::new("carried"));
    let config = Config::new(&socket.config_in("auto", &["accept sport 1024", "drop sport 1025"]));
    let arguments = [XDPFWD, "--config", config.path(), "--json", "--interval", "0.05"];
    let mut forwarder = Forwarder::spawn(chain.fwd(), &arguments).unwrap();
    forwarder.wait_for_line(TIMEOUT, |line| line.contains(r#""type":"interval""#)).unwrap();
    let change = |place: &str, rules: &[&str]| {
        fs::write(config.path(), socket.config_in(place, rules)).unwrap();
        socket.ctl(&["reload"])
    };
    send(&chain, 400, 0);
    wait_for(&socket, &["xdp_redirected", "xdp_dropped"], 400);
    assert_eq!(matched(&socket), ("kernel".into(), vec![100, 100, 200]));
    // New rules around unchanged ones.
    assert!(
        change("auto", &["drop sport 1026", "drop sport 1025", "accept sport 1024"])
            .status
            .success()
    );
    assert_eq!(matched(&socket), ("kernel".into(), vec![0, 100, 100, 200]));
    send(&chain, 400, 0);
    wait_for(&socket, &["xdp_redirected", "xdp_dropped"], 800);
    assert_eq!(matched(&socket), ("kernel".into(), vec![100, 200, 200, 300]));
    // User space runs rules that the XDP program does not support.
    assert!(change("auto", &["drop sport 1025", "accept sport 1024 limit 1Mpps"]).status.success());
    assert_eq!(matched(&socket), ("user".into(), vec![200, 0, 300]));
    send(&chain, 400, 0);
    wait_for(&socket, &["rx_packets"], 600);
    assert_eq!(matched(&socket), ("user".into(), vec![300, 100, 500]));
    // The filter then stays in user space: no filter has checked the packets queued for a worker.
    assert!(change("auto", &["drop sport 1025"]).status.success());
    assert_eq!(matched(&socket), ("user".into(), vec![300, 500]));
    let refused = change("kernel", &["drop sport 1025"]);
    assert!(stderr(&refused).contains("the `place` of a stage"), "{refused:?}");
    assert!(stderr(&refused).contains("restart to apply it"), "{refused:?}");
    forwarder.stop(TIMEOUT).unwrap();
}

#[test]
fn joint_change_of_kernel_filter_and_later_stage_is_rejected() {
    let (chain, socket) = (chain(Chain::builder()), Socket::new("together"));
    let two = |edge: &str, inner: &str| {
        let text = socket
            .config_in("kernel", &[edge])
            .replace(r#"stages = ["edge"]"#, r#"stages = ["edge", "inner"]"#);
        format!(
            "{text}\n[stage.inner]\nkind = \"filter\"\ndefault = \"accept\"\nrules = [{inner:?}]\n"
        )
    };
    let config = Config::new(&two("accept proto udp", "drop sport 1024"));
    let arguments = [XDPFWD, "--config", config.path(), "--json", "--interval", "0.05"];
    let mut forwarder = Forwarder::spawn(chain.fwd(), &arguments).unwrap();
    forwarder.wait_for_line(TIMEOUT, |line| line.contains(r#""type":"interval""#)).unwrap();
    let reload = |text: &str| {
        fs::write(config.path(), text).unwrap();
        socket.ctl(&["reload"])
    };
    let refused = reload(&two("drop sport 1024", "accept"));
    assert!(stderr(&refused).contains("change them in two reloads"), "{refused:?}");
    // Nothing has changed: 300 of 400 packets pass.
    send(&chain, 400, 0);
    wait_for(&socket, &["rx_packets"], 400);
    assert_eq!(socket.query("stats")["drops"]["policy"], 100);
    // In two reloads: first the later stage, then the filter in the kernel.
    for (edge, inner) in
        [("accept proto udp", "drop sport 1025"), ("drop sport 1024", "drop sport 1025")]
    {
        let done = reload(&two(edge, inner));
        assert!(done.status.success(), "{done:?}");
    }
    let filters = socket.query("rules")["filters"].clone();
    assert_eq!(filters[0]["rules"][0]["text"], "drop sport 1024", "{filters}");
    assert_eq!(filters[1]["rules"][0]["text"], "drop sport 1025", "{filters}");
    // A change of exception handling counts like a change of rules.
    let both = two("drop sport 1024", "drop sport 1025")
        .replace("kind = \"filter\"", "kind = \"filter\"\nnot_ip = \"drop\"");
    assert!(stderr(&reload(&both)).contains("change them in two reloads"));
    forwarder.stop(TIMEOUT).unwrap();
}

#[test]
fn reload_adds_and_removes_kernel_filter() {
    let (chain, socket) = (chain(Chain::builder()), Socket::new("comes"));
    let with = socket
        .config_in("kernel", &["drop sport 1024"])
        .replace("default = \"drop\"", "default = \"accept\"");
    let without = cross_connect(1, &format!("cores = [1]\ncontrol = {:?}", socket.path()));
    let config = Config::new(&without);
    let arguments = [XDPFWD, "--config", config.path(), "--json", "--interval", "0.05"];
    let mut forwarder = Forwarder::spawn(chain.fwd(), &arguments).unwrap();
    forwarder.wait_for_line(TIMEOUT, |line| line.contains(r#""type":"interval""#)).unwrap();
    for (text, dropped, received) in
        [(&without, 0, 400), (&with, 100, 700), (&without, 100, 1100), (&with, 200, 1400)]
    {
        fs::write(config.path(), text).unwrap();
        let reloaded = socket.ctl(&["reload"]);
        assert!(reloaded.status.success(), "{reloaded:?}");
        send(&chain, 400, 0);
        let stats = wait_for(&socket, &["xdp_redirected", "xdp_dropped"], dropped + received);
        assert_eq!(stats["ports"][0]["xdp_dropped"], dropped, "{stats}");
        wait_for(&socket, &["rx_packets"], received);
    }
    forwarder.stop(TIMEOUT).unwrap();
}
