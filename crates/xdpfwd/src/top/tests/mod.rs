//! Tests of the figures and of the screen, with recorded reports and without a terminal.

mod figures;
mod screens;

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use serde_json::{Value, json};

use super::model::Model;
use super::screen::{Connection, Screen, View};
use super::snapshot::Snapshot;
use super::theme::Theme;
use crate::ctl;

/// Returns the report after `seconds` of constant traffic from lan to wan: 1.07 Mpps of 60 bytes.
fn report(seconds: f64) -> Value {
    let count = |per_second: f64| (per_second * seconds).round() as u64;
    let packets = count(1_070_000.0);
    let task = |name: &str, calls: u64, per_packet: f64| {
        json!({
            "name": name, "calls": calls, "packets": packets, "bytes": 0,
            "cycles": (packets as f64 * per_packet) as u64, "cycles_per_packet": per_packet,
            "packets_per_call": 64.0,
        })
    };
    let port = |name: &str, interface: &str, received: u64, sent: u64| {
        json!({
            "name": name, "interface": interface, "io": "libc", "queues": 1, "mode": "copy",
            "link": "up", "rx_packets": received, "rx_bytes": 60 * received, "tx_packets": sent,
            "tx_bytes": 60 * sent, "xdp_redirected": received, "xdp_passed": 0,
            "xdp_kept": count(2.0), "xdp_dropped": 0, "xdp_drops": { "policy": 0 },
            "kernel": { "rx_ring_full": 0, "fill_ring_empty": 0, "rx_dropped": 0, "rx_invalid": 0,
                "tx_invalid": 0, "tx_ring_empty": 5 },
        })
    };
    let stage = |name: &str, per_packet: f64| {
        json!({
            "path": "lan->wan", "name": name, "place": "user", "calls": packets / 64,
            "packets": packets, "drops": 0, "cycles": (packets as f64 * per_packet) as u64,
            "cycles_per_packet": per_packet, "packets_per_call": 64.0,
        })
    };
    json!({
        "schema": 1, "type": "interval", "program": "xdpfwd", "version": "0.1.0",
        "elapsed_seconds": seconds, "workers": 1,
        "ports": [port("lan", "fwd0", packets, 0), port("wan", "fwd1", 0, packets)],
        "drops": { "policy": 0, "egress_full": 0, "malformed": 0 },
        "stages": [stage("edge", 80.5), stage("swap", 9.8)],
        "ledger": {
            "on": true, "cycles_per_second": 2.6e9, "stamp_cycles": 24,
            "busy_cycles": count(2.5e9), "idle_cycles": count(0.1e9),
            "tasks": [
                task("receive", packets / 64, 60.0), task("parse", packets / 64, 12.0),
                task("scatter", packets / 64, 8.0), task("transmit", packets / 64, 30.0),
                task("wake", packets / 64, 2131.0), task("reclaim", packets / 64, 5.0),
                task("look", 0, 2.0), task("control", 0, 1.0), task("poll", 0, 90.0),
                task("wait", 0, 0.0), task("stages", 0, 90.3), task("stamps", 0, 2.3),
            ],
            "workers": [{ "worker": 0, "wall_cycles": count(2.6e9),
                "busy_cycles": count(2.5e9), "idle_cycles": count(0.1e9) }],
        },
        "frames": { "total": 16384, "pool": 8000, "fill": 8128, "rx": 64, "in_flight": 64,
            "tx": 100, "completion": 28, "leaked": 0 },
        "kernel": { "syscalls": count(16_700.0), "waits": 0, "tx_retries": 0, "tx_dropped": 0,
            "tx_copied": 0, "invalid_descriptors": 0 },
        "fallback": null, "failure": null, "faults": [],
        "kernel_ledger": { "mode": "off", "unavailable": null, "seconds": 0.0, "sampling": null,
            "tracing": null, "accounts": [], "groups": [], "cores": [], "workers": [],
            "syscalls_per_packet": 0.0, "xdp_programs": [], "xdp_unavailable": null },
    })
}

/// The kernel's share after `seconds`: 241 samples per second.
fn kernel_ledger(seconds: f64) -> Value {
    let accounts = [
        ("user", 12.0),
        ("system_call", 150.0),
        ("softirq", 20.0),
        ("far_end", 40.0),
        ("idle", 15.0),
        ("other", 4.0),
    ];
    let groups = [
        ("system_call", "af_xdp_transmit", 60.0),
        ("system_call", "socket_buffers", 70.0),
        ("system_call", "copy", 20.0),
        ("system_call", "scheduler", 0.0),
        ("softirq", "af_xdp_receive", 20.0),
        ("far_end", "network_stack", 40.0),
    ];
    let account = |name: &str, samples: f64| {
        let cycles = samples * seconds * 2.6e9 / 241.0;
        json!({
            "name": name, "samples": (samples * seconds) as u64, "cycles": cycles as u64,
            "cycles_per_packet": 0.0, "share_percent": 0.0,
        })
    };
    let group = |(account_name, name, samples): &(&str, &str, f64)| {
        let mut group = account(name, *samples);
        group["account"] = json!(account_name);
        group
    };
    let accounts = accounts.map(|(name, samples)| account(name, samples));
    json!({
        "mode": "sampled", "unavailable": null, "seconds": seconds,
        "sampling": { "frequency_hz": 241, "samples": (241.0 * seconds) as u64, "lost": 0,
            "sample_nanoseconds": 2100, "cost_percent": 0.05 },
        "tracing": null, "accounts": accounts, "groups": groups.iter().map(group).collect::<Value>(),
        "cores": [{ "core": 1, "workers": [0], "accounts": accounts }],
        "workers": [{ "worker": 0, "voluntary_switches": (3.0 * seconds) as u64,
            "involuntary_switches": (40.0 * seconds) as u64,
            "voluntary_switches_per_packet": 0.0, "involuntary_switches_per_packet": 0.0 }],
        "syscalls_per_packet": 0.0156,
        "xdp_programs": [{ "port": "lan", "interface": "fwd0", "runs": (16e6 * seconds) as u64,
            "nanoseconds": (320e6 * seconds) as u64, "cycles_per_run": 52.0 }],
        "xdp_unavailable": null,
    })
}

fn parse(report: Value) -> Snapshot {
    Snapshot::parse(ctl::escape::value(report)).unwrap()
}

/// Returns the figures after 1, 2, … and `seconds` seconds. `edit` changes each report.
fn model_after(seconds: u32, edit: impl Fn(&mut Value, f64)) -> Model {
    let at = |second: u32| {
        let second = f64::from(second);
        let mut report = report(second);
        edit(&mut report, second);
        parse(report)
    };
    let mut model = Model::new(at(1));
    for second in 2..=seconds {
        model.add(at(second), true);
    }
    model
}

fn unchanged(_: &mut Value, _: f64) {}

/// Adds everything that can be wrong at once, and the kernel's share.
fn trouble(report: &mut Value, seconds: f64) {
    let count = |per_second: f64| (per_second * seconds) as u64;
    report["ports"][0]["kernel"]["rx_ring_full"] = json!(count(15_479_064.0));
    report["ports"][1]["link"] = json!("lowerlayerdown");
    report["ports"][0]["xdp_drops"]["policy"] = json!(count(300.0));
    report["drops"]["policy"] = json!(count(120.0));
    report["drops"]["malformed"] = json!(count(3.0));
    // Lost once, 5 seconds after the start.
    report["drops"]["egress_full"] = json!(if seconds < 5.0 { 0 } else { 4711 });
    report["frames"]["leaked"] = json!(3);
    report["faults"] =
        json!(["encrypt: the state file cannot be written: No space left on device"]);
    report["fallback"] = json!({ "port": "lan", "interface": "fwd0", "lacks": "zero-copy",
        "reason": "Operation not supported (os error 95)" });
    report["kernel_ledger"] = kernel_ledger(seconds);
}

/// Adds more ports and stages than fit, with long and hostile names.
fn crowd(report: &mut Value, _: f64) {
    let hostile = ["\u{1b}[2J\u{202e}evil", "漢字漢字漢字漢字漢字", "a\u{300}\u{301}\u{302}", "\n"];
    let name = |kind: &str, index: usize| match hostile.get(index) {
        Some(name) => (*name).to_owned(),
        None => format!("{kind}-{index}-with-a-name-that-is-far-too-long"),
    };
    for (list, kind, count) in [("ports", "port", 20), ("stages", "stage", 40)] {
        let template = report[list][0].clone();
        let copies = (0..count).map(|index| {
            let mut copy = template.clone();
            copy["name"] = json!(name(kind, index));
            copy
        });
        report[list] = copies.collect();
    }
    for index in 0..30 {
        report["drops"][format!("reason_{index:02}")] = json!(1000 - index);
    }
    report["faults"] =
        (0..9).map(|index| format!("fault {index}: {}", "why ".repeat(40))).collect();
}

/// The state of a screen that shows `model` right after a report.
fn screen(model: &Model) -> Screen<'_> {
    Screen {
        model,
        connection: &Connection::Live,
        age: Duration::ZERO,
        interval: Duration::from_secs(1),
        is_paused: false,
        shows_help: false,
        view: View::All,
        scroll: 0,
        theme: Theme { has_color: true },
        socket: "/run/xdpfwd.sock",
    }
}

fn draw(screen: &Screen<'_>, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame)).unwrap();
    terminal.backend().buffer().clone()
}

/// Returns the text of a screen, without spaces at the end of lines.
fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for row in buffer.content().chunks(usize::from(buffer.area.width)) {
        let mut hidden = 0;
        let mut line = String::new();
        for cell in row {
            // A wide character hides the cell behind it.
            if hidden == 0 {
                line.push_str(cell.symbol());
                hidden = super::format::width(cell.symbol()).max(1);
            }
            hidden -= 1;
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
