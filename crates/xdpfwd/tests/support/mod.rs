//! Runs xdpfwd in the middle of a lab.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses a part of it")]

pub mod cables;
pub mod esp;
pub mod examination;
pub mod socket;
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
pub use xdpfwd_testkit::lab::chain;
pub use xdpfwd_testkit::process::{TIMEOUT, stderr, until};

pub const XDPFWD: &str = env!("CARGO_BIN_EXE_xdpfwd");

/// Returns a cross-connect of fwd0 and fwd1, with `engine` as the lines of its `[engine]` table.
pub fn cross_connect(queues: u16, engine: &str) -> String {
    cross_connect_of(["fwd0", "fwd1"], queues, engine)
}

/// Returns a cross-connect of any two interfaces.
pub fn cross_connect_of([lan, wan]: [&str; 2], queues: u16, engine: &str) -> String {
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

/// Runs a closure while generators that are [on grant](xdpfwd_lab::Traffic::on_grant) send, each
/// to its sink. The packets in flight fit into every ring and every queue of a veth, so none is
/// lost while a worker waits for its core.
pub fn in_step<R>(pairs: &[(&Generator, &Sink)], run: impl FnOnce() -> R) -> R {
    const MAX_IN_FLIGHT: u64 = 200;
    /// Ends the thread on drop, also after a panic.
    struct StopOnDrop<'a>(&'a AtomicBool);
    impl Drop for StopOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for (generator, sink) in pairs {
                    generator.grant(sink.seen().unwrap().arrived.packets + MAX_IN_FLIGHT).unwrap();
                }
                thread::sleep(Duration::from_micros(200));
            }
        });
        let _stop = StopOnDrop(&is_over);
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
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{}-{number}.toml", std::process::id()));
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

/// An xdpfwd running in the lab's middle namespace.
pub struct Running {
    pub forwarder: Forwarder,
    pub config: Config,
}

impl Running {
    /// Starts xdpfwd and waits for its first report; from then on it forwards.
    pub fn start(chain: &Chain, config: &str) -> Self {
        Self::try_start(chain, config).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn try_start(chain: &Chain, config: &str) -> Result<Self, xdpfwd_lab::Error> {
        Self::try_start_as(&[XDPFWD], chain, config)
    }

    /// Starts another program that accepts xdpfwd's arguments.
    pub fn try_start_as(
        program: &[&str],
        chain: &Chain,
        config: &str,
    ) -> Result<Self, xdpfwd_lab::Error> {
        Self::try_start_in(program, chain.fwd(), config)
    }

    /// Starts a program in any namespace.
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

    /// Wraps a forwarder that already runs.
    pub fn of(forwarder: Forwarder, config: Config) -> Self {
        Self { forwarder, config }
    }

    pub fn signal(&self, signal: Signal) {
        // The process is not reaped yet, so no other process has its pid.
        kill(Pid::from_raw(self.forwarder.pid() as i32), signal).unwrap();
    }

    /// Returns how many lines of the log contain a text.
    pub fn count_log(&self, text: &str) -> usize {
        self.forwarder.stderr().iter().filter(|line| line.contains(text)).count()
    }

    /// Makes xdpfwd read its configuration again, and waits until its log has another line that
    /// contains `outcome`.
    #[track_caller]
    pub fn reload(&self, outcome: &str) {
        let before = self.count_log(outcome);
        self.signal(Signal::SIGHUP);
        let deadline = Instant::now() + TIMEOUT;
        while self.count_log(outcome) == before {
            assert!(
                Instant::now() < deadline,
                "the log has no new line with {outcome:?} after {TIMEOUT:?}: {:#?}",
                self.forwarder.stderr()
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until xdpfwd ends by itself.
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

    /// Stops xdpfwd with SIGINT, unless it has ended. Returns how it ended, and its final report.
    pub fn stop(mut self) -> (ForwarderExit, Final) {
        let ended = self.forwarder.stop(TIMEOUT).unwrap();
        let line = self.forwarder.last_line(|line| line.contains(r#""type":"final""#));
        let line = line
            .unwrap_or_else(|| panic!("no final report; stderr: {:#?}", self.forwarder.stderr()));
        (
            ended,
            Final {
                json: serde_json::from_str(&line).unwrap(),
                report: Report::parse(&line).unwrap(),
            },
        )
    }
}

/// The final report, as JSON and as parsed by the lab.
pub struct Final {
    pub json: Value,
    pub report: Report,
}

impl Final {
    /// Checks the invariants of every final report: no frame is missing, and received packets equal
    /// sent plus dropped ones.
    #[track_caller]
    pub fn assert_conserved(&self) {
        let frames = &self.json["frames"];
        let get = |key: &str| {
            frames[key].as_i64().unwrap_or_else(|| panic!("no frames.{key} in {frames}"))
        };
        let sum: i64 =
            ["pool", "fill", "rx", "in_flight", "tx", "completion"].into_iter().map(get).sum();
        assert_eq!(sum, get("total"), "{frames}");
        assert_eq!(get("leaked"), 0, "{frames}");
        assert_eq!(
            (get("rx"), get("in_flight"), get("tx"), get("completion")),
            (0, 0, 0, 0),
            "frames are not drained: {frames}"
        );
        let dropped: u64 = self.report.drops.values().sum();
        assert_eq!(self.report.received(), self.report.transmitted() + dropped, "{}", self.json);
        assert_eq!(self.json["kernel"]["invalid_descriptors"], 0, "{}", self.json);
        assert_eq!(self.json["kernel"]["tx_invalid"], 0, "{}", self.json);
    }
}

/// Runs the tests of a binary without a harness. Of the arguments from cargo, supports `--list`
/// and a part of a test's name.
pub fn run_tests(tests: &[(&str, fn())]) -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted = arguments.iter().find(|argument| !argument.starts_with('-'));
    for (name, test) in tests {
        if arguments.iter().any(|argument| argument == "--list") {
            println!("{name}: test");
        } else if wanted.is_none_or(|wanted| name.contains(wanted.as_str())) {
            test();
            println!("test {name} ... ok");
        }
    }
    std::process::ExitCode::SUCCESS
}
