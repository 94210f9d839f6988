//! Tests start, stop, errors at start, and the release of all resources. Needs root.
//!
//! [`build_lab`] connects gen0 to fwd0 and fwd1 to sink0. `cross_connect(queues, engine)` returns a
//! configuration that forwards between fwd0 and fwd1, with `engine` in its table `[engine]`.

mod support;

use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{
    Config, Running, TIMEOUT, XDPFWD, build_lab, cross_connect, cross_connect_io, stderr,
};
use xdpfwd_lab::{BpfObjects, Chain, NamespaceGuard, Traffic, pinned_pages};
use xdpfwd_testkit::Folder;

/// Runs xdpfwd for 0.3 s, or until it fails.
fn run(lab: &Chain, config: &str, arguments: &[&str]) -> Output {
    let config = Config::new(config);
    let mut command = lab.fwd().command(XDPFWD);
    command.args(["--config", config.path(), "--duration", "0.3"]).args(arguments).output().unwrap()
}

fn xdp_mode(lab: &Chain, interface: &str) -> Option<String> {
    let output =
        lab.fwd().command("ip").args(["-json", "link", "show", interface]).output().unwrap();
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    links[0]["xdp"]["mode"].as_u64().map(|mode| match mode {
        1 => "native".into(),
        2 => "skb".into(),
        other => other.to_string(),
    })
}

#[test]
fn each_configured_mode_attaches_program_and_is_reported() {
    let lab = build_lab(Chain::builder());
    for (configured, used, attached) in
        [("auto", "copy", "native"), ("copy", "copy", "native"), ("skb", "skb", "skb")]
    {
        let running = Running::start(&lab, &cross_connect(1, &format!("mode = \"{configured}\"")));
        assert_eq!(xdp_mode(&lab, "fwd0").as_deref(), Some(attached), "{configured}");
        let (_, final_report) = running.stop();
        for port in &final_report.parsed.ports {
            assert_eq!(port.mode, used, "configured: {configured}");
        }
        let fallback = &final_report.json["fallback"];
        if configured == "auto" {
            assert_eq!(
                (fallback["port"].as_str(), fallback["lacks"].as_str()),
                (Some("lan"), Some("zero-copy"))
            );
        } else {
            assert!(fallback.is_null(), "{fallback}");
        }
        assert_eq!(
            (xdp_mode(&lab, "fwd0"), xdp_mode(&lab, "fwd1")),
            (None, None),
            "an XDP program is still attached after the end of xdpfwd"
        );
    }
    // veth has no zero-copy.
    let output = run(&lab, &cross_connect(1, "mode = \"zero-copy\""), &[]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("cannot bind fwd0 queue 0 in zero-copy mode"),
        "{}",
        stderr(&output)
    );
    assert_eq!((xdp_mode(&lab, "fwd0"), xdp_mode(&lab, "fwd1")), (None, None));
}

fn promiscuity(lab: &Chain, interface: &str) -> u64 {
    let output = lab
        .fwd()
        .command("ip")
        .args(["-json", "-details", "link", "show", interface])
        .output()
        .unwrap();
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    links[0]["promiscuity"].as_u64().unwrap()
}

/// A NIC drops packets to other MAC addresses unless it is promiscuous.
#[test]
fn interfaces_are_promiscuous_only_while_xdpfwd_runs() {
    let lab = build_lab(Chain::builder());
    let promiscuity_counts =
        |lab: &Chain| ["fwd0", "fwd1"].map(|interface| promiscuity(lab, interface));
    let config = cross_connect(1, "");
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let mut running = Running::start(&lab, &config);
        assert_eq!(promiscuity_counts(&lab), [1, 1]);
        running.signal(signal);
        running.wait();
        assert_eq!(promiscuity_counts(&lab), [0, 0], "after {signal}");
    }
    let lan_not_promiscuous = config.replacen("queues = 1", "queues = 1\npromiscuous = false", 1);
    let running = Running::start(&lab, &lan_not_promiscuous);
    assert_eq!(promiscuity_counts(&lab), [0, 1]);
    running.stop();
}

#[test]
fn sigkill_detaches_program_and_restart_forwards() {
    for mode in ["auto", "skb"] {
        let lab = build_lab(Chain::builder());
        let config = cross_connect(1, &format!("mode = \"{mode}\""));
        let generator = Traffic::new().core(0).start(lab.gen_(), "gen0").unwrap();
        let running = Running::start(&lab, &config);
        thread::sleep(Duration::from_millis(300));
        running.signal(Signal::SIGKILL);
        let killed = Instant::now();
        let mut forwarder = running.forwarder;
        assert!(
            forwarder.stop(TIMEOUT).unwrap().status.code().is_none(),
            "xdpfwd was not ended by a signal"
        );
        assert_eq!((xdp_mode(&lab, "fwd0"), xdp_mode(&lab, "fwd1")), (None, None), "mode {mode}");
        let restarted = Running::start(&lab, &config);
        println!(
            "mode {mode}: forwarding again {:?} after SIGKILL, first report included",
            killed.elapsed()
        );
        let (exit, final_report) = restarted.stop();
        assert!(exit.status.success());
        assert!(final_report.parsed.port("fwd0").unwrap().rx_packets > 0, "{}", final_report.json);
        final_report.assert_frames_and_packets_add_up();
        generator.stop().unwrap();
    }
}

/// A killed process leaves packets in rings and socket buffers. The next one must not see them.
#[test]
fn sigkill_under_overload_and_restart_forwards_with_packet_sockets() {
    for io in ["packet", "packet-mmsg", "packet-mmap"] {
        let lab = build_lab(Chain::builder());
        let config = cross_connect_io(io, io, 1, "cores = [1]");
        let generator = Traffic::new().size(60).core(0).start(lab.gen_(), "gen0").unwrap();
        let mut running = Running::start(&lab, &config);
        running
            .forwarder
            .wait_for_line(TIMEOUT, |line| forwarded(line).is_some_and(|packets| packets > 10_000))
            .unwrap();
        running.signal(Signal::SIGKILL);
        assert!(running.forwarder.stop(TIMEOUT).unwrap().status.code().is_none());
        let mut restarted = Running::start(&lab, &config);
        restarted
            .forwarder
            .wait_for_line(TIMEOUT, |line| forwarded(line).is_some_and(|packets| packets > 10_000))
            .unwrap();
        let (exit, final_report) = restarted.stop();
        assert!(exit.status.success(), "{io}: {exit:?}");
        final_report.assert_frames_and_packets_add_up();
        generator.stop().unwrap();
    }
}

/// Returns the packets that the port wan has sent, by a line of JSON.
fn forwarded(line: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(line).ok()?["ports"][1]["tx_packets"].as_u64()
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
    let lab = build_lab(Chain::builder());
    // Detects whether the kernel has freed the namespace.
    let guard = NamespaceGuard::new(lab.fwd()).unwrap();
    let generator = Traffic::new().core(0).start(lab.gen_(), "gen0").unwrap();
    let config = cross_connect(1, "cores = [1]");
    let pinned = pinned_pages().unwrap();
    let mut bpf_objects = BpfObjects::default();
    let mut sent = 0;
    for run in 0..runs {
        let mut running = Running::start(&lab, &config);
        bpf_objects.add(BpfObjects::of_process(running.forwarder.pid()).unwrap());
        if run % 2 == 1 {
            running.signal(Signal::SIGTERM);
            running.wait();
        }
        let (exit, final_report) = running.stop();
        assert_eq!((exit.status.code(), exit.killed), (Some(0), false), "run {run}");
        final_report.assert_frames_and_packets_add_up();
        sent += final_report.parsed.port("fwd1").unwrap().tx_packets;
    }
    generator.stop().unwrap();
    assert!(sent > 0, "no load: xdpfwd sent no packet");
    assert!(
        bpf_objects.count() as u64 >= 2 * 4 * runs,
        "in all runs, xdpfwd used only {} BPF objects; each run needs four per port",
        bpf_objects.count()
    );
    bpf_objects.wait_until_gone(TIMEOUT).unwrap();
    drop(lab);
    guard.wait_until_gone(TIMEOUT).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    // A run pins 8192 pages. Other processes pin pages too, so the check finds a leak only if more
    // than one run in ten leaks.
    while pinned_pages().unwrap() > pinned + 8192 * runs / 10 {
        assert!(
            Instant::now() < deadline,
            "{pinned} pages were pinned before the runs, but {} are after the runs",
            pinned_pages().unwrap()
        );
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn second_instance_is_rejected_with_pid_of_first() {
    let lab = build_lab(Chain::builder());
    for mode in ["auto", "skb"] {
        let config = cross_connect(1, &format!("mode = \"{mode}\""));
        let mut first = Running::start(&lab, &config);
        let output = run(&lab, &config, &[]);
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
        first.signal(Signal::SIGTERM); // which the printed `kill` would send
        first.wait();
        assert_eq!(
            run(&lab, &config, &[]).status.code(),
            Some(0),
            "exit code of an instance that starts after the first has ended"
        );
        let (_, final_report) = first.stop();
        final_report.assert_frames_and_packets_add_up();
    }
}

/// With only the required capabilities, xdpfwd cannot see which process holds the XDP program.
#[test]
fn busy_error_without_privilege_states_that_holder_is_not_visible() {
    let lab = build_lab(Chain::builder());
    let first = Running::start(&lab, &cross_connect(1, ""));
    let config = Config::new(&cross_connect(1, ""));
    let capabilities = "-all,+net_admin,+net_raw,+bpf,+perfmon";
    let mut command = lab.fwd().command("setpriv");
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

/// An AF_XDP socket of the test process uses the queue, without an XDP program.
#[test]
fn busy_queue_error_names_possible_holder() {
    let lab = build_lab(Chain::builder());
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
        let output = run(&lab, &cross_connect(1, ""), &[]);
        drop(holder);
        (output, run(&lab, &cross_connect(1, ""), &[]))
    };
    let (output, output_after_release) = lab.fwd().run(hold_and_run).unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("worker 0: cannot bind fwd1 queue 0: another AF_XDP socket uses this queue"),
        "{text}"
    );
    // A thread of the test process is in fwd1's namespace, so the error adds no `, in another
    // network namespace`. It may also name other processes with AF_XDP sockets.
    assert!(text.contains(&format!("root_start_stop (pid {})", std::process::id())), "{text}");
    assert_eq!(xdp_mode(&lab, "fwd0"), None, "an XDP program is still attached after the error");
    assert_eq!(output_after_release.status.code(), Some(0), "{}", stderr(&output_after_release));
}

#[test]
fn missing_interface_warning_lists_existing_interfaces() {
    let lab = build_lab(Chain::builder());
    let no_such = cross_connect(1, "").replace("fwd1", "fwd9");
    // `run` ends xdpfwd after a short time, so this start, which waits for fwd9, has exit code 0.
    let output = run(&lab, &no_such, &[]);
    assert_eq!(output.status.code(), Some(0));
    let text = stderr(&output);
    assert!(text.contains("the interface does not exist; waiting until it appears"), "{text}");
    assert!(text.contains("existing=\"lo, fwd0, fwd1\""), "{text}");
    assert_eq!(
        xdp_mode(&lab, "fwd0"),
        None,
        "an XDP program is still attached after the end of xdpfwd"
    );
}

/// Runs xdpfwd as another user than root and with a small memory lock limit, with the capabilities
/// of README.md and with all of them but one.
#[test]
fn documented_capabilities_are_sufficient_and_necessary() {
    let lab = build_lab(Chain::builder());
    let config = Config::new(&cross_connect(1, ""));
    let folder = Folder::shared();
    let (binary, file) = (folder.join("xdpfwd"), folder.join("fw.toml"));
    std::fs::copy(XDPFWD, &binary).unwrap();
    std::fs::copy(config.path(), &file).unwrap();
    let run = |capabilities: &[&str]| {
        let capability_list = |sign: &str| {
            capabilities.iter().fold("-all".to_owned(), |all, name| format!("{all},{sign}{name}"))
        };
        let mut command = lab.fwd().command("setpriv");
        command.args([
            "--reuid",
            "65534",
            "--clear-groups",
            "--bounding-set",
            &capability_list("+"),
        ]);
        command.args([
            "--inh-caps",
            &capability_list("+"),
            "--ambient-caps",
            &capability_list("+"),
        ]);
        command.args(["prlimit", "--memlock=65536"]).arg(&binary).arg("--config").arg(&file);
        command.args(["--duration", "0.2"]).output().unwrap()
    };
    let all = ["net_admin", "net_raw", "bpf", "perfmon", "ipc_lock"];
    let with_all = run(&all);
    let without_one = all
        .map(|missing| run(&all.into_iter().filter(|name| *name != missing).collect::<Vec<_>>()));
    assert!(with_all.status.success(), "{}", stderr(&with_all));
    for (output, missing) in without_one.iter().zip(all) {
        let text = stderr(output);
        assert_eq!(output.status.code(), Some(3), "without {missing}: {text}");
        assert!(
            text.to_lowercase().contains(&format!("cap_{missing}")),
            "without {missing}: {text}"
        );
        assert!(!text.contains("libbpf:"), "{text}");
    }
}

#[test]
fn start_without_privilege_prints_setcap_command() {
    let lab = build_lab(Chain::builder());
    let config = Config::new(&cross_connect(1, ""));
    let mut command = lab.fwd().command("setpriv");
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
    let text = stderr(&output);
    let position = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part:?}: {text}"));
    // The file must be restricted to the group before it gets capabilities, so that no other user
    // can execute it with them.
    assert!(position("chgrp xdpfwd ") < position("chmod 0750 "), "{text}");
    assert!(position("chmod 0750 ") < position("setcap "), "{text}");
}

/// Runs the commands of docs/operations.md from top to bottom, on copies of /etc and the folders
/// that they change.
#[cfg(feature = "esp")]
#[test]
fn documented_commands_let_service_and_group_run_xdpfwd() {
    let operations = include_str!("../../../docs/operations.md");
    let blocks = operations.split("```sh\n").skip(1);
    let commands: String = blocks
        .filter_map(|block| block.split("```").next())
        .filter(|block| block.starts_with("sudo "))
        .collect();
    let commands = commands
        .replace("target/release/xdpfwd", XDPFWD)
        .replace("sudo -u xdpfwd-run", "as xdpfwd-run")
        .replace("sudo ", "")
        .replace("USER\n", "xdpfwd-operator\n");
    let script = format!(
        r#"
set -e
mount -t tmpfs none /mnt
mkdir /mnt/etc /mnt/bin /mnt/lib
cp -a /etc/. /mnt/etc
rm -f /mnt/etc/.pwd.lock /mnt/etc/*.lock
mount --bind /mnt/etc /etc
mount --bind /mnt/bin /usr/local/bin
mount --bind /mnt/lib /var/lib
export PATH=/usr/local/bin:$PATH
as() {{ user=$1; shift; setpriv --reuid "$user" --regid "$user" --init-groups env "$@"; }}
useradd --system --user-group xdpfwd-operator
{commands}
as xdpfwd-run /usr/local/bin/xdpfwd --version
test -z "$(getcap /usr/local/bin/xdpfwd)"
getcap /usr/local/bin/xdpfwd-caps | grep -q cap_net_admin
as xdpfwd-operator /usr/local/bin/xdpfwd-caps --version
if as xdpfwd-run /usr/local/bin/xdpfwd-caps --version; then exit 1; fi
echo done
"#
    );
    let lab = build_lab(Chain::builder());
    let output =
        lab.fwd().command("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.ends_with("done\n"), "{text}{}", stderr(&output));
}

#[test]
fn duration_sigint_and_sigterm_end_xdpfwd_with_exit_code_0() {
    let lab = build_lab(Chain::builder());
    for arguments in [&["--json"][..], &[]] {
        let output = run(&lab, &cross_connect(1, ""), arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        if arguments.is_empty() {
            assert!(text.contains("leaked 0") && text.contains("lan"), "{text}");
        } else {
            let final_report: serde_json::Value =
                serde_json::from_str(text.lines().last().unwrap()).unwrap();
            assert_eq!(
                (final_report["schema"].as_u64(), final_report["type"].as_str()),
                (Some(1), Some("final"))
            );
        }
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut running = Running::start(&lab, &cross_connect(1, ""));
        running.signal(signal);
        running.wait();
        let (exit, final_report) = running.stop();
        assert_eq!(exit.status.code(), Some(0), "{signal}");
        final_report.assert_frames_and_packets_add_up();
    }
}

#[test]
fn full_output_pipe_does_not_delay_stop_by_sigterm() {
    let lab = build_lab(Chain::builder());
    let config = Config::new(&cross_connect(1, ""));
    let mut command = lab.fwd().command(XDPFWD);
    command.args(["--config", config.path(), "--json", "--interval", "0.001"]);
    // Reports and log share a pipe that nothing reads, as with `2>&1 |`.
    let (_reader, pipe) = std::io::pipe().unwrap();
    let mut child = command.stdout(pipe.try_clone().unwrap()).stderr(pipe).spawn().unwrap();
    thread::sleep(Duration::from_secs(1)); // xdpfwd prints more than the pipe can hold
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

#[test]
fn final_report_reaches_reader_that_reads_only_after_sigterm() {
    let lab = build_lab(Chain::builder());
    let config = Config::new(&cross_connect(1, ""));
    let mut command = lab.fwd().command(XDPFWD);
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
    assert!(
        text.lines().last().unwrap().contains(r#""type":"final""#),
        "no final report in {} bytes",
        text.len()
    );
    assert!(output.status.success());
}

#[test]
fn renamed_interface_does_not_stop_xdpfwd() {
    let lab = build_lab(Chain::builder());
    let running = Running::start(&lab, &cross_connect(1, ""));
    let rename = lab
        .fwd()
        .command("ip")
        .args(["link", "set", "dev", "fwd1", "name", "other"])
        .output()
        .unwrap();
    assert!(rename.status.success(), "{rename:?}");
    thread::sleep(Duration::from_millis(1500)); // xdpfwd checks its interfaces every second
    let (exit, final_report) = running.stop();
    assert_eq!(exit.status.code(), Some(0));
    final_report.assert_frames_and_packets_add_up();
}

#[test]
fn deleted_interface_ends_xdpfwd_with_report_and_exit_code_1_if_configured() {
    let lab = build_lab(Chain::builder());
    let mut running = Running::start(&lab, &cross_connect(1, "on_port_loss = \"exit\""));
    lab.fwd().command("ip").args(["link", "del", "dev", "fwd1"]).status().unwrap();
    running.wait();
    let stderr = running.forwarder.stderr().join("\n");
    let (exit, final_report) = running.stop();
    assert_eq!(exit.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("port wan: interface fwd1 has disappeared"), "{stderr}");
    assert_eq!(final_report.json["frames"]["leaked"], 0, "{}", final_report.json);
}

#[test]
fn closed_stdout_does_not_stop_forwarding() {
    let lab = build_lab(Chain::builder());
    let config = Config::new(&cross_connect(1, ""));
    let mut shell = lab.fwd().command("sh");
    let script = format!(
        "{XDPFWD} --config {} --interval 0.05 --duration 1 | head -n 1; exit",
        config.path()
    );
    let output = shell.args(["-c", &script]).output().unwrap();
    assert!(stderr(&output).contains("forwarding continues"), "{output:?}");
}

#[test]
fn xdpfwd_forwards_with_optional_engine_and_umem_keys() {
    for (engine, umem) in [
        ("idle = \"spin\"\ncores = [1]", "frame_size = 2048"),
        ("busy_poll = true", "frame_size = 2048\nhuge_pages = \"off\""),
        ("", "frame_size = 4096\nframes = 1024"),
    ] {
        let lab = build_lab(Chain::builder());
        let config = cross_connect(1, engine) + &format!("\n[umem]\n{umem}\n");
        let running = Running::start(&lab, &config);
        let generator = Traffic::new()
            .size(600)
            .rate(10_000)
            .count(2_000)
            .core(0)
            .start(lab.gen_(), "gen0")
            .unwrap();
        generator.finish(TIMEOUT).unwrap();
        let (_, final_report) = running.stop();
        final_report.assert_frames_and_packets_add_up();
        assert_eq!(
            final_report.parsed.port("fwd1").unwrap().tx_packets,
            2_000,
            "{engine} {umem}: {}",
            final_report.json
        );
    }
}

#[test]
fn busy_poll_restores_interface_settings_on_stop() {
    let lab = build_lab(Chain::builder());
    let read_settings = || {
        let mut command = lab.fwd().command("cat");
        let paths =
            ["/sys/class/net/fwd0/napi_defer_hard_irqs", "/sys/class/net/fwd0/gro_flush_timeout"];
        String::from_utf8(command.args(paths).output().unwrap().stdout).unwrap()
    };
    let before = read_settings();
    let running = Running::start(&lab, &cross_connect(1, "busy_poll = true"));
    let during = read_settings();
    running.stop();
    // Busy polling sets napi_defer_hard_irqs to 2 and gro_flush_timeout to 200000 ns.
    assert_eq!((during.as_str(), read_settings()), ("2\n200000\n", before));
}
