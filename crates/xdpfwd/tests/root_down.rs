//! Tests interfaces that are down when xdpfwd starts, or go down while it runs. Needs root.

mod support;

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Config, Running, TIMEOUT, XDPFWD, build_lab, cross_connect};
use xdpfwd_lab::{Chain, Forwarder, Traffic};

fn set_link_state(lab: &Chain, interface: &str, state: &str) {
    let status =
        lab.fwd().command("ip").args(["link", "set", "dev", interface, state]).status().unwrap();
    assert!(status.success(), "cannot set {interface} {state}");
}

/// Starts xdpfwd without waiting for an interval report: while an interface is down, xdpfwd prints
/// none.
fn start(lab: &Chain, config: &Config, arguments: &[&str]) -> Forwarder {
    let arguments =
        [&[XDPFWD, "--config", config.path(), "--json", "--interval", "0.1"], arguments].concat();
    Forwarder::spawn(lab.fwd(), &arguments).unwrap()
}

fn wait_for_log(forwarder: &mut Forwarder, matches: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !forwarder.stderr().iter().any(|line| matches(line)) {
        forwarder.check_running().unwrap();
        assert!(Instant::now() < deadline, "no log line matches: {:?}", forwarder.stderr());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn start_waits_for_interface_to_come_up() {
    let lab = build_lab(Chain::builder());
    let config = Config::new(&cross_connect(1, ""));
    set_link_state(&lab, "fwd1", "down");
    let mut forwarder = start(&lab, &config, &[]);
    // xdpfwd logs at once which interface is down, and again after five seconds.
    wait_for_log(&mut forwarder, |line| {
        line.contains("waited_seconds=0") && line.contains("ip link set dev fwd1 up")
    });
    wait_for_log(&mut forwarder, |line| {
        line.contains("waited_seconds=5") && line.contains("interface=\"fwd1\"")
    });
    let stderr = forwarder.stderr();
    assert!(
        !stderr.iter().any(|line| line.contains("interface=\"fwd0\"")),
        "the log names fwd0, although it is up: {stderr:?}"
    );
    set_link_state(&lab, "fwd1", "up");
    forwarder.wait_for_line(TIMEOUT, |line| line.contains(r#""type":"interval""#)).unwrap();
    Traffic::new()
        .count(1000)
        .rate(10_000)
        .core(0)
        .start(lab.gen_(), "gen0")
        .unwrap()
        .finish(TIMEOUT)
        .unwrap();
    assert!(forwarder.stop(TIMEOUT).unwrap().status.success());
    let final_report = forwarder.last_line(|line| line.contains(r#""type":"final""#)).unwrap();
    let final_report: serde_json::Value = serde_json::from_str(&final_report).unwrap();
    assert_eq!(
        (&final_report["ports"][0]["rx_packets"], &final_report["ports"][1]["tx_packets"]),
        (&1000.into(), &1000.into())
    );
}

#[test]
fn xdpfwd_waiting_for_interface_ends_on_signal_or_duration() {
    let lab = build_lab(Chain::builder());
    let config = Config::new(&cross_connect(1, ""));
    set_link_state(&lab, "fwd0", "down");
    for (arguments, signal) in [
        (&[][..], Some(Signal::SIGINT)),
        (&[], Some(Signal::SIGTERM)),
        (&["--duration", "0.5"], None),
    ] {
        let mut forwarder = start(&lab, &config, arguments);
        if let Some(signal) = signal {
            wait_for_log(&mut forwarder, |line| line.contains("waiting until it is up"));
            kill(Pid::from_raw(forwarder.pid() as i32), signal).unwrap();
        }
        let deadline = Instant::now() + TIMEOUT;
        while forwarder.check_running().is_ok() {
            assert!(Instant::now() < deadline, "{arguments:?} {signal:?}: xdpfwd did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let final_report = forwarder.last_line(|_| true).unwrap();
        let final_report: serde_json::Value = serde_json::from_str(&final_report).unwrap();
        assert_eq!(
            (&final_report["type"], &final_report["ports"][0]["mode"]),
            (&"final".into(), &"none".into())
        );
        assert_eq!(
            (&final_report["ports"][0]["rx_packets"], &final_report["frames"]["total"]),
            (&0.into(), &0.into())
        );
        assert_eq!(
            forwarder.stop(TIMEOUT).unwrap().status.code(),
            Some(0),
            "{:?}",
            forwarder.stderr()
        );
    }
}

fn rename(lab: &Chain, interface: &str, name: &str) {
    let command = format!(
        "ip link set dev {interface} down && ip link set dev {interface} name {name} && \
         ip link set dev {name} up"
    );
    let status = lab.fwd().command("sh").args(["-c", &command]).status().unwrap();
    assert!(status.success(), "cannot rename {interface} to {name}");
}

#[test]
fn start_waits_for_missing_interface_to_appear() {
    let lab = build_lab(Chain::builder());
    let config = Config::new(&cross_connect(1, ""));
    rename(&lab, "fwd1", "absent");
    let mut forwarder = start(&lab, &config, &[]);
    wait_for_log(&mut forwarder, |line| {
        line.contains("the interface does not exist") && line.contains("interface=\"fwd1\"")
    });
    rename(&lab, "absent", "fwd1");
    forwarder.wait_for_line(TIMEOUT, |line| line.contains(r#""type":"interval""#)).unwrap();
    assert_eq!(forwarder.stop(TIMEOUT).unwrap().status.code(), Some(0));
}

#[test]
fn xdpfwd_waiting_for_missing_interface_ends_on_signal() {
    let lab = build_lab(Chain::builder());
    let config = Config::new(&cross_connect(1, "").replace("fwd1", "absent"));
    let mut forwarder = start(&lab, &config, &[]);
    wait_for_log(&mut forwarder, |line| line.contains("waiting until it appears"));
    kill(Pid::from_raw(forwarder.pid() as i32), Signal::SIGTERM).unwrap();
    let exit = forwarder.stop(TIMEOUT).unwrap();
    assert_eq!(exit.status.code(), Some(0), "{:?}", forwarder.stderr());
}

/// The checks of a missing interface run as soon as it exists.
#[test]
fn start_fails_if_missing_interface_appears_with_wrong_properties() {
    for (command, exit_code, text) in [
        ("ip tuntap add absent mode tun", 1, "carries no Ethernet frames"),
        (
            "ip link add absent type veth peer name other && ip link set other mtu 3000 && \
             ip link set absent mtu 3000 && ip link set absent up",
            2,
            "absent has MTU 3000",
        ),
    ] {
        let lab = build_lab(Chain::builder());
        let config = Config::new(&cross_connect(1, "").replace("fwd1", "absent"));
        let mut forwarder = start(&lab, &config, &[]);
        wait_for_log(&mut forwarder, |line| line.contains("waiting until it appears"));
        let status = lab.fwd().command("sh").args(["-c", command]).status().unwrap();
        assert!(status.success(), "{command}");
        let deadline = Instant::now() + TIMEOUT;
        while forwarder.check_running().is_ok() {
            assert!(Instant::now() < deadline, "{command}: xdpfwd did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let exit = forwarder.stop(TIMEOUT).unwrap();
        let stderr = forwarder.stderr();
        assert_eq!(exit.status.code(), Some(exit_code), "{stderr:?}");
        assert!(stderr.iter().any(|line| line.contains(text)), "{stderr:?}");
    }
}

/// Packets for an interface that is down wait in its TX ring.
#[test]
fn interface_down_and_up_loses_no_packet() {
    let lab = build_lab(Chain::builder());
    let running = Running::start(&lab, &cross_connect(1, ""));
    let send = || {
        let traffic = Traffic::new().count(500).rate(10_000).core(0);
        traffic.start(lab.gen_(), "gen0").unwrap().finish(TIMEOUT).unwrap();
    };
    send();
    set_link_state(&lab, "fwd1", "down");
    send();
    set_link_state(&lab, "fwd1", "up");
    send();
    let (exit, final_report) = running.stop();
    assert!(exit.status.success());
    final_report.assert_frames_and_packets_add_up();
    let (lan, wan) = (&final_report.json["ports"][0], &final_report.json["ports"][1]);
    assert_eq!(
        (&lan["rx_packets"], &wan["tx_packets"]),
        (&1500.into(), &1500.into()),
        "{}",
        final_report.json
    );
    assert_eq!(final_report.parsed.drops.values().sum::<u64>(), 0, "{}", final_report.json);
}

/// The state changes with the other end of the cable, too.
#[test]
fn report_names_the_link_state_of_each_port() {
    let lab = build_lab(Chain::builder());
    let running = Running::start(&lab, &cross_connect(1, ""));
    let link_of_wan = || {
        let is_report = |line: &str| line.contains(r#""type":"interval""#);
        let line = running.forwarder.last_line(is_report).unwrap_or_default();
        let report: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        assert_eq!(report["ports"][0]["link"], "up", "{report}");
        report["ports"][1]["link"].as_str().unwrap().to_owned()
    };
    assert_eq!(link_of_wan(), "up");
    for (state, is_up) in [("down", false), ("up", true)] {
        support::ip_batch(Some(lab.sink()), &format!("link set dev sink0 {state}"));
        support::until("the report has the new link state", || (link_of_wan() == "up") == is_up);
    }
    running.stop();
}
