//! A stage that panics ends the process with its report and exit code 1. Needs root.
//!
//! The process under test is this binary itself: xdpfwd's `main` with an additional kind of stage.
//! So it has no harness.

#![forbid(unsafe_code)]

mod support;

use std::env;
use std::process::ExitCode;
use std::sync::Arc;

use serde::Deserialize;
use support::{Config, Running, TIMEOUT, chain, cross_connect, run_tests};
use xdpfwd_lab::{Chain, Traffic};
use xdpfwd_pipeline::{BuildCx, Cx, PlanCx, PlanError, Stage, StageConfig, StagePlan, View};

/// Set in the process under test.
const FORWARDER: &str = "XDPFWD_TEST_FORWARDER";

fn main() -> ExitCode {
    if env::var_os(FORWARDER).is_some() {
        return xdpfwd::main(&xdpfwd_stages::builtin().with::<PanicsConfig>());
    }
    let tests: [(&str, fn()); 3] = [
        (
            "panic_in_process_ends_run_with_report_and_status_1",
            panic_in_process_ends_run_with_report_and_status_1,
        ),
        (
            "panic_in_retire_is_reported_and_loses_no_frame",
            panic_in_retire_is_reported_and_loses_no_frame,
        ),
        ("panic_in_build_prevents_the_start", panic_in_build_prevents_the_start),
    ];
    run_tests(&tests)
}

/// `kind = "panics"`; `in` is the function that panics.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PanicsConfig {
    r#in: String,
}

#[derive(Clone, Debug)]
struct Panics {
    function: String,
    seen: u64,
}

impl StageConfig for PanicsConfig {
    const KIND: &'static str = "panics";
    fn plan(self, _: &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, PlanError> {
        Ok(Arc::new(Panics { function: self.r#in, seen: 0 }))
    }
}

impl StagePlan for Panics {
    fn build(&self, _: &BuildCx<'_>) -> Box<dyn Stage> {
        assert_ne!(self.function, "build", "panic in build");
        Box::new(self.clone())
    }

    fn summary(&self) -> String {
        format!("panics in {}", self.function)
    }
}

impl Stage for Panics {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for _ in view.packets() {
            self.seen += 1;
            assert!(
                self.function != "process" || self.seen < 1000,
                "panic on packet {}",
                self.seen
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

fn start(chain: &Chain, function: &str) -> Running {
    let me = env::current_exe().unwrap();
    let program = ["env", &format!("{FORWARDER}=1"), me.to_str().unwrap()];
    Running::try_start_as(&program, chain, &config(function))
        .unwrap_or_else(|error| panic!("{error}"))
}

fn panic_in_process_ends_run_with_report_and_status_1() {
    let chain = chain(Chain::builder());
    let mut running = start(&chain, "process");
    let generator = Traffic::new().rate(20_000).core(0).start(chain.gen_(), "gen0").unwrap();
    running.wait();
    let stderr = running.forwarder.stderr().join("\n");
    let (ended, last) = running.stop();
    generator.stop().unwrap();
    assert_eq!((ended.status.code(), ended.killed), (Some(1), false), "{stderr}");
    let failure = "worker 0 panicked: packet 1000 is one too many";
    assert!(stderr.contains(&format!("xdpfwd: {failure}; forwarding was stopped")), "{stderr}");
    assert!(stderr.contains("tests/root_panic.rs:"), "where: {stderr}");
    assert_eq!(last.json["failure"], failure);

    let leaked = last.report.frames.leaked;
    assert!((1..=64).contains(&leaked), "not the frames of the interrupted batch: {}", last.json);
    let dropped: u64 = last.report.drops.values().sum();
    let accounted = last.report.transmitted() + dropped + leaked as u64;
    assert_eq!(last.report.received(), accounted, "{}", last.json);
    assert!(
        last.report.transmitted() < 1000 && last.report.transmitted() + leaked as u64 >= 1000,
        "{}",
        last.json
    );
    let links = chain.fwd().command("ip").args(["link", "show"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&links.stdout).contains("prog/xdp"), "{links:?}");
}

fn panic_in_retire_is_reported_and_loses_no_frame() {
    let chain = chain(Chain::builder());
    let running = start(&chain, "retire");
    Traffic::new()
        .rate(10_000)
        .count(500)
        .core(0)
        .start(chain.gen_(), "gen0")
        .unwrap()
        .finish(TIMEOUT)
        .unwrap();
    let (ended, last) = running.stop();
    assert_eq!((ended.status.code(), ended.killed), (Some(1), false));
    assert!(last.json["failure"].as_str().unwrap().contains("panic in retire"), "{}", last.json);
    last.assert_conserved();
    assert_eq!(last.report.port("fwd1").unwrap().tx_packets, 500);
}

fn panic_in_build_prevents_the_start() {
    let chain = chain(Chain::builder());
    let config = Config::new(&config("build"));
    let mut command = chain.fwd().command(env::current_exe().unwrap().to_str().unwrap());
    command.env(FORWARDER, "1").args(["--config", config.path()]);
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("worker 0: panicked during startup: stage trap: "), "{stderr}");
    assert!(stderr.contains("no such luck"), "{stderr}");
    // The failed start holds nothing: the next one succeeds.
    let (_, last) = start(&chain, "nowhere").stop();
    last.assert_conserved();
    assert!(last.json["failure"].is_null(), "{}", last.json);
}
