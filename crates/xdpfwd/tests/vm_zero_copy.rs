//! Tests AF_XDP modes on the NICs of the test VM (`make vmtest`; crates/vm): v0 and v1 are
//! virtio-net, m0 and m1 virtio-net with two queues, and i0 and i1 igb. xdpfwd uses these
//! interfaces, the near ends of cables; the tests send and count packets at the far ends. If the
//! kernel's drivers lack zero-copy, xdpfwd must fall back to copy mode.

mod support;

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::cables::{Cables, PACKETS, best_mode, far_end, ip, kernel_has_zero_copy};
use support::{Config, FinalReport, Running, TIMEOUT, XDPFWD, until};
use xdpfwd_lab::Forwarder;
use xdpfwd_testkit::process::run;

#[track_caller]
fn assert_modes(report: &Value, mode: &str) {
    for port in report["ports"].as_array().unwrap() {
        assert_eq!(port["mode"], mode, "{report}");
    }
}

/// Checks that all packets of both sides passed. `arrived` is the result of [`Cables::exchange`].
#[track_caller]
fn assert_all_passed(cables: &Cables, final_report: &FinalReport, arrived: [u64; 2]) {
    final_report.assert_frames_and_packets_add_up();
    assert_eq!(final_report.parsed.drops.values().sum::<u64>(), 0, "{}", final_report.json);
    let seen = cables.seen();
    assert_eq!(arrived, [PACKETS, PACKETS], "{seen:?} {}", final_report.json);
    for (seen, interface) in seen.iter().zip(cables.near_ends) {
        assert!(seen.is_clean(), "{interface}: {seen:?}");
    }
    for port in &final_report.parsed.ports {
        assert_eq!((port.rx_packets, port.tx_packets), (PACKETS, PACKETS), "{}", final_report.json);
    }
}

/// Forwards packets, and checks the mode that xdpfwd and `ss` report.
fn assert_forwards_in_mode(
    pair: [&'static str; 2],
    queues: u16,
    engine: &str,
    mode: &str,
) -> FinalReport {
    let cables = Cables::new(pair);
    let running = cables.start(queues, engine);
    let sockets = cables.zero_copy_sockets();
    assert_eq!(sockets.len(), 2 * usize::from(queues), "{sockets:?}");
    for (socket, is_zero_copy) in &sockets {
        assert_eq!(*is_zero_copy, mode == "zero-copy", "{socket:?}: {sockets:?}");
    }
    // With several queues, each must receive packets. (Drivers count by queue only in native XDP;
    // for skb mode, the tests set `queues` to 1.)
    let packets_by_queue = || {
        if queues > 1 {
            pair.map(|interface| cables.packets_by_queue(interface, queues))
        } else {
            Default::default()
        }
    };
    let before = packets_by_queue();
    let arrived = cables.exchange(300); // packets of 300 bytes
    let after = packets_by_queue();
    let has_idle_queue =
        before.iter().flatten().zip(after.iter().flatten()).any(|(before, after)| after <= before);
    assert!(!has_idle_queue, "a queue received nothing: {before:?}, then {after:?}");
    let (exit, final_report) = running.stop();
    assert!(exit.status.success(), "{exit:?}");
    assert_modes(&final_report.json, mode);
    assert_all_passed(&cables, &final_report, arrived);
    println!(
        "case: {pair:?}, {queues} queue(s), {engine:?}: {mode}, ss agrees; {arrived:?} packets \
         arrived"
    );
    final_report
}

/// Two interfaces of virtio-net, two of igb, and one of each.
const PAIRS: [[&str; 2]; 3] = [["v0", "v1"], ["i0", "i1"], ["v0", "i1"]];

#[test]
fn auto_selects_best_mode_on_each_pair_of_drivers() {
    for pair in PAIRS {
        let final_report = assert_forwards_in_mode(pair, 1, "", best_mode());
        if kernel_has_zero_copy() {
            assert_eq!(final_report.json["fallback"], Value::Null);
        } else {
            assert_eq!(
                final_report.json["fallback"]["lacks"], "zero-copy",
                "{}",
                final_report.json
            );
            assert_eq!(
                final_report.json["fallback"]["interface"], pair[0],
                "{}",
                final_report.json
            );
        }
    }
}

#[test]
fn copy_and_skb_modes_are_used_as_configured() {
    for pair in PAIRS {
        assert_forwards_in_mode(pair, 1, r#"mode = "copy""#, "copy");
        assert_forwards_in_mode(pair, 1, r#"mode = "skb""#, "skb");
    }
}

#[test]
fn two_queues_on_one_umem_both_receive() {
    for pair in [["m0", "m1"], ["i0", "i1"], ["m0", "i1"]] {
        assert_forwards_in_mode(pair, 2, "", best_mode());
    }
}

/// The verifier must accept the programs of the exact mode, and the symbols of this kernel must have
/// the names by which the sampled mode tells the accounts apart.
#[test]
fn kernel_ledger_measures_in_both_modes() {
    for mode in ["sampled", "exact"] {
        let engine = format!("kernel_ledger = \"{mode}\"");
        let final_report = assert_forwards_in_mode(["v0", "i1"], 1, &engine, best_mode());
        let ledger = &final_report.json["kernel_ledger"];
        assert_eq!(ledger["unavailable"], Value::Null, "{ledger}");
        let cycles = |name: &str| {
            let accounts = ledger["accounts"].as_array().unwrap();
            let account = accounts.iter().find(|account| account["name"] == name).unwrap();
            account["cycles"].as_u64().unwrap()
        };
        // 241 samples per second need not meet both.
        assert!(cycles("user") + cycles("softirq") > 0, "{ledger}");
        assert!(mode == "sampled" || cycles("user") > 0 && cycles("softirq") > 0, "{ledger}");
        println!("case: {mode}: {}", ledger["accounts"]);
    }
}

/// Adds a filter with one rule, which runs in the XDP program.
fn with_kernel_filter(config: &str, rule: &str) -> String {
    let config = config.replace("to = \"wan\"", "to = \"wan\"\nstages = [\"fw\"]");
    format!(
        "{config}\n[stage.fw]\nkind = \"filter\"\nplace = \"kernel\"\ndefault = \"drop\"\n\
         rules = [{rule:?}]\n"
    )
}

/// The verifier checks the code for `keep` in the XDP program only if the port has `keep` rules.
#[test]
fn programs_with_keep_rules_pass_the_verifier() {
    let cables = Cables::new(["v0", "v1"]);
    let keep = r#"keep = ["arp", "nd", "icmp", "lldp", "stp", "tcp/22", "udp/53", "vlan/7"]"#;
    let without_filter =
        cables.config(1, "").replace("name = \"lan\"", &format!("name = \"lan\"\n{keep}"));
    for text in [with_kernel_filter(&without_filter, "drop proto udp"), without_filter] {
        let config = Config::new(&text);
        let arguments = ["--config", config.path(), "--duration", "0.2"];
        let output = cables.forwarder.command(XDPFWD).args(arguments).output().unwrap();
        assert!(output.status.success(), "{text}\n{output:?}");
    }
}

/// virtio-net and igb call the XDP program in code of their own, which tests on veth do not cover.
/// A reload replaces the XDP program while the sockets stay bound.
#[test]
fn kernel_filter_drops_and_is_replaced_on_reload() {
    for pair in PAIRS {
        let cables = Cables::new(pair);
        cables.set_queues(1);
        let config_with_rule = |rule: &str| with_kernel_filter(&cables.config(1, ""), rule);
        let config = Config::new(&config_with_rule("drop proto udp"));
        let arguments = [XDPFWD, "--config", config.path(), "--json", "--interval", "0.05"];
        let mut forwarder = Forwarder::spawn(&cables.forwarder, &arguments).unwrap();
        forwarder.wait_for_line(TIMEOUT, |line| line.contains(r#""type":"interval""#)).unwrap();
        cables.wait_for_carriers();
        // The filter drops the packets that side 0 sends.
        let arrived = cables.exchange_expecting([false, true], 300);
        assert_eq!(arrived, [0, PACKETS], "{pair:?}");
        let unused = Config::new(""); // `config` is the file that xdpfwd reads
        let running = Running::from_forwarder(forwarder, unused);
        std::fs::write(config.path(), config_with_rule("accept proto udp")).unwrap();
        running.signal(Signal::SIGHUP);
        until("xdpfwd has reloaded", || {
            running.forwarder.stderr().iter().any(|line| line.contains("reloaded"))
        });
        cables.wait_for_carriers();
        let arrived = cables.exchange(300);
        assert_eq!(arrived, [PACKETS, PACKETS], "{pair:?}: {:#?}", running.forwarder.stderr());
        let (exit, final_report) = running.stop();
        assert!(exit.status.success(), "{exit:?}");
        final_report.assert_frames_and_packets_add_up();
        assert_modes(&final_report.json, best_mode());
        let lan = &final_report.json["ports"][0];
        assert_eq!(
            (&lan["xdp_dropped"], &lan["rx_packets"]),
            (&PACKETS.into(), &PACKETS.into()),
            "{lan}"
        );
        println!(
            "case: {pair:?}: {}: the program dropped packets, and accepted them after the reload",
            best_mode()
        );
    }
}

/// Checks that packets of each side arrive at the other side.
fn assert_forwards(cables: &Cables) {
    for side in [0, 1] {
        // `side` sends, and the sink of the other side counts.
        let before = cables.sinks[1 - side].seen().unwrap().arrived.packets;
        // A link that has just come up may lose packets.
        until(&format!("packets from {} arrive", far_end(cables.near_ends[side])), || {
            cables.send(side, 60, Some(100)).finish(); // 100 packets of 60 bytes
            thread::sleep(Duration::from_millis(200));
            cables.sinks[1 - side].seen().unwrap().arrived.packets > before
        });
    }
}

#[test]
fn restart_after_sigkill_binds_and_forwards() {
    for pair in PAIRS {
        let cables = Cables::new(pair);
        for _ in 0..3 {
            let mut running = cables.start(1, "");
            assert_forwards(&cables);
            running.signal(Signal::SIGKILL);
            running.wait();
        }
        let running = cables.start(1, "");
        assert_forwards(&cables);
        let (exit, final_report) = running.stop();
        assert!(exit.status.success(), "{exit:?}");
        assert_modes(&final_report.json, best_mode());
        final_report.assert_frames_and_packets_add_up();
        println!(
            "case: {pair:?}, killed three times in mode {}: the fourth run forwards",
            best_mode()
        );
    }
}

#[test]
fn link_down_and_up_forwards_again_and_leaks_no_frame() {
    for pair in PAIRS {
        let cables = Cables::new(pair);
        let running = cables.start(1, "");
        assert_forwards(&cables);
        let sender = cables.send(0, 60, None);
        for interface in pair {
            for state in ["down", "up"] {
                ip(&["-n", cables.forwarder.name(), "link", "set", interface, state]);
                thread::sleep(Duration::from_millis(300));
            }
            cables.wait_for_carriers();
        }
        sender.stop();
        assert_forwards(&cables);
        let (exit, final_report) = running.stop();
        assert!(exit.status.success(), "{exit:?}");
        assert_modes(&final_report.json, best_mode());
        let frames = &final_report.json["frames"];
        assert_eq!(frames["leaked"], 0, "{frames}");
        println!(
            "case: {pair:?}, both links down and up under load in mode {}: forwards, {frames}",
            best_mode()
        );
    }
}

/// Takes an interface's device from its driver, and gives it back: the interface disappears, and a
/// new one appears in the initial namespace. Moves that one to the forwarder's namespace.
fn bind_driver_again(cables: &Cables, interface: &str, queues: u16) {
    let forwarder = &cables.forwarder;
    let follow =
        |link: &str| run(forwarder.command("readlink").args(["-f", link])).trim().to_owned();
    let device = follow(&format!("/sys/class/net/{interface}/device"));
    let driver = follow(&format!("{device}/driver"));
    let name = device.rsplit('/').next().unwrap();
    std::fs::write(format!("{driver}/unbind"), name).unwrap();
    thread::sleep(Duration::from_millis(500));
    std::fs::write(format!("{driver}/bind"), name).unwrap();
    let mut new_name = None;
    until(&format!("{device} has an interface again"), || {
        let mut names = std::fs::read_dir(format!("{device}/net")).into_iter().flatten().flatten();
        new_name = names.next().map(|entry| entry.file_name().into_string().unwrap());
        new_name.is_some()
    });
    ip(&["link", "set", &new_name.unwrap(), "netns", forwarder.name(), "name", interface]);
    set_queues(cables, interface, queues);
    ip(&["-n", forwarder.name(), "link", "set", interface, "up"]);
}

/// Sets the number of an interface's queues. The start value differs between drivers.
fn set_queues(cables: &Cables, interface: &str, queues: u16) {
    // ethtool fails if the number is already set.
    let mut command = cables.forwarder.command("ethtool");
    let _ = command.args(["-L", interface, "combined", &queues.to_string()]).output();
}

/// The first queue can be bound, and the second one cannot: each attempt must give its frames back.
#[test]
fn attempts_with_too_few_queues_do_not_drain_the_pool() {
    let cables = Cables::new(["m0", "m1"]);
    let running = cables.start(2, "");
    let last_report = || {
        let line = running.forwarder.last_line(|line| line.contains(r#""type":"interval""#));
        serde_json::from_str::<Value>(&line.unwrap()).unwrap()
    };
    bind_driver_again(&cables, "m1", 1);
    until("m1 lacks queue 1", || {
        let reason = last_report()["ports"][1]["down_reason"].to_string();
        reason.contains("queue 1")
    });
    // Several attempts, each after a change of the interface.
    for _ in 0..8 {
        for state in ["down", "up"] {
            ip(&["-n", cables.forwarder.name(), "link", "set", "m1", state]);
        }
        thread::sleep(Duration::from_millis(500));
    }
    let frames = last_report()["frames"].clone();
    let count = |key: &str| frames[key].as_u64().unwrap();
    // At most the frames of one attempt: a fill ring has an eighth of all.
    assert!(count("quarantined") <= count("total") / 8, "{frames}");
    assert!(count("pool") >= count("total") / 2, "{frames}");
    ip(&["-n", cables.forwarder.name(), "link", "set", "m1", "down"]);
    set_queues(&cables, "m1", 2);
    ip(&["-n", cables.forwarder.name(), "link", "set", "m1", "up"]);
    cables.wait_for_carriers();
    assert_forwards(&cables);
    thread::sleep(Duration::from_millis(1500));
    let (exit, final_report) = running.stop();
    assert!(exit.status.success(), "{exit:?}");
    assert_modes(&final_report.json, best_mode());
    let frames = &final_report.json["frames"];
    assert_eq!((&frames["leaked"], &frames["quarantined"]), (&0.into(), &0.into()), "{frames}");
}

#[test]
fn port_is_opened_again_after_its_driver_was_unbound_under_load() {
    for (pair, mode) in [
        (["v0", "v1"], best_mode()),
        (["i0", "i1"], best_mode()),
        // In copy mode, virtio-net refers to the frames of packets that it sends.
        (["v0", "v1"], "copy"),
    ] {
        let cables = Cables::new(pair);
        let running = cables.start(1, &format!("mode = \"{mode}\""));
        assert_forwards(&cables);
        let sender = cables.send(0, 60, None);
        for _ in 0..2 {
            bind_driver_again(&cables, pair[1], 1);
            cables.wait_for_carriers();
            assert_forwards(&cables);
        }
        sender.stop();
        // Frames return at most a second after the kernel has released them.
        thread::sleep(Duration::from_millis(1500));
        let stderr = running.forwarder.stderr().join("\n");
        let (exit, final_report) = running.stop();
        assert!(exit.status.success(), "{exit:?}");
        assert_modes(&final_report.json, mode);
        let (frames, port) = (&final_report.json["frames"], &final_report.json["ports"][1]);
        assert_eq!((&frames["leaked"], &frames["quarantined"]), (&0.into(), &0.into()), "{frames}");
        assert_eq!((&port["state"], &port["losses"]), (&"up".into(), &2.into()), "{stderr}");
        println!(
            "case: {pair:?}, driver of {} unbound and bound twice in mode {mode}: down for {} s, \
             {frames}",
            pair[1], port["down_seconds"]
        );
    }
}

#[test]
fn twenty_restarts_under_load_leak_no_frame() {
    for pair in [["v0", "v1"], ["i0", "i1"]] {
        let cables = Cables::new(pair);
        cables.set_queues(1);
        let senders = [0, 1].map(|side| cables.send(side, 60, None));
        let mut received = 0;
        for _ in 0..20 {
            // `Cables::start` would wait for the carrier, for which igb needs seconds.
            let running =
                Running::try_start_in(&[XDPFWD], &cables.forwarder, &cables.config(1, ""));
            let running = running.unwrap_or_else(|error| panic!("{error}"));
            let (exit, final_report) = running.stop();
            assert!(exit.status.success(), "{exit:?}");
            assert_modes(&final_report.json, best_mode());
            assert_eq!(final_report.json["frames"]["leaked"], 0, "{}", final_report.json);
            received += final_report.parsed.received();
        }
        for sender in senders {
            sender.stop();
        }
        cables.wait_for_carriers();
        let running = cables.start(1, "");
        assert_forwards(&cables);
        let (_, final_report) = running.stop();
        final_report.assert_frames_and_packets_add_up();
        println!(
            "case: {pair:?}, 20 restarts under load in mode {}: {received} packets received",
            best_mode()
        );
    }
}

/// p0 is virtio-net with QEMU's defaults: without the option `iommu_platform`, its driver does not
/// map memory for DMA, which zero-copy needs.
#[test]
fn port_without_zero_copy_limits_all_ports_and_is_reported() {
    let final_report = assert_forwards_in_mode(["v0", "p0"], 1, "", "copy");
    let fallback = &final_report.json["fallback"];
    assert_eq!(fallback["lacks"], "zero-copy", "{}", final_report.json);
    // If all drivers lack zero-copy, xdpfwd names the first port.
    let limiting_port = if kernel_has_zero_copy() { "p0" } else { "v0" };
    assert_eq!(fallback["interface"], limiting_port, "{}", final_report.json);
    println!("case: p0 without DMA: {fallback}");
    let cables = Cables::new(["v0", "p0"]);
    let config = Config::new(&cables.config(1, ""));
    let arguments = ["--config", config.path(), "--duration", "0.2"];
    let output = cables.forwarder.command(XDPFWD).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let stderr = support::stderr(&output);
    // `mtu`, `virtio` and `xdp-features` are names of doctor's checks.
    let reason = fallback["reason"].as_str().unwrap();
    for text in [
        "mode=\"copy\"".to_owned(),
        format!("copy: {limiting_port} has no zero-copy ({reason}), which limits all ports"),
        format!("`xdpfwd doctor {limiting_port}` shows its mtu, virtio and xdp-features"),
    ] {
        assert!(stderr.contains(&text), "{text:?} is not in:\n{stderr}");
    }
    let summary = String::from_utf8(output.stdout).unwrap();
    assert!(summary.contains(limiting_port) && summary.contains("no zero-copy"), "{summary}");
    println!("case: p0 without DMA: log and report:\n{stderr}\n{summary}");
}

#[test]
fn unavailable_zero_copy_is_rejected_with_reason() {
    let cables = Cables::new(["v0", "p0"]);
    let config = Config::new(&cables.config(1, r#"mode = "zero-copy""#));
    let output =
        cables.forwarder.command(XDPFWD).args(["--config", config.path()]).output().unwrap();
    let stderr = support::stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let limiting_port = if kernel_has_zero_copy() { "p0" } else { "v0" };
    assert!(
        stderr.contains(&format!("cannot bind {limiting_port} queue 0 in zero-copy mode")),
        "{stderr}"
    );
    assert!(stderr.contains(r#"set mode = "auto" or "copy""#), "{stderr}");
    println!("case: zero-copy required of {limiting_port}: {}", stderr.trim());
}
