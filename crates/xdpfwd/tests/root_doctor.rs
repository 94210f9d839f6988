//! Tests `xdpfwd doctor` on interfaces of the lab. Most tests create a condition, check doctor's
//! finding, apply its fix verbatim, and check that the finding is gone. Needs root.
//!
//! `fix(subject, check, level, text)` returns the fix of a finding, which must have this level and
//! contain this text. More tests of doctor: src/doctor/tests.rs, with a fake /proc and /sys, and
//! vm_doctor.rs, in the test VM.

mod support;

use std::process::Output;

use support::examination::{Examination, command_in_fix, run_shell};
use support::{Config, Running, XDPFWD, build_lab, cross_connect, stderr, until};
use xdpfwd_lab::{Chain, Namespace};
use xdpfwd_testkit::Folder;

#[test]
fn doctor_warns_of_copy_mode_unless_configured() {
    let lab = build_lab(Chain::builder());
    let with_auto_mode = Examination::run_with_config(lab.fwd(), &cross_connect(1, "cores = [1]"));
    for interface in ["fwd0", "fwd1"] {
        let fix = with_auto_mode.fix(interface, "mode", "warning", "copy: ");
        assert!(fix.contains(r#"[engine] mode = "copy""#), "{fix}");
        with_auto_mode.assert_ok(interface, "mtu");
        with_auto_mode.assert_ok(interface, "link");
        with_auto_mode.assert_ok(interface, "queues");
        with_auto_mode.assert_ok(interface, "xdp-program");
        let features =
            with_auto_mode.finding(interface, "xdp-features")["finding"].as_str().unwrap();
        assert!(features.contains("basic, redirect, ndo-xmit"), "{features}");
    }
    with_auto_mode.assert_ok("host", "capabilities");
    with_auto_mode.assert_ok("host", "cores");
    let with_copy_mode =
        Examination::run_with_config(lab.fwd(), &cross_connect(1, "cores = [1]\nmode = \"copy\""));
    with_copy_mode.assert_ok("fwd0", "mode");
    // doctor has left no program attached and no socket bound.
    let (_, final_report) = Running::start(&lab, &cross_connect(1, "")).stop();
    final_report.assert_frames_and_packets_add_up();
    let output = lab.fwd().command(XDPFWD).args(["doctor", "fwd0"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("\nfwd0\n") && text.contains("\nwill run, but not at full speed: "),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "colours, although stdout is not a terminal: {text}");
}

#[test]
fn doctor_finds_missing_or_down_interface_and_large_mtu() {
    let lab = build_lab(Chain::builder());
    let fix = Examination::run(lab.fwd(), &["eth9"]).fix(
        "eth9",
        "interface",
        "error",
        "available: lo, fwd",
    );
    assert!(fix.contains("ip link"), "{fix}");

    run_shell(lab.fwd(), "ip link set dev fwd0 down");
    let fix = Examination::run(lab.fwd(), &["fwd0"]).fix("fwd0", "link", "warning", "is down");
    run_shell(lab.fwd(), &fix);
    // The kernel may report the new state late.
    until("fwd0 is up", || {
        Examination::run(lab.fwd(), &["--no-probe", "fwd0"]).finding("fwd0", "link")["level"]
            == "ok"
    });

    run_shell(lab.gen_(), "ip link set dev gen0 mtu 3000");
    run_shell(lab.fwd(), "ip link set dev fwd0 mtu 3000");
    let fix = Examination::run(lab.fwd(), &["fwd0"]).fix(
        "fwd0",
        "mtu",
        "error",
        "3000: frames of 2048 bytes",
    );
    // Despite the error about the MTU, doctor runs its other checks.
    let config = cross_connect(1, "cores = [999]");
    let examination = Examination::run_with_config(lab.fwd(), &config);
    examination.fix("fwd0", "mtu", "error", "3000: frames of 2048 bytes");
    examination.fix("host", "cores", "error", "core 999: not online");
    // The mode is unknown: `not probed: fix … of fwd0 first`.
    let mode = examination.finding("fwd0", "mode");
    assert!(
        mode["level"] == "unknown" && mode["finding"].as_str().unwrap().ends_with(" first"),
        "{mode}"
    );
    run_shell(lab.fwd(), command_in_fix(&fix, "ip link"));
    Examination::run(lab.fwd(), &["fwd0"]).assert_ok("fwd0", "mtu");

    // An alternative name has no folder in /sys/class/net.
    run_shell(lab.fwd(), "ip link property add dev fwd0 altname uplink0");
    let examination = Examination::run(lab.fwd(), &["uplink0"]);
    examination.assert_ok("uplink0", "mtu");
    examination.assert_ok("uplink0", "link");
}

#[test]
fn doctor_prints_working_fix_for_unserved_queues() {
    let lab = build_lab(Chain::builder().queues(2));
    let config = cross_connect(1, "");
    let examination = Examination::run_with_config(lab.fwd(), &config);
    for (interface, peer, peer_namespace) in
        [("fwd0", "gen0", lab.gen_()), ("fwd1", "sink0", lab.sink())]
    {
        let fix = examination.fix(interface, "queues", "warning", "1 of 2 are served");
        run_shell(lab.fwd(), command_in_fix(&fix, &format!("ethtool -L {interface}")));
        run_shell(peer_namespace, &command_in_fix(&fix, "ethtool -L PEER").replace("PEER", peer));
    }
    let examination = Examination::run_with_config(lab.fwd(), &config);
    for interface in ["fwd0", "fwd1"] {
        examination.assert_ok(interface, "queues");
        // XDP is still native: the mode is copy, not skb.
        examination.fix(interface, "mode", "warning", "copy: ");
    }
    // Serving both queues also removes the finding.
    run_shell(lab.fwd(), "ethtool -L fwd0 rx 2 tx 2; ethtool -L fwd1 rx 2 tx 2");
    Examination::run_with_config(lab.fwd(), &cross_connect(2, "")).assert_ok("fwd0", "queues");
}

/// For a driver without ethtool channels, doctor counts the queues in /sys.
#[test]
fn doctor_counts_queues_of_driver_without_channels() {
    let namespace = Namespace::create("bridge").unwrap();
    run_shell(
        &namespace,
        "ip link add lan numtxqueues 2 numrxqueues 2 type bridge && ip link set lan up",
    );
    let config = |queues: u16| {
        format!(
            "[[port]]\nname = \"lan\"\ninterface = \"lan\"\nqueues = {queues}\n\
             [[path]]\nfrom = \"lan\"\nto = \"lan\"\n"
        )
    };
    let examination = |queues| {
        let config = Config::new(&config(queues));
        Examination::run(&namespace, &["--no-probe", "--config", config.path()])
    };
    assert_eq!(
        examination(1).fix("lan", "queues", "warning", "1 of 2 are served"),
        "queues = 2, to serve all"
    );
    examination(2).assert_ok("lan", "queues");
    assert_eq!(
        examination(3).fix("lan", "queues", "error", "3 are configured"),
        "queues = 2 at most"
    );
}

#[test]
fn doctor_names_holder_of_attached_xdp_program() {
    let lab = build_lab(Chain::builder());
    let mut holder = Running::start(&lab, &cross_connect(1, ""));
    let examination = Examination::run(lab.fwd(), &["fwd0"]);
    let fix = examination.fix("fwd0", "xdp-program", "error", "held by xdpfwd");
    assert_eq!(fix, format!("kill {}", holder.forwarder.pid()));
    assert_eq!(
        examination.finding("fwd0", "mode")["finding"],
        "not probed: fix xdp-program of fwd0 first"
    );
    run_shell(lab.fwd(), &fix);
    holder.wait();
    let examination = Examination::run(lab.fwd(), &["fwd0"]);
    examination.assert_ok("fwd0", "xdp-program");
    examination.fix("fwd0", "mode", "warning", "copy: fwd0 has no zero-copy");
}

#[test]
fn doctor_prints_working_fixes_for_offloads_and_napi_of_veth_peer() {
    let namespace = Namespace::create("pair").unwrap();
    run_shell(
        &namespace,
        "ip link add near type veth peer name far && ip link set near up && ip link set far up",
    );
    let examination = Examination::run(&namespace, &["near"]);
    let fix = examination.fix(
        "near",
        "veth-peer",
        "warning",
        "far, its other end, leaves checksums to the interface",
    );
    assert_eq!(fix, "ethtool -K far tx off txvlan off tx-vlan-stag-hw-insert off");
    run_shell(&namespace, &fix);
    let fix =
        Examination::run(&namespace, &["near"]).fix("near", "veth-peer", "warning", "has no NAPI");
    assert_eq!(fix, "ethtool -K far gro on");
    run_shell(&namespace, &fix);
    Examination::run(&namespace, &["near"]).assert_ok("near", "veth-peer");
}

#[test]
fn doctor_warns_of_default_route_and_does_not_probe() {
    let lab = build_lab(Chain::builder());
    run_shell(
        lab.fwd(),
        "ip address add 10.99.0.1/24 dev fwd0 && ip route add default via 10.99.0.2",
    );
    let config = cross_connect(1, "");
    let examination = Examination::run_with_config(lab.fwd(), &config);
    let fix = examination.fix("fwd0", "lockout", "warning", "has the default route");
    let mode = examination.finding("fwd0", "mode");
    assert_eq!(mode["level"], "unknown", "{mode}");
    let keep = fix.strip_suffix(" for its port").unwrap();
    let config = config.replace(r#"interface = "fwd0""#, &format!("interface = \"fwd0\"\n{keep}"));
    let examination = Examination::run_with_config(lab.fwd(), &config);
    examination.assert_ok("host", "lockout");
    // A probe may reset the interface, and would then lose even packets that match `keep`.
    assert_eq!(examination.finding("fwd0", "mode")["level"], "unknown");
}

#[test]
fn doctor_without_privileges_prints_working_setcap() {
    let lab = build_lab(Chain::builder());
    let folder = Folder::shared();
    let path = folder.join("xdpfwd");
    std::fs::copy(XDPFWD, &path).unwrap();
    let path = path.to_str().unwrap();
    let run_as_nobody = || {
        let mut command = lab.fwd().command("setpriv");
        command.args([
            "--reuid",
            "nobody",
            "--regid",
            "nogroup",
            "--clear-groups",
            path,
            "doctor",
            "--json",
            "fwd0",
        ]);
        Examination::from_command(command)
    };
    let fix = run_as_nobody().fix("host", "capabilities", "error", "cap_net_admin");
    let create_group = "groupadd --system --force xdpfwd";
    assert!(fix.contains(create_group) && fix.contains(&format!("chmod 0750 {path}")), "{fix}");
    // The test adds no group to this machine; `nobody` runs with the group `nogroup`.
    let command = command_in_fix(&fix, create_group).replace(create_group, "true");
    run_shell(lab.fwd(), &command.replace("chgrp xdpfwd", "chgrp nogroup"));
    let examination = run_as_nobody();
    examination.assert_ok("host", "capabilities");
    examination.assert_ok("host", "memory-lock");
    examination.fix("fwd0", "mode", "warning", "copy: ");
}

#[test]
fn doctor_finds_low_memory_lock_limit() {
    let lab = build_lab(Chain::builder());
    // Sets the limit to 64 KiB. Lowering a limit needs no capability.
    let run_with_low_limit = |privileges: &[&str]| {
        let mut command = lab.fwd().command("prlimit");
        command.arg("--memlock=65536:65536").args(privileges);
        command.args([XDPFWD, "doctor", "--json", "--no-probe", "fwd0"]);
        Examination::from_command(command)
    };
    let fix = run_with_low_limit(&["setpriv", "--bounding-set=-ipc_lock"]).fix(
        "host",
        "memory-lock",
        "error",
        "64 KiB may be locked",
    );
    assert!(fix.contains("ulimit -l unlimited") && fix.contains("cap_ipc_lock"), "{fix}");
    run_with_low_limit(&[]).assert_ok("host", "memory-lock");
}

#[test]
fn failed_start_prints_findings_of_doctor() {
    let lab = build_lab(Chain::builder());
    let holder = Running::start(&lab, &cross_connect(1, ""));
    let config = Config::new(&cross_connect(1, ""));
    let examination = Examination::run(lab.fwd(), &["--config", config.path()]);
    let finding = examination.finding("fwd0", "xdp-program");
    let text_of_finding = |key: &str| finding[key].as_str().unwrap().to_owned();
    let start = |arguments: &[&str]| {
        let output = lab
            .fwd()
            .command(XDPFWD)
            .args(["--config", config.path()])
            .args(arguments)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{output:?}");
        stderr(&output)
    };
    let text = start(&[]);
    let line = format!("  FAIL  xdp-program    fwd0: {}\n", text_of_finding("finding"));
    for part in [
        format!("`xdpfwd doctor --config {}` reports:\n", config.path()),
        line,
        format!("→ {}\n", text_of_finding("fix")),
    ] {
        assert!(text.contains(&part), "{part:?} is not in:\n{text}");
    }
    let lines: Vec<serde_json::Value> = start(&["--log-format", "json"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let is_same_finding = |line: &serde_json::Value| {
        line["fields"]["check"] == "xdp-program" && line["fields"]["fix"] == text_of_finding("fix")
    };
    assert!(lines.iter().any(is_same_finding), "{lines:#?}");
    holder.stop();
}

#[test]
fn start_with_fallback_prints_mode_finding_of_doctor() {
    let lab = build_lab(Chain::builder());
    let examination = Examination::run_with_config(lab.fwd(), &cross_connect(1, ""));
    let finding = examination.finding("fwd0", "mode")["finding"].as_str().unwrap().to_owned();
    let config = Config::new(&cross_connect(1, ""));
    let arguments = ["--config", config.path(), "--duration", "0.2"];
    let output: Output = lab.fwd().command(XDPFWD).args(arguments).output().unwrap();
    assert!(output.status.success());
    assert!(stderr(&output).contains(&finding), "{finding:?} is not in:\n{}", stderr(&output));
}
