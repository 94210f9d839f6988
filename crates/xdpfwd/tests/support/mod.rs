//! Test helpers that run xdpfwd in the middle namespace of the lab and read its reports.
//!
//! A [`Chain`] is the lab: the namespaces of generator, forwarder and sink, connected in this
//! order.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test file uses only some of the helpers"
)]

pub mod cables;
pub mod esp;
pub mod examination; // runs of doctor
pub mod hosts;
pub mod iperf3;
pub mod socket;
pub mod tmux;
pub mod wire;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use xdpfwd_lab::{Chain, Forwarder, ForwarderExit, Generator, Namespace, Report, Sink};
pub use xdpfwd_testkit::lab::chain as build_lab;
pub use xdpfwd_testkit::process::{TIMEOUT, stderr, until};

pub const XDPFWD: &str = env!("CARGO_BIN_EXE_xdpfwd");

/// Returns a configuration that forwards between fwd0 and fwd1 in both directions. `engine` is the
/// content of its `[engine]` table.
pub fn cross_connect(queues: u16, engine: &str) -> String {
    cross_connect_between(["fwd0", "fwd1"], queues, engine)
}

/// Like [`cross_connect`], with a value of the key `io` for each port.
pub fn cross_connect_io(lan_io: &str, wan_io: &str, queues: u16, engine: &str) -> String {
    cross_connect(queues, engine)
        .replacen("interface = \"fwd0\"", &format!("interface = \"fwd0\"\nio = \"{lan_io}\""), 1)
        .replacen("interface = \"fwd1\"", &format!("interface = \"fwd1\"\nio = \"{wan_io}\""), 1)
}

pub fn cross_connect_between([lan, wan]: [&str; 2], queues: u16, engine: &str) -> String {
    format!(
        r#"
        [engine]
        {engine}
        [[port]]
        name = "lan"
        interface = "{lan}"
        queues = {queues}
        [[port]]
        name = "wan"
        interface = "{wan}"
        queues = {queues}
        [[path]]
        from = "lan"
        to = "wan"
        [[path]]
        from = "wan"
        to = "lan"
        "#
    )
}

/// Calls `run` while each generator sends, at most 200 packets ahead of what its sink has received
/// ([on grant](xdpfwd_lab::Traffic::on_grant)). 200 packets fit into any ring and any queue of a
/// veth, so none is lost while a worker waits for its core.
pub fn run_with_grants<R>(pairs: &[(&Generator, &Sink)], run: impl FnOnce() -> R) -> R {
    const MAX_IN_FLIGHT: u64 = 200;
    /// Stops the granting thread, also after a panic.
    struct StopOnDrop<'a>(&'a AtomicBool);
    impl Drop for StopOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let should_stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !should_stop.load(Ordering::Relaxed) {
                for (generator, sink) in pairs {
                    generator.grant(sink.seen().unwrap().arrived.packets + MAX_IN_FLIGHT).unwrap();
                }
                thread::sleep(Duration::from_micros(200));
            }
        });
        let _guard = StopOnDrop(&should_stop);
        run()
    })
}

/// Runs `ip -batch` commands in a namespace, or in the current one if `None`.
pub fn ip_batch(namespace: Option<&Namespace>, commands: &str) {
    let mut ip = Command::new("ip");
    if let Some(namespace) = namespace {
        ip.args(["-n", namespace.name()]);
    }
    let mut ip =
        ip.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    ip.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    let output = ip.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{commands}", stderr(&output));
}

/// A temporary configuration file, removed on drop.
pub struct Config(PathBuf);

impl Config {
    pub fn new(text: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{}-{id}.toml", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Replaces the file atomically, as an editor does.
    pub fn write(&self, text: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, &self.0).unwrap();
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// An xdpfwd process and its configuration file.
pub struct Running {
    pub forwarder: Forwarder,
    pub config: Config,
}

impl Running {
    /// Starts xdpfwd in the lab and waits for the first report: from then on xdpfwd forwards.
    pub fn start(lab: &Chain, config: &str) -> Self {
        Self::try_start(lab, config).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn try_start(lab: &Chain, config: &str) -> Result<Self, xdpfwd_lab::Error> {
        Self::try_start_as(&[XDPFWD], lab, config)
    }

    /// Starts another program that has xdpfwd's command line.
    pub fn try_start_as(
        program: &[&str],
        lab: &Chain,
        config: &str,
    ) -> Result<Self, xdpfwd_lab::Error> {
        Self::try_start_in(program, lab.fwd(), config)
    }

    /// Like [`try_start_as`](Self::try_start_as), in any namespace.
    pub fn try_start_in(
        program: &[&str],
        namespace: &Namespace,
        config: &str,
    ) -> Result<Self, xdpfwd_lab::Error> {
        let config = Config::new(config);
        let arguments =
            [program, &["--config", config.path(), "--json", "--interval", "0.05"]].concat();
        let mut forwarder = Forwarder::spawn(namespace, &arguments)?;
        forwarder.wait_for_line(TIMEOUT, |line| line.contains(r#""type":"interval""#))?;
        Ok(Self { forwarder, config })
    }

    /// Wraps a running forwarder. Keeps the file `config` until the forwarder has stopped, and
    /// removes it then.
    pub fn from_forwarder(forwarder: Forwarder, config: Config) -> Self {
        Self { forwarder, config }
    }

    pub fn signal(&self, signal: Signal) {
        // xdpfwd has not been reaped yet, so no other process has this pid.
        kill(Pid::from_raw(self.forwarder.pid() as i32), signal).unwrap();
    }

    pub fn count_log_lines(&self, text: &str) -> usize {
        self.forwarder.stderr().iter().filter(|line| line.contains(text)).count()
    }

    /// Reloads, and waits for a new log line that contains `outcome`.
    #[track_caller]
    pub fn reload(&self, outcome: &str) {
        let before = self.count_log_lines(outcome);
        self.signal(Signal::SIGHUP);
        let deadline = Instant::now() + TIMEOUT;
        while self.count_log_lines(outcome) == before {
            assert!(
                Instant::now() < deadline,
                "the log has no new line that contains {outcome:?} after {TIMEOUT:?}: {:#?}",
                self.forwarder.stderr()
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn wait(&mut self) {
        let deadline = Instant::now() + TIMEOUT;
        while self.forwarder.check_running().is_ok() {
            assert!(
                Instant::now() < deadline,
                "xdpfwd did not end within {TIMEOUT:?}; stderr: {:#?}",
                self.forwarder.stderr()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops xdpfwd with SIGINT unless it has already ended.
    pub fn stop(mut self) -> (ForwarderExit, FinalReport) {
        let exit = self.forwarder.stop(TIMEOUT).unwrap();
        let line = self.forwarder.last_line(|line| line.contains(r#""type":"final""#));
        let line = line
            .unwrap_or_else(|| panic!("no final report; stderr: {:#?}", self.forwarder.stderr()));
        (
            exit,
            FinalReport {
                json: serde_json::from_str(&line).unwrap(),
                parsed: Report::parse(&line).unwrap(),
            },
        )
    }
}

/// A final report, as JSON and as parsed by the lab.
pub struct FinalReport {
    pub json: Value,
    pub parsed: Report,
}

impl FinalReport {
    /// Checks that every frame is in a pool or a fill ring, that the number of received packets is
    /// that of sent plus that of dropped packets, and that the kernel found no invalid descriptor.
    #[track_caller]
    pub fn assert_frames_and_packets_add_up(&self) {
        let frames = &self.json["frames"];
        let count = |key: &str| {
            frames[key].as_i64().unwrap_or_else(|| panic!("no frames.{key} in {frames}"))
        };
        let sum: i64 =
            ["pool", "fill", "rx", "in_flight", "tx", "completion"].into_iter().map(count).sum();
        assert_eq!(sum, count("total"), "frames do not add up: {frames}");
        assert_eq!(count("leaked"), 0, "{frames}");
        assert_eq!(
            (count("rx"), count("in_flight"), count("tx"), count("completion")),
            (0, 0, 0, 0),
            "after the stop, frames are still in flight or in rings: {frames}"
        );
        let dropped: u64 = self.parsed.drops.values().sum();
        assert_eq!(
            self.parsed.received(),
            self.parsed.transmitted() + dropped,
            "packets do not add up: {}",
            self.json
        );
        assert_eq!(self.json["kernel"]["invalid_descriptors"], 0, "{}", self.json);
        assert_eq!(self.json["kernel"]["tx_invalid"], 0, "{}", self.json);
    }
}

/// Runs a test target with `harness = false`. Supports two arguments of `cargo test`: `--list`, and
/// a filter.
pub fn run_tests(tests: &[(&str, fn())]) -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    for (name, test) in tests {
        if arguments.iter().any(|argument| argument == "--list") {
            println!("{name}: test");
        } else if filter.is_none_or(|filter| name.contains(filter.as_str())) {
            test();
            println!("test {name} ... ok");
        }
    }
    std::process::ExitCode::SUCCESS
}
