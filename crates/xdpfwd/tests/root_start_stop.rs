//! Tests start, stop and their failures. Needs root.

mod support;

use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{Config, Running, TIMEOUT, XDPFWD, chain, cross_connect, stderr};
use xdpfwd_lab::{BpfObjects, Chain, NamespaceGuard, Traffic, pinned_pages};
use xdpfwd_testkit::Folder;

/// Runs xdpfwd in the lab's middle namespace until it ends.
fn run(chain: &Chain, config: &str, arguments: &[&str]) -> Output {
    let config = Config::new(config);
    let mut command = chain.fwd().command(XDPFWD);
    command.args(["--config", config.path(), "--duration", "0.3"]).args(arguments).output().unwrap()
}

/// Returns the mode of the XDP program on an interface of the middle namespace, if there is one.
fn xdp_on(chain: &Chain, interface: &str) -> Option<String> {
    let output =
        chain.fwd().command("ip").args(["-json", "link", "show", interface]).output().unwrap();
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    links[0]["xdp"]["mode"].as_u64().map(|mode| match mode {
        1 => "native".into(),
        2 => "skb".into(),
        other => other.to_string(),
    })
}

#[test]
fn each_mode_attaches_and_reports_as_configured() {
    let chain = chain(Chain::builder());
    for (configured, used, attached) in
        [("auto", "copy", "native"), ("copy", "copy", "native"), ("skb", "skb", "skb")]
    {
        let running =
            Running::start(&chain, &cross_connect(1, &format!("mode = \"{configured}\"")));
        assert_eq!(xdp_on(&chain, "fwd0").as_deref(), Some(attached), "{configured}");
        let (_, last) = running.stop();
        for port in &last.report.ports {
            assert_eq!(port.mode, used, "configured: {configured}");
        }
        let fallback = &last.json["fallback"];
        if configured == "auto" {
            assert_eq!(
                (fallback["port"].as_str(), fallback["lacks"].as_str()),
                (Some("lan"), Some("zero-copy"))
            );
        } else {
            assert!(fallback.is_null(), "{fallback}");
        }
        assert_eq!(
            (xdp_on(&chain, "fwd0"), xdp_on(&chain, "fwd1")),
            (None, None),
            "XDP programs after the end of the process"
        );
    }
    // veth does not support zero-copy, so requiring it fails.
    let output = run(&chain, &cross_connect(1, "mode = \"zero-copy\""), &[]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("cannot bind fwd0 queue 0 in zero-copy mode"),
        "{}",
        stderr(&output)
    );
    assert_eq!((xdp_on(&chain, "fwd0"), xdp_on(&chain, "fwd1")), (None, None));
}

/// Returns the kernel's promiscuity count of an interface.
fn promiscuity(chain: &Chain, interface: &str) -> u64 {
    let output = chain
        .fwd()
        .command("ip")
        .args(["-json", "-details", "link", "show", interface])
        .output()
        .unwrap();
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    links[0]["promiscuity"].as_u64().unwrap()
}

/// A NIC drops packets to other MAC addresses unless it is promiscuous. Interfaces are
/// promiscuous until xdpfwd ends, even by SIGKILL; with `promiscuous = false`, never.
#[test]
fn interfaces_are_promiscuous_only_while_xdpfwd_runs() {
    let chain = chain(Chain::builder());
    let both = |chain: &Chain| ["fwd0", "fwd1"].map(|interface| promiscuity(chain, interface));
    let config = cross_connect(1, "");
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let mut running = Running::start(&chain, &config);
        assert_eq!(both(&chain), [1, 1]);
        running.signal(signal);
        running.wait();
        assert_eq!(both(&chain), [0, 0], "after {signal}");
    }
    let one = config.replacen("queues = 1", "queues = 1\npromiscuous = false", 1);
    let running = Running::start(&chain, &one);
    assert_eq!(both(&chain), [0, 1]);
    running.stop();
}

#[test]
fn sigkill_detaches_program_and_restart_binds() {
    for mode in ["auto", "skb"] {
        let chain = chain(Chain::builder());
        let config = cross_connect(1, &format!("mode = \"{mode}\""));
        let generator = Traffic::new().core(0).start(chain.gen_(), "gen0").unwrap();
        let running = Running::start(&chain, &config);
        thread::sleep(Duration::from_millis(300));
        running.signal(Signal::SIGKILL);
        let killed = Instant::now();
        let mut forwarder = running.forwarder;
        assert!(forwarder.stop(TIMEOUT).unwrap().status.code().is_none(), "not ended by a signal");
        assert_eq!((xdp_on(&chain, "fwd0"), xdp_on(&chain, "fwd1")), (None, None), "mode {mode}");
        let again = Running::start(&chain, &config);
        println!(
            "mode {mode}: forwarding again {:?} after SIGKILL, first report included",
            killed.elapsed()
        );
        let (ended, last) = again.stop();
        assert!(ended.status.success());
        assert!(last.report.port("fwd0").unwrap().rx_packets > 0, "{}", last.json);
        last.assert_conserved();
        generator.stop().unwrap();
    }
}

#[test]
fn hundred_restarts_under_load_leave_no_kernel_object() {
    start_and_stop_under_load(100);
}

#[test]
#[ignore = "long: make test-long"]
fn thousand_restarts_under_load_leave_no_kernel_object() {
    start_and_stop_under_load(1000);
}

fn start_and_stop_under_load(runs: u64) {
    let chain = chain(Chain::builder());
    let guard = NamespaceGuard::new(chain.fwd()).unwrap();
    let generator = Traffic::new().core(0).start(chain.gen_(), "gen0").unwrap();
    let config = cross_connect(1, "cores = [1]");
    let pinned = pinned_pages().unwrap();
    let mut used = BpfObjects::default();
    let mut sent = 0;
    for run in 0..runs {
        let mut running = Running::start(&chain, &config);
        used.add(BpfObjects::of_process(running.forwarder.pid()).unwrap());
        if run % 2 == 1 {
            running.signal(Signal::SIGTERM);
            running.wait();
        }
        let (ended, last) = running.stop();
        assert_eq!((ended.status.code(), ended.killed), (Some(0), false), "run {run}");
        last.assert_conserved();
        sent += last.report.port("fwd1").unwrap().tx_packets;
    }
    generator.stop().unwrap();
    assert!(sent > 0, "no load: xdpfwd sent no packet");
    assert!(
        used.count() as u64 >= 2 * 4 * runs,
        "BPF objects used, at least a program, a link and two maps for each port: {}",
        used.count()
    );
    used.wait_until_gone(TIMEOUT).unwrap();
    // No socket and no packet memory is left; a UMEM here is 8192 pages. Other processes pin memory
    // too, so the limit only detects a leak in every tenth run or more.
    drop(chain);
    guard.wait_until_gone(TIMEOUT).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while pinned_pages().unwrap() > pinned + 8192 * runs / 10 {
        assert!(
            Instant::now() < deadline,
            "{pinned} pages pinned before, {} after",
            pinned_pages().unwrap()
        );
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn second_instance_is_rejected_and_names_the_first() {
    let chain = chain(Chain::builder());
    for mode in ["auto", "skb"] {
        let config = cross_connect(1, &format!("mode = \"{mode}\""));
        let mut first = Running::start(&chain, &config);
        let output = run(&chain, &config, &[]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let pid = first.forwarder.pid();
        for text in [
            "fwd0 is busy: XDP program ".to_owned(),
            format!("\"xdpfwd\" is attached to fwd0, held by xdpfwd (pid {pid})"),
            format!("`kill {pid}`"),
        ] {
            assert!(stderr(&output).contains(&text), "{}", stderr(&output));
        }
        first.forwarder.check_running().unwrap();
        first.signal(Signal::SIGTERM); // what `kill` does
        first.wait();
        assert_eq!(
            run(&chain, &config, &[]).status.code(),
            Some(0),
            "exit code of a run after the first ended"
        );
        let (_, last) = first.stop();
        last.assert_conserved();
    }
}

/// With only the required capabilities, xdpfwd cannot see which process holds a program. The error
/// says so, and has a command that detaches the program.
#[test]
fn busy_error_without_privilege_says_holder_is_not_visible() {
    let chain = chain(Chain::builder());
    let first = Running::start(&chain, &cross_connect(1, ""));
    let config = Config::new(&cross_connect(1, ""));
    let capabilities = "-all,+net_admin,+net_raw,+bpf,+perfmon";
    let mut command = chain.fwd().command("setpriv");
    command.args([
        "--bounding-set",
        capabilities,
        "--inh-caps",
        capabilities,
        XDPFWD,
        "--config",
        config.path(),
    ]);
    let text = stderr(&command.output().unwrap());
    first.stop();
    assert!(
        text.contains("fwd0 is busy: XDP program ") && text.contains("not visible to this process"),
        "{text}"
    );
    assert!(text.contains("`ip link set dev fwd0 xdp off`"), "{text}");
}

/// The queue is used by an AF_XDP socket of this process, without an XDP program.
#[test]
fn busy_queue_error_names_possible_holder() {
    let chain = chain(Chain::builder());
    let hold_and_run = || {
        let index = nix::net::if_::if_nametoindex("fwd1").unwrap();
        let umem = xdpfwd_xsk::UmemConfig {
            frames: 256,
            huge_pages: xdpfwd_xsk::HugePages::Off,
            ..xdpfwd_xsk::UmemConfig::default()
        };
        let holder = xdpfwd_xsk::Builder::new(umem)
            .mode(xdpfwd_xsk::BindMode::Copy)
            .queue("fwd1", index, 0)
            .open()
            .unwrap();
        let output = run(&chain, &cross_connect(1, ""), &[]);
        drop(holder);
        (output, run(&chain, &cross_connect(1, ""), &[]))
    };
    let (output, after) = chain.fwd().run(hold_and_run).unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("worker 0: cannot bind fwd1 queue 0: another AF_XDP socket uses this queue"),
        "{text}"
    );
    // xdpfwd finds this process although only one of its threads is in the namespace of fwd1. Other
    // processes may have sockets, too.
    assert!(text.contains(&format!("root_start_stop (pid {})", std::process::id())), "{text}");
    assert_eq!(xdp_on(&chain, "fwd0"), None, "an XDP program is still attached after the error");
    assert_eq!(after.status.code(), Some(0), "{}", stderr(&after));
}

#[test]
fn missing_interface_error_lists_existing_ones() {
    let chain = chain(Chain::builder());
    let no_such = cross_connect(1, "").replace("fwd1", "fwd9");
    let output = run(&chain, &no_such, &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("port wan: no interface fwd9") && text.contains("fwd0, fwd1"), "{text}");
    assert_eq!(xdp_on(&chain, "fwd0"), None, "an XDP program is still attached after the error");
}

/// A non-root user with a small memory lock limit needs exactly the capabilities that errors and
/// documents name; an error names the missing one.
#[test]
fn named_capabilities_are_sufficient_and_necessary() {
    let chain = chain(Chain::builder());
    let config = Config::new(&cross_connect(1, ""));
    // Copy the binary: other users may not be able to read the build output.
    let folder = Folder::shared();
    let (binary, file) = (folder.join("xdpfwd"), folder.join("fw.toml"));
    std::fs::copy(XDPFWD, &binary).unwrap();
    std::fs::copy(config.path(), &file).unwrap();
    let run = |capabilities: &[&str]| {
        let only = |sign: &str| {
            capabilities.iter().fold("-all".to_owned(), |all, name| format!("{all},{sign}{name}"))
        };
        let mut command = chain.fwd().command("setpriv");
        command.args(["--reuid", "65534", "--clear-groups", "--bounding-set", &only("+")]);
        command.args(["--inh-caps", &only("+"), "--ambient-caps", &only("+")]);
        command.args(["prlimit", "--memlock=65536"]).arg(&binary).arg("--config").arg(&file);
        command.args(["--duration", "0.2"]).output().unwrap()
    };
    let all = ["net_admin", "net_raw", "bpf", "perfmon", "ipc_lock"];
    let with_all = run(&all);
    let without_one = all
        .map(|left_out| run(&all.into_iter().filter(|name| *name != left_out).collect::<Vec<_>>()));
    assert!(with_all.status.success(), "{}", stderr(&with_all));
    for (output, left_out) in without_one.iter().zip(all) {
        let text = stderr(output);
        assert_eq!(output.status.code(), Some(3), "without {left_out}: {text}");
        assert!(
            text.to_lowercase().contains(&format!("cap_{left_out}")),
            "without {left_out}: {text}"
        );
        assert!(!text.contains("libbpf:"), "{text}");
    }
}

#[test]
fn start_without_privilege_prints_setcap_command() {
    let chain = chain(Chain::builder());
    let config = Config::new(&cross_connect(1, ""));
    let mut command = chain.fwd().command("setpriv");
    command.args([
        "--bounding-set",
        "-all",
        "--inh-caps",
        "-all",
        XDPFWD,
        "--config",
        config.path(),
    ]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("setcap"), "{}", stderr(&output));
}

#[test]
fn duration_sigint_and_sigterm_stop_with_status_0() {
    let chain = chain(Chain::builder());
    for arguments in [&["--json"][..], &[]] {
        let output = run(&chain, &cross_connect(1, ""), arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        if arguments.is_empty() {
            assert!(text.contains("leaked 0") && text.contains("lan"), "{text}");
        } else {
            let last: serde_json::Value =
                serde_json::from_str(text.lines().last().unwrap()).unwrap();
            assert_eq!((last["schema"].as_u64(), last["type"].as_str()), (Some(1), Some("final")));
        }
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut running = Running::start(&chain, &cross_connect(1, ""));
        running.signal(signal);
        running.wait();
        let (ended, last) = running.stop();
        assert_eq!(ended.status.code(), Some(0), "{signal}");
        last.assert_conserved();
    }
}

/// A reader that keeps the pipe open without reading must not delay signals.
#[test]
fn unread_pipe_does_not_delay_sigterm() {
    let chain = chain(Chain::builder());
    let config = Config::new(&cross_connect(1, ""));
    let mut command = chain.fwd().command(XDPFWD);
    command.args(["--config", config.path(), "--json", "--interval", "0.001"]);
    // Reports and log share one pipe, as with `2>&1 |`.
    let (_unread, pipe) = std::io::pipe().unwrap();
    let mut child = command.stdout(pipe.try_clone().unwrap()).stderr(pipe).spawn().unwrap();
    thread::sleep(Duration::from_secs(1)); // far more than a pipe holds
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("xdpfwd did not end within {TIMEOUT:?} after SIGTERM");
        }
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(0));
}

/// A slow reader that resumes reading receives the final report.
#[test]
fn final_report_reaches_slow_reader() {
    let chain = chain(Chain::builder());
    let config = Config::new(&cross_connect(1, ""));
    let mut command = chain.fwd().command(XDPFWD);
    command.args(["--config", config.path(), "--json", "--interval", "0.001"]);
    let child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_secs(1));
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().last().unwrap().contains(r#""type":"final""#), "{}", text.len());
    assert!(output.status.success());
}

#[test]
fn renamed_interface_does_not_stop_xdpfwd() {
    let chain = chain(Chain::builder());
    let running = Running::start(&chain, &cross_connect(1, ""));
    let rename = chain
        .fwd()
        .command("ip")
        .args(["link", "set", "dev", "fwd1", "name", "other"])
        .output()
        .unwrap();
    assert!(rename.status.success(), "{rename:?}");
    thread::sleep(Duration::from_millis(1500)); // longer than the 1 s between checks of interfaces
    let (ended, last) = running.stop();
    assert_eq!(ended.status.code(), Some(0));
    last.assert_conserved();
}

#[test]
fn deleted_interface_ends_run_with_report_and_status_1() {
    let chain = chain(Chain::builder());
    let mut running = Running::start(&chain, &cross_connect(1, ""));
    chain.fwd().command("ip").args(["link", "del", "dev", "fwd1"]).status().unwrap();
    running.wait();
    let stderr = running.forwarder.stderr().join("\n");
    let (ended, last) = running.stop();
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("port wan: interface fwd1 has disappeared"), "{stderr}");
    assert_eq!(last.json["frames"]["leaked"], 0, "{}", last.json);
}

/// Forwarding continues after the reader of the reports closes the pipe.
#[test]
fn closed_stdout_does_not_stop_forwarding() {
    let chain = chain(Chain::builder());
    let config = Config::new(&cross_connect(1, ""));
    let mut shell = chain.fwd().command("sh");
    let script = format!(
        "{XDPFWD} --config {} --interval 0.05 --duration 1 | head -n 1; exit",
        config.path()
    );
    let output = shell.args(["-c", &script]).output().unwrap();
    assert!(stderr(&output).contains("forwarding continues"), "{output:?}");
}

#[test]
fn each_frame_size_and_idle_mode_forwards() {
    for (engine, umem) in [
        ("idle = \"spin\"\ncores = [1]", "frame_size = 2048"),
        ("busy_poll = true", "frame_size = 2048\nhuge_pages = \"off\""),
        ("", "frame_size = 4096\nframes = 1024"),
    ] {
        let chain = chain(Chain::builder());
        let config = cross_connect(1, engine) + &format!("\n[umem]\n{umem}\n");
        let running = Running::start(&chain, &config);
        let generator = Traffic::new()
            .size(600)
            .rate(10_000)
            .count(2_000)
            .core(0)
            .start(chain.gen_(), "gen0")
            .unwrap();
        generator.finish(TIMEOUT).unwrap();
        let (_, last) = running.stop();
        last.assert_conserved();
        assert_eq!(
            last.report.port("fwd1").unwrap().tx_packets,
            2_000,
            "{engine} {umem}: {}",
            last.json
        );
    }
}

#[test]
fn busy_poll_restores_interface_settings_on_stop() {
    let chain = chain(Chain::builder());
    let read = || {
        let mut command = chain.fwd().command("cat");
        let paths =
            ["/sys/class/net/fwd0/napi_defer_hard_irqs", "/sys/class/net/fwd0/gro_flush_timeout"];
        String::from_utf8(command.args(paths).output().unwrap().stdout).unwrap()
    };
    let before = read();
    let running = Running::start(&chain, &cross_connect(1, "busy_poll = true"));
    let during = read();
    running.stop();
    assert_eq!((during.as_str(), read()), ("2\n200000\n", before));
}
