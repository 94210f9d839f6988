//! Tests the checks that `--check`, the start of xdpfwd and doctor share. Needs root.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use support::examination::{Examination, command_in_fix, run_shell};
use support::{Config, Running, XDPFWD, build_lab, cross_connect, cross_connect_between};
use xdpfwd_lab::{Chain, Namespace};
use xdpfwd_testkit::Folder;

/// Gives fwd0 the alternative name `uplink` (in later calls, fwd0 already has the name), and runs
/// `--check` with ports on these interfaces. Returns exit code, stdout and stderr, in which `FILE`
/// replaces the path of the configuration.
fn check_interfaces(lab: &Chain, interfaces: [&str; 2]) -> (Option<i32>, String, String) {
    let [lan, wan] = interfaces;
    let config = Config::new(&format!(
        "[[port]]\nname = \"lan\"\ninterface = {lan:?}\n\
         [[port]]\nname = \"wan\"\ninterface = {wan:?}\n\
         [[path]]\nfrom = \"lan\"\nto = \"wan\"\n"
    ));
    lab.fwd()
        .command("ip")
        .args(["link", "property", "add", "dev", "fwd0", "altname", "uplink"])
        .output()
        .unwrap();
    let mut command = lab.fwd().command(XDPFWD);
    let output = command.args(["--config", config.path(), "--check", "--json"]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().replace(config.path(), "FILE");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_accepts_alternative_name_and_rejects_two_names_of_one_interface() {
    let lab = build_lab(Chain::builder());
    let (code, plan, stderr) = check_interfaces(&lab, ["uplink", "fwd1"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    for port in plan["ports"].as_array().unwrap() {
        assert_eq!(
            (&port["present"], &port["interface_queues"], &port["mtu"]),
            (&true.into(), &1.into(), &1500.into())
        );
    }
    assert_eq!(plan["ports"][0]["interface"], "uplink");
    let (code, _, stderr) = check_interfaces(&lab, ["fwd0", "uplink"]);
    assert_eq!(code, Some(2));
    assert!(
        stderr.starts_with("FILE:6:13: interface \"uplink\" already belongs to the port on line 1"),
        "{stderr}"
    );
}

/// Runs a shell command and returns exit code, stdout and stderr.
fn shell(namespace: &Namespace, command: &str) -> (Option<i32>, String, String) {
    let output = namespace.command("sh").args(["-c", command]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn with_io(config: &str, io: &str) -> String {
    config.replace("queues = 1", &format!("queues = 1\nio = \"{io}\""))
}

#[test]
fn interface_without_ethernet_is_refused_for_every_io() {
    let lab = build_lab(Chain::builder());
    let fwd = lab.fwd();
    let mut interfaces = vec!["lo".to_owned()];
    // Test only the kinds of interface that this kernel supports. Every kernel supports tun.
    for (name, add) in [
        ("t-tun", "ip tuntap add t-tun mode tun"),
        ("t-ipip", "ip link add t-ipip type ipip local 192.0.2.1 remote 192.0.2.2"),
        ("t-sit", "ip link add t-sit type sit local 192.0.2.1 remote 192.0.2.2"),
        ("t-gre", "ip link add t-gre type gre local 192.0.2.1 remote 192.0.2.2"),
        ("t-ip6tnl", "ip link add t-ip6tnl type ip6tnl local 2001:db8::1 remote 2001:db8::2"),
        ("t-wg", "ip link add t-wg type wireguard"),
        ("t-can", "ip link add t-can type vcan"),
    ] {
        if shell(fwd, add).0 == Some(0) {
            shell(fwd, &format!("ip link set dev {name} up"));
            interfaces.push(name.to_owned());
        }
    }
    assert!(interfaces.contains(&"t-tun".to_owned()), "{interfaces:?}");
    for interface in &interfaces {
        let error = format!("interface \"{interface}\" carries no Ethernet frames (hardware type ");
        for io in ["af_xdp", "packet-mmsg", "packet-mmap"] {
            let text = with_io(&cross_connect_between(["fwd0", interface], 1, ""), io);
            let config = Config::new(&text);
            for arguments in ["--check", "--duration 1"] {
                let command = format!("{XDPFWD} --config {} {arguments}", config.path());
                let (code, _, stderr) = shell(fwd, &command);
                assert_eq!(code, Some(2), "{command}: {stderr}");
                assert!(stderr.contains(&error), "{command}: {stderr}");
            }
        }
        let examination = Examination::run(fwd, &["--no-probe", interface]);
        examination.fix(interface, "interface", "error", "carries no Ethernet frames");
    }
}

/// Runs xdpfwd in the network namespace, but with the /sys of this process. Uses nsenter, because
/// `ip netns exec` would mount the /sys of the namespace.
fn with_foreign_sys(namespace: &Namespace, arguments: &str) -> (Option<i32>, String, String) {
    let command = format!("nsenter --net=/run/netns/{} {XDPFWD} {arguments}", namespace.name());
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn check_knows_interfaces_although_sys_shows_another_namespace() {
    let lab = build_lab(Chain::builder());
    let config = Config::new(&cross_connect(1, ""));
    let check = format!("--config {} --check --json", config.path());
    let (code, plan, stderr) = with_foreign_sys(lab.fwd(), &check);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let port = &plan["ports"][0];
    assert_eq!((&port["mtu"], &port["interface_queues"]), (&1500.into(), &1.into()), "{port}");
    assert_eq!(port["state"], "up");
    run_shell(lab.gen_(), "ip link set dev gen0 mtu 3000");
    run_shell(lab.fwd(), "ip link set dev fwd0 mtu 3000");
    for arguments in [&*check, &format!("--config {} --duration 1", config.path())] {
        let (code, _, stderr) = with_foreign_sys(lab.fwd(), arguments);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains("fwd0 has MTU 3000"), "{stderr}");
    }
    let (_, examination, _) = with_foreign_sys(lab.fwd(), "doctor --json --no-probe fwd0 fwd1");
    let examination: serde_json::Value = serde_json::from_str(&examination).unwrap();
    let level = |subject: &str, check: &str| {
        let findings = examination["findings"].as_array().unwrap();
        let found = findings
            .iter()
            .find(|finding| finding["subject"] == subject && finding["check"] == check);
        found.unwrap_or_else(|| panic!("no {check} of {subject}: {examination}"))["level"].clone()
    };
    assert_eq!(level("fwd0", "mtu"), "error");
    assert_eq!((level("fwd1", "mtu"), level("fwd1", "link")), ("ok".into(), "ok".into()));
    assert_eq!(level("fwd1", "queues"), "ok");
    assert_eq!(level("fwd1", "interface"), "unknown", "only /sys knows the driver and NUMA node");
}

#[test]
fn check_that_cannot_run_causes_warning() {
    let namespace = Namespace::create("checks").unwrap();
    run_shell(&namespace, "ip link add lan type bridge && ip link set lan up");
    let config = Config::new(
        "[umem]\nhuge_pages = \"on\"\n[[port]]\nname = \"lan\"\ninterface = \"lan\"\n\
         [[path]]\nfrom = \"lan\"\nto = \"lan\"\n",
    );
    let check = |hide: &str| {
        let command = format!(
            "unshare --mount sh -c '{hide} exec {XDPFWD} --config {} --check'",
            config.path()
        );
        let (code, _, stderr) = shell(&namespace, &command);
        assert_eq!(code, Some(0), "{stderr}");
        stderr
    };
    // Only /sys knows the queues of a bridge.
    let text = check("mount -t tmpfs none /sys;");
    assert!(text.contains("cannot check the number of queues: "), "{text}");
    assert!(text.contains("cannot check whether enough huge pages are free"), "{text}");
    let text = check("mount -t tmpfs none /proc;");
    assert!(text.contains("cannot check whether a port cuts off an SSH session"), "{text}");
    config.write(
        &fs::read_to_string(config.path())
            .unwrap()
            .replace("interface = \"lan\"", "interface = \"lan\"\nio = \"packet-mmsg\""),
    );
    let text = check("mount -t tmpfs none /proc;");
    assert!(text.contains("cannot check whether the kernel forwards packets of lan"), "{text}");
}

#[test]
fn path_to_smaller_mtu_causes_warning_until_its_fix_is_applied() {
    let lab = build_lab(Chain::builder());
    run_shell(lab.fwd(), "ip link set dev fwd1 mtu 1400");
    let config = Config::new(&cross_connect(1, ""));
    let check = || shell(lab.fwd(), &format!("{XDPFWD} --config {} --check", config.path())).2;
    let text = check();
    assert!(
        text.contains("port lan (fwd0) has MTU 1500, but port wan (fwd1) has MTU 1400"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "one path of two leads to a smaller MTU: {text}");
    let examination = || Examination::run(lab.fwd(), &["--no-probe", "--config", config.path()]);
    let fix = examination().fix("fwd0", "path-mtu", "warning", "(tx_dropped)");
    run_shell(lab.fwd(), command_in_fix(&fix, "ip link set dev fwd1 mtu 1500"));
    assert_eq!(check(), "");
}

#[test]
fn interface_that_belongs_to_another_causes_warning_until_its_fix_is_applied() {
    let lab = build_lab(Chain::builder());
    run_shell(
        lab.fwd(),
        "ip link add br0 type bridge && ip link set dev fwd0 master br0 && \
         ip link add mv0 link fwd1 type macvlan",
    );
    let config = Config::new(&cross_connect(1, ""));
    let check = || shell(lab.fwd(), &format!("{XDPFWD} --config {} --check", config.path())).2;
    let text = check();
    assert!(text.contains("fwd0 is a port of the bridge br0, which receives none"), "{text}");
    assert!(text.contains("fwd1 carries the macvlan interface mv0, which receives none"), "{text}");
    let examination = Examination::run(lab.fwd(), &["--no-probe", "--config", config.path()]);
    for (interface, command) in
        [("fwd0", "ip link set dev fwd0 nomaster"), ("fwd1", "ip link delete dev mv0")]
    {
        let fix = examination.fix(interface, "shared", "warning", "receives none");
        run_shell(lab.fwd(), command_in_fix(&fix, command));
    }
    assert_eq!(check(), "");
}

#[test]
fn limit_on_open_files_is_raised_or_reported() {
    let lab = build_lab(Chain::builder().queues(2));
    let config = Config::new(&cross_connect(2, ""));
    let run = |limits: &str, arguments: &str| {
        let command = format!("prlimit --nofile={limits} {XDPFWD} {arguments}");
        let (code, _, stderr) = shell(lab.fwd(), &command);
        (code, stderr)
    };
    let start = format!("--config {} --duration 0.2", config.path());
    let (code, stderr) = run("24:4096", &start);
    assert_eq!(code, Some(0), "the soft limit was not raised: {stderr}");
    let (code, stderr) = run("24:64", &start);
    assert_eq!(code, Some(1), "{stderr}");
    for text in ["this process may open only 64", "ulimit -Hn ", "LimitNOFILE="] {
        assert!(stderr.contains(text), "{stderr}");
    }
    let (code, stderr) = run("24:64", &format!("--config {} --check", config.path()));
    assert!(code == Some(0) && stderr.contains("may open only 64"), "{stderr}");
    let (code, _) = run("24:64", &format!("doctor --no-probe --config {}", config.path()));
    assert_eq!(code, Some(3));
}

/// A running xdpfwd has fewer descriptors open than `--check` estimates, also after a reload.
#[test]
fn open_descriptors_stay_below_estimate() {
    let lab = build_lab(Chain::builder().queues(2));
    let config = cross_connect(2, "cores = [0, 1]");
    let running = Running::start(&lab, &config);
    running.reload("reloaded");
    let fds = format!("/proc/{}/fd", running.forwarder.pid());
    let open = fs::read_dir(fds).unwrap().count() as u64;
    running.stop();
    let config = Config::new(&config);
    let command = format!("prlimit --nofile=24:24 {XDPFWD} --config {} --check", config.path());
    let (_, _, stderr) = shell(lab.fwd(), &command);
    let needed = stderr.split("needs ").nth(1).and_then(|text| text.split(' ').next());
    let needed: u64 = needed.unwrap_or_else(|| panic!("{stderr}")).parse().unwrap();
    assert!(open < needed, "{open} descriptors are open, {needed} were estimated");
}

#[test]
fn files_that_others_can_change_are_refused_as_root_unless_allowed() {
    let lab = build_lab(Chain::builder());
    let folder = Folder::new();
    let rules = folder.join("rules");
    fs::create_dir(&rules).unwrap();
    fs::write(rules.join("a.rules"), "accept\n").unwrap();
    let text = cross_connect(1, &format!("control = \"{}/ctl/s\"", folder.display()))
        .replace("to = \"wan\"", "to = \"wan\"\nstages = [\"f\"]")
        + "[stage.f]\nkind = \"filter\"\nrules = \"rules/a.rules\"\ndefault = \"drop\"\n";
    let (config, socket_folder) = (folder.join("fw.toml"), folder.join("ctl"));
    fs::write(&config, text).unwrap();
    fs::create_dir(&socket_folder).unwrap();
    let set_mode =
        |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let run = |arguments: &str| {
        let command = format!("{XDPFWD} {arguments} --config {}", config.display());
        let (code, _, stderr) = shell(lab.fwd(), &command);
        (code, stderr)
    };
    assert_eq!(run("--check"), (Some(0), String::new()));
    for (path, mode) in [
        (&config, 0o666),
        (&rules.join("a.rules"), 0o646),
        (&rules, 0o777),
        (&socket_folder, 0o757),
    ] {
        let safe_mode = fs::metadata(path).unwrap().permissions();
        set_mode(path, mode);
        for arguments in ["--check", "--duration 0.2", "doctor --no-probe"] {
            let (code, stderr) = run(arguments);
            assert_eq!(code, Some(2), "{path:?} {arguments}: {stderr}");
            let fix = format!("run: chmod go-w {path:?}");
            assert!(
                stderr.contains("other users can change ") && stderr.contains(&fix),
                "{stderr}"
            );
            assert!(stderr.contains("--allow-writable-files"), "{stderr}");
        }
        for arguments in ["--check", "--duration 0.2"] {
            let (code, stderr) = run(&format!("--allow-writable-files {arguments}"));
            assert_eq!(code, Some(0), "{path:?} {arguments}: {stderr}");
            assert!(stderr.contains("warning: other users can change "), "{stderr}");
        }
        fs::set_permissions(path, safe_mode).unwrap();
    }
    // xdpfwd accepts standard input: a pipe of the caller has no path that others could change.
    let command = format!("cat {} | {XDPFWD} --check --config /dev/stdin", config.display());
    let in_folder = format!("cd {} && {command}", folder.display());
    let (_, _, stderr) = shell(lab.fwd(), &in_folder);
    assert!(!stderr.contains("other users"), "{stderr}");
}

#[test]
fn writable_folder_is_accepted_on_read_only_file_system_but_not_mount() {
    let lab = build_lab(Chain::builder());
    let (config, folder) = (Config::new(&cross_connect(1, "")), Folder::new());
    let folder = folder.display();
    let check = |mount: &str| {
        let command = format!(
            "unshare --mount sh -c 'mount -t tmpfs -o mode=0777 none {folder} && \
             cp {} {folder}/fw.toml && mount {mount} {folder} && \
             exec {XDPFWD} --config {folder}/fw.toml --check'",
            config.path()
        );
        shell(lab.fwd(), &command)
    };
    let (code, _, stderr) = check("-o remount,ro,mode=0777");
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    // Read-only mounts, as of Kubernetes for a ConfigMap and of systemd for most folders, are not
    // enough: elsewhere, the same files are writable.
    for mount in ["-o remount,rw,mode=0777", "-o remount,bind,ro", &format!("-o ro,bind {folder}")]
    {
        let (code, _, stderr) = check(mount);
        assert!(code == Some(2) && stderr.contains("(mode 0777)"), "{mount}: {stderr}");
    }
}
