//! Tests the key `keep` of a port, which leaves matching packets to the kernel, and the warnings
//! about local traffic without `keep`. Needs root.
//!
//! The lab connects gen0 to fwd0 and fwd1 to sink0; xdpfwd forwards between fwd0 and fwd1.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::wire::{PYTHON, gen0, mark_count, send_and_capture, sink0, unhex};
use support::{Config, Running, TIMEOUT, XDPFWD, build_lab, cross_connect};
use xdpfwd_lab::{Chain, Namespace, Traffic};
use xdpfwd_testkit::lab::{ip, sh};

/// An address of fwd0 in the generator's subnet.
const FWD0_ADDRESS: &str = "10.77.0.254";
const SINK_ADDRESS: &str = "10.77.0.2";

fn with_keep(keep: &str) -> String {
    cross_connect(1, "").replacen("queues = 1", &format!("queues = 1\nkeep = {keep}"), 1)
}

/// Starts a TCP server whose threads run until the test process ends.
fn start_echo_server(namespace: &Namespace, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = namespace.run(|| TcpListener::bind(address).unwrap()).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            });
        }
    });
}

fn connect(namespace: &Namespace, address: &str) -> TcpStream {
    let address: SocketAddr = address.parse().unwrap();
    let stream = namespace.run(|| TcpStream::connect_timeout(&address, TIMEOUT).unwrap()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

#[track_caller]
fn converse(stream: &mut TcpStream, rounds: u8) {
    for round in 0..rounds {
        let mut byte = [0];
        stream.write_all(&[round]).unwrap();
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [round]);
    }
}

/// Sessions to fwd0 stay with the kernel; those to the same port of another host are forwarded.
#[test]
fn kept_session_continues_while_other_traffic_is_forwarded() {
    for mode in ["auto", "skb"] {
        let lab = build_lab(Chain::builder().addresses(true).ipv6(true));
        ip(lab.fwd(), &format!("address add {FWD0_ADDRESS}/24 dev fwd0"));
        ip(lab.fwd(), "address add fd77::fe/64 dev fwd0 nodad");
        // If transit packets reached the kernel, it would forward and count them.
        sh(lab.fwd(), "echo 1 > /proc/sys/net/ipv4/ip_forward");
        let listeners =
            [(lab.fwd(), FWD0_ADDRESS, "[fd77::fe]"), (lab.sink(), SINK_ADDRESS, "[fd77::2]")];
        for (namespace, ipv4, ipv6) in listeners {
            start_echo_server(namespace, &format!("{ipv4}:22"));
            start_echo_server(namespace, &format!("{ipv6}:22"));
        }
        let config = with_keep(r#"["arp", "nd", "tcp/22"]"#)
            .replace("[engine]", &format!("[engine]\nmode = \"{mode}\""));
        let running = Running::start(&lab, &config);
        let load = Traffic::new().rate(50_000).core(0).start(lab.gen_(), "gen0").unwrap();
        let addresses = [
            &format!("{FWD0_ADDRESS}:22"),
            "[fd77::fe]:22",
            &format!("{SINK_ADDRESS}:22"),
            "[fd77::2]:22",
        ];
        let mut sessions = addresses.map(|address| connect(lab.gen_(), address));
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            sessions.iter_mut().for_each(|session| converse(session, 5));
        }
        load.stop().unwrap();
        // Packets that `keep` does not match are forwarded to the other side, where no host has the
        // address.
        let mut ping = lab.gen_().command("ping");
        let output = ping.args(["-c2", "-i0.2", "-W1", FWD0_ADDRESS]).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        drop(sessions);
        let (exit, final_report) = running.stop();
        assert!(exit.status.success());
        final_report.assert_frames_and_packets_add_up();
        let lan = &final_report.json["ports"][0];
        assert!(lan["xdp_kept"].as_u64().unwrap() > 20, "{lan}");
        assert!(lan["rx_packets"].as_u64().unwrap() > 10_000, "{lan}");
        assert_eq!(final_report.json["ports"][1]["xdp_kept"], 0);
        let snmp = sh(lab.fwd(), "grep ^Ip: /proc/net/snmp");
        let rows: Vec<Vec<&str>> = snmp.lines().map(|line| line.split(' ').collect()).collect();
        let column = rows[0].iter().position(|name| *name == "ForwDatagrams").unwrap();
        assert_eq!(rows[1][column], "0", "number of packets that the kernel forwarded");
    }
}

/// Sends all frames of crates/engine/tests/keep/frames.py to a port with every kind of `keep` rule.
#[test]
fn frames_without_matching_keep_rule_are_forwarded() {
    let lab = build_lab(Chain::builder());
    sh(
        lab.fwd(),
        "for i in all default fwd0 lo; do echo 0 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done",
    );
    sh(lab.fwd(), "echo 1 > /proc/sys/net/ipv6/conf/fwd1/disable_ipv6");
    for setting in [
        "link set dev fwd0 address 02:00:00:00:00:01",
        "address add 192.0.2.1/24 dev fwd0",
        "address add 10.255.0.1/32 dev lo",
        "address add 2001:db8::1/64 dev fwd0 nodad",
        "address add fe80::1/64 dev fwd0 nodad",
        "link add docker0 type bridge",
        "address add 172.17.0.1/16 dev docker0",
        "link set docker0 up",
    ] {
        ip(lab.fwd(), setting);
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/tests/keep/frames.py");
    let output = Command::new(PYTHON).arg(script).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let frames: Vec<(bool, Vec<u8>)> = lines
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .map(|cells| {
            // The cells are the frame's name, the rules that keep it, and its bytes. This lab has
            // neither VLAN 300 nor a tentative address, so xdpfwd forwards the frames for them.
            let is_absent_here =
                ["VLAN 300", "tentative"].iter().any(|words| cells[0].contains(words));
            (!cells[1].is_empty() && !is_absent_here, unhex(cells[2]))
        })
        .collect();
    let (kept, transit): (Vec<_>, Vec<_>) = frames.iter().cloned().partition(|(kept, _)| *kept);
    assert!(
        transit.len() > 70 && kept.len() > 70,
        "{} transit frames, {} kept frames",
        transit.len(),
        kept.len()
    );

    let one_way = with_keep(
        r#"["arp", "nd", "icmp", "local", "lldp", "stp", "tcp/22", "udp/53", "vlan/100"]"#,
    );
    let (one_way, _) = one_way.rsplit_once("[[path]]").unwrap();
    // xdpfwd accepts the rule `vlan/100` only on an interface whose offloads leave VLAN tags in
    // frames.
    let features = ["-K", "fwd0", "rxvlan", "off", "rx-vlan-stag-hw-parse", "off"];
    assert!(lab.fwd().command("ethtool").args(features).status().unwrap().success());
    let running = Running::start(&lab, one_way);
    let all: Vec<Vec<u8>> = frames.into_iter().map(|(_, frame)| frame).collect();
    let arrived = send_and_capture(gen0(&lab), sink0(&lab), &all);
    let (_, final_report) = running.stop();
    final_report.assert_frames_and_packets_add_up();
    // This frame ends within its VLAN tag. sink0 drops it before any capture.
    let half_tag = unhex("02000000000102000000000281000064");
    let expected: Vec<Vec<u8>> =
        transit.iter().map(|(_, frame)| frame.clone()).filter(|frame| *frame != half_tag).collect();
    assert_eq!(expected.len(), transit.len() - 1);
    let differing = expected.iter().zip(&arrived).find(|(sent, arrived)| sent != arrived);
    assert_eq!((arrived.len(), differing), (expected.len(), None));
    let lan = &final_report.json["ports"][0];
    // The kernel may also have received gen0's neighbor requests. wire.py adds a frame, the mark,
    // after every 32 frames.
    assert!(lan["xdp_kept"].as_u64().unwrap() >= kept.len() as u64, "{lan}");
    assert_eq!(lan["rx_packets"], transit.len() + mark_count(all.len()), "{lan}");
}

#[test]
fn keep_follows_address_changes() {
    let lab = build_lab(Chain::builder().addresses(true));
    let running = Running::start(&lab, &with_keep(r#"["arp", "icmp"]"#));
    let wait_until_ping = |outcome: &str| {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            ip(lab.gen_(), "neighbor flush dev gen0");
            let output =
                lab.gen_().command("ping").args(["-c1", "-W1", FWD0_ADDRESS]).output().unwrap();
            if output.status.success() == (outcome == "succeeds") {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "not true within {TIMEOUT:?}: ping {outcome}: {output:?}"
            );
        }
    };
    wait_until_ping("fails");
    ip(lab.fwd(), &format!("address add {FWD0_ADDRESS}/24 dev fwd0"));
    wait_until_ping("succeeds");
    ip(lab.fwd(), "link set dev fwd0 address 02:00:00:00:00:77");
    wait_until_ping("succeeds");
    ip(lab.fwd(), &format!("address del {FWD0_ADDRESS}/24 dev fwd0"));
    wait_until_ping("fails");
    // `keep` also applies to an address of another interface of the forwarder's host, here lo.
    ip(lab.fwd(), &format!("address add {FWD0_ADDRESS}/32 dev lo"));
    ip(lab.fwd(), "route add 10.77.0.0/24 dev fwd0");
    wait_until_ping("succeeds");
    let (exit, final_report) = running.stop();
    assert!(exit.status.success());
    final_report.assert_frames_and_packets_add_up();
}

/// A macvlan and a bridge have another MAC address than the port's interface below them.
#[test]
fn keep_covers_addresses_of_macvlan_and_bridge() {
    let on_macvlan = [
        "link add mac0 link fwd0 type macvlan mode bridge",
        "link set mac0 up",
        "address add 10.77.0.254/24 dev mac0",
    ];
    let on_bridge = [
        "link add bridge0 type bridge",
        "link set bridge0 address 02:00:00:00:00:88",
        "link set fwd0 master bridge0",
        "link set bridge0 up",
        "address add 10.77.0.254/24 dev bridge0",
    ];
    for settings in [&on_macvlan[..], &on_bridge] {
        let lab = build_lab(Chain::builder().addresses(true));
        settings.iter().for_each(|setting| ip(lab.fwd(), setting));
        let running = Running::start(&lab, &with_keep(r#"["arp", "icmp"]"#));
        let mut ping = lab.gen_().command("ping");
        let output = ping.args(["-c3", "-i0.2", "-W5", FWD0_ADDRESS]).output().unwrap();
        assert!(output.status.success(), "{settings:?}: {output:?}");
        let (_, final_report) = running.stop();
        final_report.assert_frames_and_packets_add_up();
    }
}

/// `keep` must not apply to these packets: the kernel would forward them instead of accepting them.
#[test]
fn packets_to_address_of_down_interface_are_forwarded() {
    let lab = build_lab(Chain::builder());
    sh(
        lab.fwd(),
        "for i in all default fwd0 lo; do echo 0 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done",
    );
    sh(lab.fwd(), "echo 1 > /proc/sys/net/ipv6/conf/fwd1/disable_ipv6");
    ip(lab.fwd(), "link add down0 type bridge");
    ip(lab.fwd(), "address add 2001:db8::77/64 dev down0");
    ip(lab.fwd(), "address add 2001:db8:1::1/64 dev fwd0 nodad");
    let running = Running::start(&lab, &with_keep(r#"["nd", "local"]"#));
    // UDP over IPv6 to fwd0's MAC address.
    let packet = |destination: &str| {
        let mut packet =
            unhex("02000000000202000000000186dd600000000008114020010db8000100000000000000000002");
        packet.extend(destination.parse::<std::net::Ipv6Addr>().unwrap().octets());
        packet.extend([0x9c, 0x40, 0, 9, 0, 8, 0xff, 0xff]);
        packet
    };
    let mac = sh(lab.fwd(), "cat /sys/class/net/fwd0/address");
    assert_eq!(mac.trim(), "02:00:00:00:00:02");
    let transit = packet("2001:db8::77");
    let arrived =
        send_and_capture(gen0(&lab), sink0(&lab), &[packet("2001:db8:1::1"), transit.clone()]);
    assert_eq!(arrived, [transit]);
    running.stop();
}

#[test]
fn xdpfwd_reports_and_stops_in_time_during_address_changes() {
    let lab = build_lab(Chain::builder());
    ip(lab.fwd(), "link add many0 type bridge");
    let run_ip_batch = |script: &str| sh(lab.fwd(), &format!("{script} | ip -batch -"));
    run_ip_batch(
        "for i in $(seq 1 12); do for j in $(seq 1 250); do \
         echo address add 10.9.$i.$j/32 dev many0; done; done",
    );
    let mut address_changes = lab.fwd().command("sh");
    address_changes.args([
        "-c",
        "while :; do \
         echo address add 10.8.0.1/32 dev many0; echo address del 10.8.0.1/32 dev many0; \
         done | ip -batch -",
    ]);
    // A process group, so that the test can kill the shell and its child.
    std::os::unix::process::CommandExt::process_group(&mut address_changes, 0);
    let mut address_changes = address_changes.stderr(Stdio::null()).spawn().unwrap();
    for keep in ["[]", r#"["arp", "local"]"#] {
        let config = Config::new(&with_keep(keep));
        let mut command = lab.fwd().command(XDPFWD);
        command.args(["--config", config.path(), "--duration", "2", "--interval", "0.1", "--json"]);
        let output = command.output().unwrap();
        let reports = output.stdout.iter().filter(|byte| **byte == b'\n').count();
        assert!(output.status.success() && reports >= 10, "{keep}: {reports} reports, {output:?}");
    }
    let group = nix::unistd::Pid::from_raw(address_changes.id() as i32);
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).unwrap();
    address_changes.wait().unwrap();
}

#[test]
fn host_traffic_without_keep_rule_causes_warning() {
    let lab = build_lab(Chain::builder().addresses(true));
    ip(lab.fwd(), &format!("address add {FWD0_ADDRESS}/24 dev fwd0"));
    ip(lab.fwd(), "route add default via 10.77.0.1");
    start_echo_server(lab.fwd(), &format!("{FWD0_ADDRESS}:22"));
    let session = connect(lab.gen_(), &format!("{FWD0_ADDRESS}:22"));
    let run_and_return_warnings = |config: &str, connection: &str, arguments: &[&str]| {
        let config = Config::new(config);
        let mut command = lab.fwd().command(XDPFWD);
        command
            .args(["--config", config.path(), "--duration", "0.1"])
            .args(arguments)
            .env("SSH_CONNECTION", connection);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let route = "fwd0 has the default route";
    let ssh = "fwd0 carries an SSH session from 10.77.0.1";
    for arguments in [&["--check"][..], &[]] {
        let text = run_and_return_warnings(&with_keep("[]"), "", arguments);
        assert!(text.contains(route) && text.contains(ssh), "{text}");
        assert!(text.contains(r#":6:21: warning: fwd0"#), "no location in the file: {text}");
        let text = run_and_return_warnings(&with_keep(r#"["arp"]"#), "", arguments);
        assert!(
            text.contains(route)
                && text.contains(ssh)
                && text.contains(r#"keep = ["arp", "tcp/22"]"#),
            "{text}"
        );
        let text = run_and_return_warnings(&with_keep(r#"["arp", "tcp/22"]"#), "", arguments);
        assert!(!text.contains("to stay reachable"), "{text}");
        // For an sshd on another port, the port comes from SSH_CONNECTION.
        let connection = format!("10.77.0.1 50000 {FWD0_ADDRESS} 2222");
        let text =
            run_and_return_warnings(&with_keep(r#"["arp", "tcp/22"]"#), &connection, arguments);
        assert!(text.contains(ssh) && text.contains(r#""tcp/2222""#), "{text}");
    }
    drop(session);
}
