//! Tests that a stage that panics ends xdpfwd with its final report and exit code 1. Needs root.
//!
//! This binary is also the tested program: xdpfwd's `main` with an additional stage kind. It runs
//! as such if [`FORWARDER_VARIABLE`] is set. So the test target has `harness = false`.

#![forbid(unsafe_code)]

mod support;

use std::env;
use std::process::ExitCode;
use std::sync::Arc;

use serde::Deserialize;
use support::{Config, Running, TIMEOUT, build_lab, cross_connect, run_tests};
use xdpfwd_lab::{Chain, Traffic};
use xdpfwd_pipeline::{BuildCx, Cx, PlanCx, PlanError, Stage, StageConfig, StagePlan, View};

/// The name of an environment variable.
const FORWARDER_VARIABLE: &str = "XDPFWD_TEST_FORWARDER";

fn main() -> ExitCode {
    if env::var_os(FORWARDER_VARIABLE).is_some() {
        return xdpfwd::main(&xdpfwd_stages::builtin().with::<PanicsConfig>());
    }
    let tests: [(&str, fn()); 3] = [
        (
            "panic_in_process_ends_xdpfwd_with_report_and_exit_code_1",
            panic_in_process_ends_xdpfwd_with_report_and_exit_code_1,
        ),
        (
            "panic_in_retire_is_reported_and_loses_no_frame",
            panic_in_retire_is_reported_and_loses_no_frame,
        ),
        ("panic_in_build_fails_the_start", panic_in_build_fails_the_start),
    ];
    run_tests(&tests)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PanicsConfig {
    /// The function that panics: `build`, `process` or `retire`. With another text, none panics.
    r#in: String,
}

/// A stage that panics, and its plan.
#[derive(Clone, Debug)]
struct PanickingStage {
    /// The function that panics.
    function: String,
    /// Packets processed so far. `process` panics on packet 1000.
    packets: u64,
}

impl StageConfig for PanicsConfig {
    const KIND: &'static str = "panics";
    fn plan(self, _: &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, PlanError> {
        Ok(Arc::new(PanickingStage { function: self.r#in, packets: 0 }))
    }
}

impl StagePlan for PanickingStage {
    fn build(&self, _: &BuildCx<'_>) -> Box<dyn Stage> {
        assert_ne!(self.function, "build", "panic in build");
        Box::new(self.clone())
    }

    fn summary(&self) -> String {
        format!("panics in {}", self.function)
    }
}

impl Stage for PanickingStage {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for _ in view.packets() {
            self.packets += 1;
            assert!(
                self.function != "process" || self.packets < 1000,
                "panic on packet {}",
                self.packets
            );
        }
    }

    fn retire(&mut self, _: &mut Cx<'_>) {
        assert_ne!(self.function, "retire", "panic in retire");
    }
}

fn config(function: &str) -> String {
    cross_connect(1, "").replacen("to = \"wan\"", "to = \"wan\"\nstages = [\"trap\"]", 1)
        + &format!("\n[stage.trap]\nkind = \"panics\"\nin = \"{function}\"\n")
}

fn start(lab: &Chain, function: &str) -> Running {
    let this_binary = env::current_exe().unwrap();
    let program = ["env", &format!("{FORWARDER_VARIABLE}=1"), this_binary.to_str().unwrap()];
    Running::try_start_as(&program, lab, &config(function))
        .unwrap_or_else(|error| panic!("{error}"))
}

fn panic_in_process_ends_xdpfwd_with_report_and_exit_code_1() {
    let lab = build_lab(Chain::builder());
    let mut running = start(&lab, "process");
    let generator = Traffic::new().rate(20_000).core(0).start(lab.gen_(), "gen0").unwrap();
    running.wait();
    let stderr = running.forwarder.stderr().join("\n");
    let (exit, final_report) = running.stop();
    generator.stop().unwrap();
    assert_eq!((exit.status.code(), exit.killed), (Some(1), false), "{stderr}");
    let failure = "worker 0 panicked: panic on packet 1000";
    assert!(stderr.contains(&format!("xdpfwd: {failure}; forwarding was stopped")), "{stderr}");
    assert!(stderr.contains("tests/root_panic.rs:"), "no source location: {stderr}");
    assert_eq!(final_report.json["failure"], failure);

    let leaked = final_report.parsed.frames.leaked;
    assert!(
        (1..=64).contains(&leaked),
        "{leaked} leaked frames; expected 1 to 64, those of the interrupted batch: {}",
        final_report.json
    );
    let dropped: u64 = final_report.parsed.drops.values().sum();
    let accounted = final_report.parsed.transmitted() + dropped + leaked as u64;
    assert_eq!(final_report.parsed.received(), accounted, "{}", final_report.json);
    assert!(
        final_report.parsed.transmitted() < 1000
            && final_report.parsed.transmitted() + leaked as u64 >= 1000,
        "{}",
        final_report.json
    );
    let links = lab.fwd().command("ip").args(["link", "show"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&links.stdout).contains("prog/xdp"), "{links:?}");
}

fn panic_in_retire_is_reported_and_loses_no_frame() {
    let lab = build_lab(Chain::builder());
    let running = start(&lab, "retire");
    Traffic::new()
        .rate(10_000)
        .count(500)
        .core(0)
        .start(lab.gen_(), "gen0")
        .unwrap()
        .finish(TIMEOUT)
        .unwrap();
    let (exit, final_report) = running.stop();
    assert_eq!((exit.status.code(), exit.killed), (Some(1), false));
    assert!(
        final_report.json["failure"].as_str().unwrap().contains("panic in retire"),
        "{}",
        final_report.json
    );
    final_report.assert_frames_and_packets_add_up();
    assert_eq!(final_report.parsed.port("fwd1").unwrap().tx_packets, 500);
}

fn panic_in_build_fails_the_start() {
    let lab = build_lab(Chain::builder());
    let config = Config::new(&config("build"));
    let mut command = lab.fwd().command(env::current_exe().unwrap().to_str().unwrap());
    command.env(FORWARDER_VARIABLE, "1").args(["--config", config.path()]);
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("worker 0: panicked during startup: stage trap: "), "{stderr}");
    assert!(stderr.contains("panic in build"), "{stderr}");
    // The failed start has released the interfaces.
    let (_, final_report) = start(&lab, "nowhere").stop();
    final_report.assert_frames_and_packets_add_up();
    assert!(final_report.json["failure"].is_null(), "{}", final_report.json);
}
