//! Tests a program built on `xdpfwd::App`: its hooks, its commands, its stage kind and its handle.
//! Needs root.
//!
//! This binary is also the tested program, and runs as such if [`PROGRAM_VARIABLE`] is set. So the
//! test target has `harness = false`.

#![forbid(unsafe_code)]

mod support;

use std::env;
use std::process::{Command, ExitCode, Output};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use support::socket::Socket;
use support::{Running, TIMEOUT, build_lab, cross_connect, run_tests};
use xdpfwd::{App, Handle};
use xdpfwd_lab::{Chain, Traffic};
use xdpfwd_pipeline::{
    BuildCx, Cx, PlanCx, PlanError, PortId, PortName, Reason, Stage, StagePlan, Table, Unit, View,
};

/// The name of an environment variable. If it is set, this binary runs as the tested program. With
/// the value `fails`, the start hook fails.
const PROGRAM_VARIABLE: &str = "XDPFWD_TEST_APP";

fn main() -> ExitCode {
    if env::var_os(PROGRAM_VARIABLE).is_some() {
        return app().main();
    }
    let tests: [(&str, fn()); 7] = [
        ("help_and_version_name_the_program", help_and_version_name_the_program),
        ("own_subcommand_receives_its_arguments", own_subcommand_receives_its_arguments),
        (
            "ctl_commands_reach_all_workers_and_print_each_output_type",
            ctl_commands_reach_all_workers_and_print_each_output_type,
        ),
        ("failed_ctl_command_returns_its_error", failed_ctl_command_returns_its_error),
        (
            "reload_runs_commit_hook_and_failed_reload_runs_rollback_hook",
            reload_runs_commit_hook_and_failed_reload_runs_rollback_hook,
        ),
        ("failed_start_hook_stops_the_program", failed_start_hook_stops_the_program),
        ("worker_panic_runs_the_stop_hooks", worker_panic_runs_the_stop_hooks),
    ];
    run_tests(&tests)
}

fn app() -> App {
    let max_bytes = 1514; // a stage factory may capture variables
    App::new("probe", "9.8.7")
        .about("Drops long packets")
        .stage_with("longest", move |config: LongestConfig, cx| {
            LongestPlan::new(&config, max_bytes, cx)
        })
        .ctl("longest", "Set the length limit", |handle, arguments| {
            let [bytes] = arguments else { return Err("expected bytes".into()) };
            let bytes: usize = bytes.parse()?;
            let before = handle.each_stage(move |name: &str, stage: &mut Longest| {
                (name.to_owned(), std::mem::replace(&mut stage.max_bytes, bytes))
            })?;
            Ok(json!(before))
        })
        .ctl("names", "Show text", |_, _| Ok("one\ntwo"))
        .ctl("table", "Show a table", |_, _| {
            let mut table = Table::new("ports", &[("name", None), ("sent", Some(Unit::Packets))]);
            table.rows.push(vec!["wan".into(), 7_u64.into()]);
            Ok(table)
        })
        .ctl_parsed("limit", "Parsed arguments", |_, limit| match limit {
            LimitCommand::Set { bytes, unit } => Ok(json!([bytes, unit])),
            LimitCommand::Show => Err("there is no limit".into()),
        })
        .ctl("panic", "Panic", |_, _| -> Result<(), _> { panic!("on purpose") })
        .ctl("again", "Reload", |handle, _| {
            handle.request_reload();
            Ok(())
        })
        .ctl("end", "Stop", |handle, _| {
            handle.request_stop();
            Ok(())
        })
        .ctl("workers", "Show the workers that a handle reports", |handle, _| {
            let (report, inspection) = (handle.report()?, handle.inspect()?);
            Ok(json!({ "workers": [report.workers, inspection.workers, handle.workers()?] }))
        })
        .subcommand(clap::Command::new("greet").arg(clap::Arg::new("whom")), |matches| {
            println!(
                "hello {}",
                matches.get_one::<String>("whom").map_or("nobody", String::as_str)
            );
            ExitCode::from(7)
        })
        .on_start(|handle| {
            eprintln!("hook: start, {} worker(s)", handle.workers()?);
            // Any thread may hold a handle.
            let thread_handle: Handle = handle.clone();
            let frames_by_worker = thread::spawn(move || {
                thread_handle.each_worker(|worker| worker.report().frames.total)
            })
            .join();
            let frames_by_worker = frames_by_worker.map_err(|_| "the thread panicked")??;
            eprintln!("hook: frames {frames_by_worker:?}");
            match env::var(PROGRAM_VARIABLE).as_deref() {
                Ok("fails") => Err("requested by the test".into()),
                _ => Ok(()),
            }
        })
        .on_stop(|handle| {
            eprintln!(
                "hook: stop, sent {:?}",
                handle.report().map(|report| report.ports[1].tx_packets)
            )
        })
        .on_stopped(|report| eprintln!("hook: stopped, sent {}", report.ports[1].tx_packets))
        .on_reload_commit(|_| eprintln!("hook: commit"))
        .on_reload_rollback(|_, reason| eprintln!("hook: rollback: {reason}"))
}

/// The arguments of `ctl limit`.
#[derive(clap::Parser)]
enum LimitCommand {
    /// Sets the limit
    Set {
        bytes: u16,
        #[arg(long, default_value = "bytes")]
        unit: String,
    },
    /// Shows the limit
    Show,
}

/// The keys of the stage kind `longest`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongestConfig {
    /// The port for packets longer than the limit. Without this key, the stage drops such packets.
    to: Option<PortName>,
    /// Packet length, in bytes, at which the stage panics.
    panics_at: Option<usize>,
}

#[derive(Debug)]
struct LongestPlan {
    max_bytes: usize,
    to: Option<PortId>,
    panics_at: Option<usize>,
    reason: Reason,
    /// The ports that [`PlanCx`] describes, as JSON.
    summary: String,
}

impl LongestPlan {
    fn new(config: &LongestConfig, max_bytes: usize, cx: &PlanCx<'_>) -> Result<Self, PlanError> {
        let reason = Reason::register("too_long", "The packet is longer than the limit.")?;
        let to = config.to.as_ref().map(|port| port.resolve(cx)).transpose()?.map(|port| port.id);
        let ports = cx.ports.iter().map(|port| {
            let addresses: Vec<_> =
                port.addresses.iter().map(|address| (address.ip, address.prefix_len)).collect();
            let mac = port.mac.map(|mac| mac.to_string());
            json!([port.id.0, port.name, port.interface, port.queues, mac, port.mtu, addresses])
        });
        let summary = Value::Array(ports.collect()).to_string();
        Ok(Self { max_bytes, to, panics_at: config.panics_at, reason, summary })
    }
}

impl StagePlan for LongestPlan {
    fn build(&self, cx: &BuildCx<'_>) -> Box<dyn Stage> {
        let names = [cx.from_port(), cx.to_port()]
            .map(|port| port.map(|port| (&*port.name, port.mac.is_some())));
        eprintln!("hook: build {names:?}");
        let Self { max_bytes, to, panics_at, reason, .. } = *self;
        Box::new(Longest { worker: cx.worker, max_bytes, to, panics_at, reason })
    }

    fn summary(&self) -> String {
        self.summary.clone()
    }
}

/// A stage that drops or diverts packets of more than `max_bytes` bytes.
struct Longest {
    worker: usize,
    max_bytes: usize,
    to: Option<PortId>,
    panics_at: Option<usize>,
    reason: Reason,
}

impl Stage for Longest {
    fn tick(&mut self, cx: &mut Cx<'_>) {
        assert_eq!(cx.worker(), self.worker);
    }

    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        assert_eq!(cx.worker(), self.worker);
        for mut packet in view.packets() {
            assert_ne!(Some(packet.frame.len()), self.panics_at, "panic on purpose: packet length");
            match self.to {
                _ if packet.frame.len() <= self.max_bytes => {}
                Some(port) => packet.send_to(port),
                None => packet.drop(self.reason),
            }
        }
    }
}

/// Returns a configuration that forwards both ways between lan (fwd0) and wan (fwd1). The path from
/// lan to wan has the stage `longest`, with these `keys`.
fn config(socket: &Socket, queues: u16, keys: &str) -> String {
    let cores = if queues == 2 { "[0, 1]" } else { "[1]" };
    let engine = format!("cores = {cores}\ncontrol = {:?}", socket.path());
    cross_connect(queues, &engine).replacen(
        "to = \"wan\"",
        "to = \"wan\"\nstages = [\"longest\"]",
        1,
    ) + &format!("\n[stage.longest]\nkind = \"longest\"\n{keys}\n")
}

fn this_binary() -> String {
    env::current_exe().unwrap().to_str().unwrap().to_owned()
}

fn start(lab: &Chain, config: &str) -> Running {
    let program = this_binary();
    Running::try_start_as(&["env", &format!("{PROGRAM_VARIABLE}=1"), &program], lab, config)
        .unwrap_or_else(|error| panic!("{error}"))
}

fn run(arguments: &[&str]) -> Output {
    Command::new(this_binary()).env(PROGRAM_VARIABLE, "1").args(arguments).output().unwrap()
}

fn ctl(socket: &Socket, arguments: &[&str]) -> Output {
    run(&[&["ctl", "--socket", socket.path()], arguments].concat())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until `lines` lines of the log contain `text`, and checks that no more lines do.
fn wait_for_log(running: &Running, text: &str, lines: usize) {
    let deadline = Instant::now() + TIMEOUT;
    while running.count_log_lines(text) < lines {
        assert!(Instant::now() < deadline, "{text:?}: {}", running.forwarder.stderr().join("\n"));
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(running.count_log_lines(text), lines, "{text:?}");
}

fn help_and_version_name_the_program() {
    assert_eq!(text(&run(&["--version"]).stdout), "probe 9.8.7\n");
    let help = text(&run(&["--help"]).stdout);
    assert!(help.starts_with("Drops long packets"), "{help}");
    assert!(
        help.contains("Usage: probe") && help.contains("greet") && !help.contains("xdpfwd"),
        "{help}"
    );
    let help = text(&run(&["ctl", "--help"]).stdout);
    for part in ["longest:", "Set the length limit", "status:", "/run/probe.sock", "[ARGUMENT]..."]
    {
        assert!(help.contains(part), "{part}: {help}");
    }
    // The program has no filter and no ESP.
    assert!(!help.contains("rules:") && !help.contains("sa:"), "{help}");
    let unknown = run(&["ctl", "nonsense"]);
    assert_eq!(unknown.status.code(), Some(2));
    let superfluous = run(&["ctl", "status", "now"]);
    let stderr = text(&superfluous.stderr);
    assert_eq!(
        (superfluous.status.code(), &*stderr),
        (Some(2), "probe: `ctl status` takes no arguments\n")
    );
}

fn own_subcommand_receives_its_arguments() {
    let greeted = run(&["greet", "you"]);
    assert_eq!((greeted.status.code(), &*text(&greeted.stdout)), (Some(7), "hello you\n"));
}

fn ctl_commands_reach_all_workers_and_print_each_output_type() {
    let socket = Socket::new("app-update");
    let lab = build_lab(Chain::builder().queues(2));
    let running = start(&lab, &config(&socket, 2, ""));
    let send = |count| {
        let traffic = Traffic::new().rate(20_000).count(count).flows(64).core(0);
        traffic.start(lab.gen_(), "gen0").unwrap().finish(TIMEOUT).unwrap();
    };
    send(1000);
    // The generator's packets are 60 bytes long, so the new limit drops all.
    let answer: Value =
        serde_json::from_slice(&ctl(&socket, &["longest", "59", "--json"]).stdout).unwrap();
    // For each worker, a list of its stages with their old limits.
    let before = json!([[["longest", 1514]], [["longest", 1514]]]);
    assert_eq!(answer, json!({ "schema": 1, "type": "longest", "answer": before }));
    send(500);
    let status: Value =
        serde_json::from_slice(&ctl(&socket, &["status", "--json"]).stdout).unwrap();
    assert_eq!((&status["program"], &status["version"]), (&json!("probe"), &json!("9.8.7")));
    let ports: Value =
        serde_json::from_str(status["paths"][0]["stages"][0]["summary"].as_str().unwrap()).unwrap();
    for (index, (name, interface)) in [("lan", "fwd0"), ("wan", "fwd1")].into_iter().enumerate() {
        let link =
            lab.fwd().command("ip").args(["-json", "address", "show", interface]).output().unwrap();
        let link: Value = serde_json::from_slice(&link.stdout).unwrap();
        let addresses: Vec<Value> = (link[0]["addr_info"].as_array().unwrap().iter())
            .map(|address| json!([address["local"], address["prefixlen"]]))
            .collect();
        let expected =
            json!([index, name, interface, 2, link[0]["address"], link[0]["mtu"], addresses]);
        assert_eq!(ports[index], expected);
    }
    let workers: Value =
        serde_json::from_slice(&ctl(&socket, &["workers", "--json"]).stdout).unwrap();
    assert_eq!(workers["answer"], json!({ "workers": [2, 2, 2] }));
    assert_eq!(text(&ctl(&socket, &["names"]).stdout), "one\ntwo\n");
    assert_eq!(text(&ctl(&socket, &["table"]).stdout), "name  sent (packets)\nwan   7\n");
    let run_limit =
        |arguments: &[&str]| text(&ctl(&socket, &[&["limit"], arguments].concat()).stdout);
    assert_eq!(run_limit(&["set", "9"]), "[\n  9,\n  \"bytes\"\n]\n");
    assert_eq!(run_limit(&["--", "set", "--unit", "B", "9"]), "[\n  9,\n  \"B\"\n]\n");
    let help = run_limit(&["help"]);
    assert!(
        help.contains("Usage: probe ctl limit <COMMAND>") && help.contains("Sets the limit"),
        "{help}"
    );
    let (exit, final_report) = running.stop();
    assert_eq!(exit.status.code(), Some(0));
    final_report.assert_frames_and_packets_add_up();
    assert_eq!(
        (&final_report.json["program"], &final_report.json["version"]),
        (&json!("probe"), &json!("9.8.7"))
    );
    assert_eq!(
        (final_report.parsed.drops["too_long"], final_report.parsed.transmitted()),
        (500, 1000),
        "{}",
        final_report.json
    );
}

fn failed_ctl_command_returns_its_error() {
    let socket = Socket::new("app-fails");
    let lab = build_lab(Chain::builder());
    let mut running = start(&lab, &config(&socket, 1, ""));
    for (arguments, expected) in [
        (&["panic"][..], "probe: panicked: on purpose\n"),
        (&["longest"], "probe: expected bytes\n"),
        (&["limit", "show"], "probe: there is no limit\n"),
        (
            &["limit", "set", "many"],
            "probe: invalid value 'many' for '<BYTES>': invalid digit found in string\n",
        ),
        (&["longest", "many"], "probe: invalid digit found in string\n"),
    ] {
        let output = ctl(&socket, arguments);
        assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(1), expected));
    }
    for (request, error) in [
        (&br#"{"command":"nothing"}"#[..], "unknown command \"nothing\""),
        (br#"{"command":"status","arguments":["now"]}"#, "`status` takes no arguments"),
    ] {
        assert_eq!(socket.send_raw(&[request, b"\n"].concat())["error"], error);
    }
    Traffic::new()
        .rate(10_000)
        .count(100)
        .core(0)
        .start(lab.gen_(), "gen0")
        .unwrap()
        .finish(TIMEOUT)
        .unwrap();
    assert!(ctl(&socket, &["end"]).status.success());
    running.wait();
    assert_eq!(running.count_log_lines("hook: stop, sent Ok(100)"), 1);
    assert_eq!(running.count_log_lines("hook: stopped, sent 100"), 1);
    let (exit, final_report) = running.stop();
    assert_eq!(
        (exit.status.code(), exit.killed, final_report.parsed.transmitted()),
        (Some(0), false, 100)
    );
}

fn reload_runs_commit_hook_and_failed_reload_runs_rollback_hook() {
    let socket = Socket::new("app-reload");
    let lab = build_lab(Chain::builder());
    let running = start(&lab, &config(&socket, 1, ""));
    assert_eq!(running.count_log_lines("hook: start, 1 worker(s)"), 1);
    assert_eq!(
        running.count_log_lines(r#"hook: build [Some(("lan", true)), Some(("wan", true))]"#),
        1
    );
    running.reload("reloaded");
    wait_for_log(&running, "hook: commit", 1);
    running.config.write(&config(&socket, 1, "to = \"dmz\""));
    running.reload("not reloaded");
    let error = r#":23:6: no port is called "dmz"; the ports are: "lan", "wan""#;
    wait_for_log(&running, error, 1);
    wait_for_log(&running, "hook: rollback: not reloaded", 1);
    assert_eq!(running.count_log_lines("hook: commit"), 1);
    running.config.write(&config(&socket, 1, "to = \"lan\""));
    assert!(ctl(&socket, &["again"]).status.success());
    wait_for_log(&running, "hook: commit", 2);
    // Packets longer than the limit go to the reloaded file's port `to`.
    assert!(ctl(&socket, &["longest", "59"]).status.success());
    Traffic::new()
        .rate(10_000)
        .count(200)
        .core(0)
        .start(lab.gen_(), "gen0")
        .unwrap()
        .finish(TIMEOUT)
        .unwrap();
    let (exit, final_report) = running.stop();
    assert_eq!(exit.status.code(), Some(0));
    assert_eq!(final_report.parsed.port("fwd0").unwrap().tx_packets, 200, "{}", final_report.json);
}

fn failed_start_hook_stops_the_program() {
    let socket = Socket::new("app-start");
    let lab = build_lab(Chain::builder());
    let config = support::Config::new(&config(&socket, 1, ""));
    let mut command = lab.fwd().command(&this_binary());
    let output = command
        .env(PROGRAM_VARIABLE, "fails")
        .args(["--config", config.path(), "--json"])
        .output()
        .unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let hooks: Vec<_> = stderr.lines().filter(|line| line.starts_with("hook: stop")).collect();
    assert_eq!(hooks, ["hook: stop, sent Ok(0)", "hook: stopped, sent 0"], "{stderr}");
    assert!(stderr.contains("\nprobe: cannot start probe: requested by the test\n"), "{stderr}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["type"], &report["program"]), (&json!("final"), &json!("probe")));
    let links = lab.fwd().command("ip").args(["link", "show"]).output().unwrap();
    assert!(!text(&links.stdout).contains("prog/xdp"), "{links:?}");
}

fn worker_panic_runs_the_stop_hooks() {
    let socket = Socket::new("app-panic");
    let lab = build_lab(Chain::builder());
    let mut running = start(&lab, &config(&socket, 1, "panics_at = 60"));
    let generator = Traffic::new().rate(10_000).core(0).start(lab.gen_(), "gen0").unwrap();
    running.wait();
    assert_eq!(
        (running.count_log_lines("hook: stop,"), running.count_log_lines("hook: stopped,")),
        (1, 1)
    );
    let (exit, _) = running.stop();
    generator.stop().unwrap();
    assert_eq!(exit.status.code(), Some(1));
}
