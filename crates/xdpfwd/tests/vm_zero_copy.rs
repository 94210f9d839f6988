//! Tests AF_XDP modes on drivers with zero-copy, in the test VM (`make vmtest`; crates/vm):
//! selected and reported mode, traffic, and fallback reasons. On a kernel without zero-copy
//! drivers, tests that xdpfwd falls back and reports it.

mod support;

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::cables::{Cables, PACKETS, best_mode, ip, kernel_has_zero_copy};
use support::{Config, Final, Running, TIMEOUT, XDPFWD, until};
use xdpfwd_lab::Forwarder;

#[track_caller]
fn assert_modes(json: &Value, mode: &str) {
    for port in json["ports"].as_array().unwrap() {
        assert_eq!(port["mode"], mode, "{json}");
    }
}

/// Checks that all packets of an exchange passed and were counted.
#[track_caller]
fn assert_all_passed(cables: &Cables, last: &Final, arrived: [u64; 2]) {
    last.assert_conserved();
    assert_eq!(last.report.drops.values().sum::<u64>(), 0, "{}", last.json);
    assert_eq!(arrived, [PACKETS, PACKETS], "{}", last.json);
    for (seen, near) in cables.seen().iter().zip(cables.near) {
        assert!(seen.is_clean(), "{near}: {seen:?}");
    }
    for port in &last.report.ports {
        assert_eq!((port.rx_packets, port.tx_packets), (PACKETS, PACKETS), "{}", last.json);
    }
}

/// Forwards traffic both ways, and checks the mode that xdpfwd and `ss` report.
fn assert_forwards_in_mode(
    near: [&'static str; 2],
    queues: u16,
    engine: &str,
    mode: &str,
) -> Final {
    let cables = Cables::new(near);
    let running = cables.start(queues, engine);
    let sockets = cables.zero_copy_sockets();
    assert_eq!(sockets.len(), 2 * usize::from(queues), "{sockets:?}");
    for (socket, zero_copy) in &sockets {
        assert_eq!(*zero_copy, mode == "zero-copy", "{socket:?}: {sockets:?}");
    }
    // Each of several queues must receive packets. (Drivers count only packets of native XDP.)
    let by_queue = || {
        if queues > 1 {
            near.map(|near| cables.packets_by_queue(near, queues))
        } else {
            Default::default()
        }
    };
    let before = by_queue();
    let arrived = cables.exchange(300);
    let after = by_queue();
    let idle =
        before.iter().flatten().zip(after.iter().flatten()).any(|(before, after)| after <= before);
    assert!(!idle, "a queue received nothing: {before:?}, then {after:?}");
    let (ended, last) = running.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_modes(&last.json, mode);
    assert_all_passed(&cables, &last, arrived);
    println!(
        "case: {near:?}, {queues} queue(s), {engine:?}: {mode}, ss agrees; {arrived:?} packets \
         arrived"
    );
    last
}

const PAIRS: [[&str; 2]; 3] = [["v0", "v1"], ["i0", "i1"], ["v0", "i1"]];

#[test]
fn auto_selects_best_mode_on_each_pair_of_drivers() {
    for near in PAIRS {
        let last = assert_forwards_in_mode(near, 1, "", best_mode());
        if kernel_has_zero_copy() {
            assert_eq!(last.json["fallback"], Value::Null);
        } else {
            assert_eq!(last.json["fallback"]["lacks"], "zero-copy", "{}", last.json);
            assert_eq!(last.json["fallback"]["interface"], near[0], "{}", last.json);
        }
    }
}

#[test]
fn copy_and_skb_modes_are_used_as_configured() {
    for near in PAIRS {
        assert_forwards_in_mode(near, 1, r#"mode = "copy""#, "copy");
        assert_forwards_in_mode(near, 1, r#"mode = "skb""#, "skb");
    }
}

#[test]
fn two_queues_share_the_umem() {
    for near in [["m0", "m1"], ["i0", "i1"], ["m0", "i1"]] {
        assert_forwards_in_mode(near, 2, "", best_mode());
    }
}

/// Adds a filter in the XDP program, with one rule, to a configuration.
fn with_filter(config: &str, rule: &str) -> String {
    let config = config.replace("to = \"wan\"", "to = \"wan\"\nstages = [\"fw\"]");
    format!(
        "{config}\n[stage.fw]\nkind = \"filter\"\nplace = \"kernel\"\ndefault = \"drop\"\n\
         rules = [{rule:?}]\n"
    )
}

/// The code for `keep` is verified only for ports that have rules.
#[test]
fn programs_with_keep_rules_pass_the_verifier() {
    let cables = Cables::new(["v0", "v1"]);
    let keep = r#"keep = ["arp", "nd", "icmp", "lldp", "stp", "tcp/22", "udp/53", "vlan/7"]"#;
    let plain = cables.config(1, "").replace("name = \"lan\"", &format!("name = \"lan\"\n{keep}"));
    for text in [with_filter(&plain, "drop proto udp"), plain] {
        let config = Config::new(&text);
        let arguments = ["--config", config.path(), "--duration", "0.2"];
        let output = cables.forwarder.command(XDPFWD).args(arguments).output().unwrap();
        assert!(output.status.success(), "{text}\n{output:?}");
    }
}

/// A filter in the XDP program, on drivers whose receive path differs from that of veth. A reload
/// replaces the program while the sockets stay bound.
#[test]
fn kernel_filter_drops_and_is_replaced_on_reload() {
    for near in PAIRS {
        let cables = Cables::new(near);
        cables.set_queues(1);
        let text = |rule: &str| with_filter(&cables.config(1, ""), rule);
        let config = Config::new(&text("drop proto udp"));
        let arguments = [XDPFWD, "--config", config.path(), "--json", "--interval", "0.05"];
        let mut forwarder = Forwarder::spawn(&cables.forwarder, &arguments).unwrap();
        forwarder.wait_for_line(TIMEOUT, |line| line.contains(r#""type":"interval""#)).unwrap();
        cables.wait_for_carriers();
        let arrived = cables.exchange_by([false, true], 300);
        assert_eq!(arrived, [0, PACKETS], "{near:?}");
        let running = Running::of(forwarder, Config::new(""));
        std::fs::write(config.path(), text("accept proto udp")).unwrap();
        running.signal(Signal::SIGHUP);
        until("xdpfwd has reloaded", || {
            running.forwarder.stderr().iter().any(|line| line.contains("reloaded"))
        });
        cables.wait_for_carriers();
        let arrived = cables.exchange(300);
        assert_eq!(arrived, [PACKETS, PACKETS], "{near:?}: {:#?}", running.forwarder.stderr());
        let (ended, last) = running.stop();
        assert!(ended.status.success(), "{ended:?}");
        last.assert_conserved();
        assert_modes(&last.json, best_mode());
        let lan = &last.json["ports"][0];
        assert_eq!(
            (&lan["xdp_dropped"], &lan["rx_packets"]),
            (&PACKETS.into(), &PACKETS.into()),
            "{lan}"
        );
        println!(
            "case: {near:?}: {}, dropped in the kernel, then accepted by the next program",
            best_mode()
        );
    }
}

/// Checks that packets arrive in both directions.
fn assert_forwards(cables: &Cables) {
    for side in [0, 1] {
        let before = cables.sinks[1 - side].seen().unwrap().arrived.packets;
        // A link that has just come up may lose the first packets.
        until(&format!("packets from {} arrive", cables.near[side]), || {
            cables.send(side, 60, Some(100)).finish();
            thread::sleep(Duration::from_millis(200));
            cables.sinks[1 - side].seen().unwrap().arrived.packets > before
        });
    }
}

#[test]
fn restart_after_sigkill_binds_and_forwards() {
    for near in PAIRS {
        let cables = Cables::new(near);
        for _ in 0..3 {
            let mut running = cables.start(1, "");
            assert_forwards(&cables);
            running.signal(Signal::SIGKILL);
            running.wait();
        }
        let running = cables.start(1, "");
        assert_forwards(&cables);
        let (ended, last) = running.stop();
        assert!(ended.status.success(), "{ended:?}");
        assert_modes(&last.json, best_mode());
        last.assert_conserved();
        println!("case: {near:?}, killed three times under {}: the fourth forwards", best_mode());
    }
}

#[test]
fn link_down_and_up_forwards_again_and_leaks_no_frame() {
    for near in PAIRS {
        let cables = Cables::new(near);
        let running = cables.start(1, "");
        assert_forwards(&cables);
        let sender = cables.send(0, 60, None);
        for end in near {
            for state in ["down", "up"] {
                ip(&["-n", cables.forwarder.name(), "link", "set", end, state]);
                thread::sleep(Duration::from_millis(300));
            }
            cables.wait_for_carriers();
        }
        sender.stop();
        assert_forwards(&cables);
        let (ended, last) = running.stop();
        assert!(ended.status.success(), "{ended:?}");
        assert_modes(&last.json, best_mode());
        let frames = &last.json["frames"];
        assert_eq!(frames["leaked"], 0, "{frames}");
        println!(
            "case: {near:?}, both links down and up under load in {}: forwards, {frames}",
            best_mode()
        );
    }
}

#[test]
fn twenty_restarts_under_load_leak_no_frame() {
    for near in [["v0", "v1"], ["i0", "i1"]] {
        let cables = Cables::new(near);
        cables.set_queues(1);
        let senders = [0, 1].map(|side| cables.send(side, 60, None));
        let mut received = 0;
        for _ in 0..20 {
            // Not `start`, which waits for the carrier: igb takes seconds for that.
            let running =
                Running::try_start_in(&[XDPFWD], &cables.forwarder, &cables.config(1, ""));
            let running = running.unwrap_or_else(|error| panic!("{error}"));
            let (ended, last) = running.stop();
            assert!(ended.status.success(), "{ended:?}");
            assert_modes(&last.json, best_mode());
            assert_eq!(last.json["frames"]["leaked"], 0, "{}", last.json);
            received += last.report.received();
        }
        for sender in senders {
            sender.stop();
        }
        cables.wait_for_carriers();
        let running = cables.start(1, "");
        assert_forwards(&cables);
        let (_, last) = running.stop();
        last.assert_conserved();
        println!(
            "case: {near:?}, 20 restarts under load in {}: {received} packets received",
            best_mode()
        );
    }
}

/// p0 is virtio-net with QEMU's defaults: no DMA device, so no zero-copy on any kernel.
#[test]
fn port_without_zero_copy_is_named_and_limits_all_ports() {
    let last = assert_forwards_in_mode(["v0", "p0"], 1, "", "copy");
    let fallback = &last.json["fallback"];
    assert_eq!(fallback["lacks"], "zero-copy", "{}", last.json);
    // Without zero-copy in the kernel, the first port is named.
    let named = if kernel_has_zero_copy() { "p0" } else { "v0" };
    assert_eq!(fallback["interface"], named, "{}", last.json);
    println!("case: p0 without a DMA device: {fallback}");
    // The start prints the same text as `doctor`.
    let cables = Cables::new(["v0", "p0"]);
    let config = support::Config::new(&cables.config(1, ""));
    let arguments = ["--config", config.path(), "--duration", "0.2"];
    let output = cables.forwarder.command(XDPFWD).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let stderr = support::stderr(&output);
    let reason = fallback["reason"].as_str().unwrap();
    for text in [
        "mode=\"copy\"".to_owned(),
        format!("copy: it has no zero-copy ({reason}), which limits all ports"),
        format!("`xdpfwd doctor {named}` shows its mtu, virtio and xdp-features"),
    ] {
        assert!(stderr.contains(&text), "{text:?} is not in:\n{stderr}");
    }
    let summary = String::from_utf8(output.stdout).unwrap();
    assert!(summary.contains(named) && summary.contains("no zero-copy"), "{summary}");
    println!("case: p0 without a DMA device: log and report:\n{stderr}\n{summary}");
}

#[test]
fn unavailable_zero_copy_is_rejected_with_reason() {
    let cables = Cables::new(["v0", "p0"]);
    let config = support::Config::new(&cables.config(1, r#"mode = "zero-copy""#));
    let output =
        cables.forwarder.command(XDPFWD).args(["--config", config.path()]).output().unwrap();
    let stderr = support::stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let named = if kernel_has_zero_copy() { "p0" } else { "v0" };
    assert!(stderr.contains(&format!("cannot bind {named} queue 0 in zero-copy mode")), "{stderr}");
    assert!(stderr.contains(r#"set mode = "auto" or "copy""#), "{stderr}");
    println!("case: zero-copy required of {named}: {}", stderr.trim());
}
