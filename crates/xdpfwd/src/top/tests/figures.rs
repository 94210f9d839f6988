//! Rates, costs and alerts.

use super::*;
use crate::top::alerts::{Severity, alerts};
use crate::top::losses::Location;

fn texts(model: &Model, severity: Severity) -> Vec<String> {
    let alerts = alerts(model).into_iter().filter(|alert| alert.severity == severity);
    alerts.map(|alert| alert.text).collect()
}

#[test]
fn rates_are_those_between_the_last_two_reports() {
    let mut model = model_after(3, unchanged);
    let rates = model.ports[0].now.unwrap();
    assert_eq!((rates.rx_packets, rates.rx_bits), (1_070_000.0, 8.0 * 60.0 * 1_070_000.0));
    assert_eq!((rates.tx_packets, rates.to_kernel), (0.0, 2.0));
    // Half as many packets in the next two seconds.
    let mut slower = report(5.0);
    slower["ports"][0]["rx_packets"] = json!(4 * 1_070_000);
    model.add(parse(slower), true);
    assert_eq!(model.ports[0].now.unwrap().rx_packets, 535_000.0);
    assert_eq!(model.interval, Some(2.0));
    assert_eq!(model.ports[0].rx_history.peak(), 1_070_000.0);
}

#[test]
fn first_report_has_no_rates() {
    let model = model_after(1, trouble);
    assert!(model.ports[0].now.is_none() && model.losses.iter().all(|loss| loss.rate.is_none()));
    assert_eq!(texts(&model, Severity::Good).len(), 1, "{:?}", alerts(&model));
    // Since the start, until there is an interval.
    assert_eq!(model.costs.rx_packets, 1_070_000);
    assert_eq!(model.period(), "since the start");
}

#[test]
fn report_of_a_new_process_starts_anew() {
    let restarted = [
        // The new process is younger.
        (parse(report(0.5)), true),
        // It is older than the old one was, because the connection was lost for long.
        (parse(report(100.0)), false),
        // It is older, but has received less.
        (
            {
                let mut report = report(9.0);
                report["ports"][0]["rx_packets"] = json!(7);
                parse(report)
            },
            true,
        ),
        // Other ports.
        (
            {
                let mut report = report(9.0);
                report["ports"][0]["name"] = json!("other");
                parse(report)
            },
            true,
        ),
    ];
    for (snapshot, is_same_connection) in restarted {
        let mut model = model_after(8, trouble);
        model.add(snapshot, is_same_connection);
        assert!(model.ports.iter().all(|port| port.now.is_none()));
        assert_eq!(model.ports[0].rx_history.peak(), 0.0);
        assert_eq!(model.interval, None);
        let elapsed = model.snapshot.elapsed_seconds();
        // The next report of the new process has rates again.
        model.add(
            {
                let mut next = model.snapshot.clone();
                next.costs.elapsed_seconds = elapsed + 2.0;
                next.ports[0].rx_packets += 10;
                next
            },
            true,
        );
        assert_eq!(model.ports[0].now.unwrap().rx_packets, 5.0);
    }
}

#[test]
fn reset_counter_of_a_replaced_stage_gives_no_negative_figures() {
    let mut model = model_after(8, unchanged);
    let mut reloaded = report(9.0);
    for (key, value) in [("packets", 100), ("drops", 7), ("cycles", 9000), ("calls", 10)] {
        reloaded["stages"][0][key] = json!(value);
    }
    reloaded["stages"][1]["name"] = json!("new");
    model.add(parse(reloaded), true);
    let stage = &model.costs.stages[0];
    assert_eq!((stage.packets, stage.drops, stage.cycles_per_packet), (100, 7, 90.0));
    assert_eq!(model.costs.stages[1].packets, 9_630_000);
}

#[test]
fn stage_costs_are_those_of_the_interval() {
    let model = model_after(8, |report, seconds| {
        // 100 cycles per packet until second 7, then 500.
        let cycles = if seconds < 8.0 { 107e6 * seconds } else { 107e6 * 7.0 + 535e6 };
        report["stages"][0]["cycles"] = json!(cycles as u64);
    });
    assert_eq!(model.costs.stages[0].cycles_per_packet, 500.0);
    assert_eq!(model.costs.rx_packets, 1_070_000);
    assert_eq!(model.busy_percent().unwrap().round(), 96.0);
}

#[test]
fn growing_losses_come_first_and_name_the_remedy() {
    let model = model_after(12, trouble);
    let reasons: Vec<(&str, bool)> =
        model.losses.iter().map(|loss| (&*loss.reason, loss.is_growing())).collect();
    let expected = [
        ("rx_ring_full", true),
        ("policy", true),
        ("policy", true),
        ("malformed", true),
        ("egress_full", false),
    ];
    assert_eq!(reasons, expected);
    assert_eq!(model.losses[1].location, Location::Xdp("lan".to_owned()));
    assert_eq!(model.losses[4].last_growth, Some(5.0));
    let bad = texts(&model, Severity::Bad);
    for text in ["3 frames leaked", "state file cannot be written", "link of wan (fwd1)"] {
        assert!(bad.iter().any(|alert| alert.contains(text)), "{bad:?}");
    }
    assert!(bad.iter().any(|alert| alert.starts_with("rx_ring_full 15.5M/s (kernel lan): ")));
    let warnings = texts(&model, Severity::Warning);
    assert!(warnings.iter().any(|alert| alert.starts_with("malformed 3/s")), "{warnings:?}");
    assert!(warnings.iter().any(|alert| alert.starts_with("no zero-copy on lan")));
    // Packets that a rule drops are no problem.
    assert!(!alerts(&model).iter().any(|alert| alert.text.contains("policy")));
}

#[test]
fn loss_that_has_ended_is_reported_with_its_age() {
    let model = model_after(65, |report, seconds| {
        report["drops"]["egress_full"] = json!(if seconds < 5.0 { 0 } else { 4711 });
    });
    let expected = "no packet lost now; 4.71k since the start (egress_full, last 1:00 ago)";
    assert_eq!(texts(&model, Severity::Good), [expected]);
}

#[test]
fn other_programs_on_the_core_of_a_worker_are_an_alert() {
    let model = |workers: Value| {
        model_after(12, |report, seconds| {
            report["kernel_ledger"] = kernel_ledger(seconds);
            report["kernel_ledger"]["cores"] = json!([{ "core": 1, "workers": workers, "accounts": [
                { "name": "user", "cycles": (6e8 * seconds) as u64 },
                { "name": "other", "cycles": (2e8 * seconds) as u64 },
            ]}]);
        })
    };
    let expected = "other programs take 25 % of core 1, on which a worker runs";
    assert_eq!(texts(&model(json!([0])), Severity::Warning), [expected]);
    // A core without a worker serves only interrupts.
    assert_eq!(texts(&model(json!([])), Severity::Warning), [""; 0]);
}

#[test]
fn failed_worker_is_an_alert() {
    let model = model_after(2, |report, _| report["failure"] = json!("worker 0 panicked: why"));
    assert_eq!(texts(&model, Severity::Bad), ["worker 0 panicked: why"]);
}

#[test]
fn kernel_share_covers_the_last_ten_seconds() {
    let model = model_after(30, |report, seconds| {
        report["kernel_ledger"] = kernel_ledger(seconds);
        // Until second 19 all system calls, then all user space.
        let (user, system_call) = (seconds - seconds.min(19.0), seconds.min(19.0));
        let accounts = &mut report["kernel_ledger"]["accounts"];
        *accounts = json!([
            { "name": "user", "samples": 241.0 * user, "cycles": 2.6e9 * user },
            { "name": "system_call", "samples": 241.0 * system_call, "cycles": 2.6e9 * system_call },
        ]);
        for account in accounts.as_array_mut().unwrap() {
            for key in ["samples", "cycles"] {
                account[key] = json!(account[key].as_f64().unwrap() as u64);
            }
        }
    });
    let kernel = model.kernel.unwrap();
    assert_eq!((kernel.seconds, kernel.accounts[0].samples), (10.0, 2410));
    assert_eq!((kernel.accounts[0].share_percent, kernel.accounts[1].cycles), (100.0, 0));
    assert_eq!(kernel.accounts[0].cycles_per_packet, 2429.9);
    assert_eq!(kernel.syscalls_per_packet, 0.015607);
    assert_eq!(kernel.xdp_programs[0].cycles_per_run, 52.0);
}

#[test]
fn report_without_new_fields_is_accepted() {
    let model = model_after(3, |report, _| {
        report.as_object_mut().unwrap().remove("kernel_ledger");
        for stage in report["stages"].as_array_mut().unwrap() {
            stage.as_object_mut().unwrap().remove("cycles");
        }
        report["ports"][0].as_object_mut().unwrap().remove("link");
    });
    assert!(model.kernel.is_none());
    let text = text(&draw(&screen(&model), 80, 24));
    assert!(text.contains("not measured by this version"), "{text}");
    // Without the cycles of a stage, the figure is that since the start.
    assert!(text.contains("edge   lan->wan        80.5    3.4 %"), "{text}");
}

#[test]
fn kernel_share_that_is_off_or_unavailable_says_why() {
    for (ledger, expected) in [
        (json!({ "mode": "off" }), "off: set kernel_ledger = \"sampled\" in [engine]"),
        (
            json!({ "mode": "sampled", "unavailable": "needs CAP_PERFMON: run as root" }),
            "unavailable: needs CAP_PERFMON: run as",
        ),
    ] {
        let model = model_after(3, |report, _| report["kernel_ledger"] = ledger.clone());
        let text = text(&draw(&screen(&model), 80, 24));
        assert!(text.contains(expected.split(':').next().unwrap()), "{text}");
        let whole = Screen { view: View::Kernel, ..screen(&model) };
        let text = super::text(&draw(&whole, 80, 24));
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn report_with_maximal_counters_is_drawn() {
    let mut model = model_after(2, unchanged);
    fn maximize(value: &mut Value) {
        match value {
            Value::Number(number) if number.is_u64() => *value = json!(u64::MAX),
            Value::Array(items) => items.iter_mut().for_each(maximize),
            Value::Object(map) => map
                .iter_mut()
                .filter(|(key, _)| !matches!(&***key, "leaked" | "workers" | "worker"))
                .for_each(|(_, item)| maximize(item)),
            _ => {}
        }
    }
    let mut report = report(3.0);
    report["kernel_ledger"] = kernel_ledger(3.0);
    maximize(&mut report);
    model.add(parse(report), true);
    for (view, ..) in View::ALL {
        draw(&Screen { view, ..screen(&model) }, 80, 24);
    }
}
