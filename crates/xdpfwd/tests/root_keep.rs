//! What stays with the kernel while the rest is forwarded, and who is warned of what does not. Needs root.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lab::{Chain, Namespace, Traffic};
use support::wire::{PYTHON, gen0, marks, pass, sink0, unhex};
use support::{Config, LONG, Running, XDPFWD, chain, cross_connect};

/// Of fwd0, where the generator sees it.
const OWN: &str = "10.77.0.254";
const SINK: &str = "10.77.0.2";

fn ip(namespace: &Namespace, arguments: &str) {
    let output = namespace.command("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

fn shell(namespace: &Namespace, script: &str) -> String {
    let output = namespace.command("sh").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn with_keep(keep: &str) -> String {
    cross_connect(1, "").replacen("queues = 1", &format!("queues = 1\nkeep = {keep}"), 1)
}

/// Answers every byte on every connection, for as long as the test runs.
fn echo(namespace: &Namespace, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = namespace.run(|| TcpListener::bind(address).unwrap()).unwrap();
    thread::spawn(move || {
        for mut peer in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut byte = [0];
                while peer.read_exact(&mut byte).is_ok() && peer.write_all(&byte).is_ok() {}
            });
        }
    });
}

fn connect(namespace: &Namespace, address: &str) -> TcpStream {
    let address: SocketAddr = address.parse().unwrap();
    let stream = namespace.run(|| TcpStream::connect_timeout(&address, LONG).unwrap()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
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

/// Somebody is logged in on fwd0's own address while everything else is forwarded, the same port to others included.
#[test]
fn a_session_to_the_forwarder_lives_while_the_rest_is_forwarded() {
    for mode in ["auto", "skb"] {
        let chain = chain(Chain::builder().addresses(true).ipv6(true));
        ip(chain.fwd(), &format!("address add {OWN}/24 dev fwd0"));
        ip(chain.fwd(), "address add fd77::fe/64 dev fwd0 nodad");
        // If anything in transit slipped into the kernel, it would forward it.
        shell(chain.fwd(), "echo 1 > /proc/sys/net/ipv4/ip_forward");
        let listeners = [(chain.fwd(), OWN, "[fd77::fe]"), (chain.sink(), SINK, "[fd77::2]")];
        for (namespace, ipv4, ipv6) in listeners {
            echo(namespace, &format!("{ipv4}:22"));
            echo(namespace, &format!("{ipv6}:22"));
        }
        let config =
            with_keep(r#"["arp", "nd", "tcp/22"]"#).replace("[engine]", &format!("[engine]\nmode = \"{mode}\""));
        let running = Running::start(&chain, &config);
        let load = Traffic::new().rate(50_000).core(0).start(chain.gen_(), "gen0").unwrap();
        let to = [&format!("{OWN}:22"), "[fd77::fe]:22", &format!("{SINK}:22"), "[fd77::2]:22"];
        let mut sessions = to.map(|address| connect(chain.gen_(), address));
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            sessions.iter_mut().for_each(|session| converse(session, 5));
        }
        load.stop().unwrap();
        // What is not kept is not answered: these go through the stages to the other side, where nobody has the address.
        let mut ping = chain.gen_().command("ping");
        let output = ping.args(["-c2", "-i0.2", "-W1", OWN]).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        drop(sessions);
        let (ended, last) = running.stop();
        assert!(ended.status.success());
        last.assert_conserved();
        let lan = &last.json["ports"][0];
        assert!(lan["xdp_kept"].as_u64().unwrap() > 20, "{lan}");
        assert!(lan["rx_packets"].as_u64().unwrap() > 10_000, "{lan}");
        assert_eq!(last.json["ports"][1]["xdp_kept"], 0);
        let snmp = shell(chain.fwd(), "grep ^Ip: /proc/net/snmp");
        let rows: Vec<Vec<&str>> = snmp.lines().map(|line| line.split(' ').collect()).collect();
        let column = rows[0].iter().position(|name| *name == "ForwDatagrams").unwrap();
        assert_eq!(rows[1][column], "0", "the kernel forwarded what it should not have got");
    }
}

/// Each frame that scapy makes for the rules' own test (crates/engine/tests/keep/frames.py), over the wire, with all rules on:
/// what is kept by none of them comes out on the other side, byte for byte.
#[test]
fn what_is_in_transit_goes_through_the_stages() {
    let chain = chain(Chain::builder());
    shell(chain.fwd(), "for i in all default fwd0 lo; do echo 0 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done");
    shell(chain.fwd(), "echo 1 > /proc/sys/net/ipv6/conf/fwd1/disable_ipv6");
    for setting in [
        "link set dev fwd0 address 02:00:00:00:00:01",
        "address add 192.0.2.1/24 dev fwd0",
        "address add 10.255.0.1/32 dev lo",
        "address add 2001:db8::1/64 dev fwd0 nodad",
        "address add fe80::1/64 dev fwd0 nodad",
    ] {
        ip(chain.fwd(), setting);
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/tests/keep/frames.py");
    let made = Command::new(PYTHON).arg(script).output().unwrap();
    let made = String::from_utf8(made.stdout).unwrap();
    let frames: Vec<(bool, Vec<u8>)> = made
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .map(|cells| (!cells[1].is_empty(), unhex(cells[2])))
        .collect();
    let (kept, transit): (Vec<_>, Vec<_>) = frames.iter().cloned().partition(|(kept, _)| *kept);
    assert!(transit.len() > 70 && kept.len() > 70, "{} and {}", transit.len(), kept.len());

    let one_way = with_keep(r#"["arp", "nd", "icmp", "local", "lldp", "stp", "tcp/22", "udp/53", "vlan/100"]"#);
    let (one_way, _) = one_way.rsplit_once("[[path]]").unwrap();
    let running = Running::start(&chain, one_way);
    let all: Vec<Vec<u8>> = frames.into_iter().map(|(_, frame)| frame).collect();
    let arrived = pass(gen0(&chain), sink0(&chain), &all);
    let (_, last) = running.stop();
    last.assert_conserved();
    // sink0's kernel throws this one away before anybody sees it, so it is counted only.
    let cut_tag = unhex("02000000000102000000000281000064");
    let seen: Vec<Vec<u8>> = transit.iter().map(|(_, frame)| frame.clone()).filter(|frame| *frame != cut_tag).collect();
    assert_eq!(seen.len(), transit.len() - 1);
    let differing = seen.iter().zip(&arrived).find(|(sent, arrived)| sent != arrived);
    assert_eq!((arrived.len(), differing), (seen.len(), None));
    let lan = &last.json["ports"][0];
    // gen0's kernel may have asked for its neighbors meanwhile.
    assert!(lan["xdp_kept"].as_u64().unwrap() >= kept.len() as u64, "{lan}");
    assert_eq!(lan["rx_packets"], transit.len() + marks(all.len()), "{lan}");
}

/// Addresses come and go, the MAC address changes: what is kept follows.
#[test]
fn addresses_are_followed_while_it_runs() {
    let chain = chain(Chain::builder().addresses(true));
    let running = Running::start(&chain, &with_keep(r#"["arp", "icmp"]"#));
    let answers = |expected: bool| {
        let deadline = Instant::now() + LONG;
        loop {
            ip(chain.gen_(), "neighbor flush dev gen0");
            let output = chain.gen_().command("ping").args(["-c1", "-W1", OWN]).output().unwrap();
            if output.status.success() == expected {
                return;
            }
            assert!(Instant::now() < deadline, "expected {expected}: {output:?}");
        }
    };
    answers(false);
    ip(chain.fwd(), &format!("address add {OWN}/24 dev fwd0"));
    answers(true);
    ip(chain.fwd(), "link set dev fwd0 address 02:00:00:00:00:77");
    answers(true);
    ip(chain.fwd(), &format!("address del {OWN}/24 dev fwd0"));
    answers(false);
    // On another interface it is this host's just as well.
    ip(chain.fwd(), &format!("address add {OWN}/32 dev lo"));
    ip(chain.fwd(), "route add 10.77.0.0/24 dev fwd0");
    answers(true);
    let (ended, last) = running.stop();
    assert!(ended.status.success());
    last.assert_conserved();
}

/// Whoever would be locked out is warned, by --check too; and not where `keep` leaves enough.
#[test]
fn who_would_be_locked_out_is_warned() {
    let chain = chain(Chain::builder().addresses(true));
    ip(chain.fwd(), &format!("address add {OWN}/24 dev fwd0"));
    ip(chain.fwd(), "route add default via 10.77.0.1");
    echo(chain.fwd(), &format!("{OWN}:22"));
    let session = connect(chain.gen_(), &format!("{OWN}:22"));
    let warnings = |config: &str, connection: &str, arguments: &[&str]| {
        let config = Config::new(config);
        let mut command = chain.fwd().command(XDPFWD);
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
        let text = warnings(&with_keep("[]"), "", arguments);
        assert!(text.contains(route) && text.contains(ssh), "{text}");
        assert!(text.contains(r#":6:21: warning: fwd0"#), "with its place: {text}");
        let text = warnings(&with_keep(r#"["arp"]"#), "", arguments);
        assert!(!text.contains(route) && text.contains(ssh) && text.contains(r#"keep = ["arp", "tcp/22"]"#), "{text}");
        let text = warnings(&with_keep(r#"["arp", "tcp/22"]"#), "", arguments);
        assert!(!text.contains("fwd0 "), "{text}");
        // sshd on another port says so to those that it starts.
        let other = format!("10.77.0.1 50000 {OWN} 2222");
        let text = warnings(&with_keep(r#"["arp", "tcp/22"]"#), &other, arguments);
        assert!(text.contains(ssh) && text.contains(r#""tcp/2222""#), "{text}");
    }
    drop(session);
}
