//! Tests interfaces that vanish and come back while xdpfwd runs. Needs root.
//!
//! [`Network`] has two hosts that ping each other through the ports lan (`lan0`) and wan (`wan0`).

mod support;

use serde_json::Value;
use support::hosts::{Network, PORTS, RIGHT, report, stop, wait_for_report};
use support::{Config, XDPFWD, cross_connect_between, ip_batch};
use xdpfwd_lab::Namespace;
use xdpfwd_testkit::lab::{ping, sh, try_ping};
use xdpfwd_testkit::process::run;

#[test]
fn port_is_opened_again_when_its_interface_is_created_again() {
    for (engine, io) in [
        ("", "af_xdp"),
        ("mode = \"skb\"", "af_xdp"),
        ("", "packet"),
        ("", "packet-mmsg"),
        ("", "packet-mmap"),
    ] {
        let network = Network::new(1);
        let interface = "interface = \"wan0\"";
        let config =
            network.config(engine).replace(interface, &format!("{interface}\nio = \"{io}\""));
        let mut running = network.start(&config);
        let pid = running.forwarder.pid();
        network.wait_until_forwarding(&mut running);
        for losses in 1..=2 {
            network.disconnect(1);
            wait_for_report(&running, "wan is down", |report| {
                report["ports"][1]["state"] == "down"
                    && report["ports"][1]["losses"] == losses
                    && report["ports"][1]["link"].is_null()
            });
            let reason = report(&running)["ports"][1]["down_reason"].clone();
            assert!(reason.as_str().unwrap().contains("wan0"), "{reason}");
            // Packets from the other port are dropped and counted.
            let before = report(&running)["drops"]["port_down"].as_u64().unwrap();
            assert!(!try_ping(&network.hosts[0], RIGHT, &["-c2", "-W1"]).status.success());
            wait_for_report(&running, "packets are dropped as port_down", |report| {
                report["drops"]["port_down"].as_u64().unwrap() > before
            });
            network.connect(1);
            network.wait_until_forwarding(&mut running);
        }
        ping(&network.hosts[0], RIGHT, &["-c20", "-i0.01", "-W5"]);
        assert_eq!(running.forwarder.pid(), pid);
        let final_report = stop(running, 2);
        assert!(final_report["ports"][1]["down_seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(final_report["ports"][0]["losses"], 0);
    }
}

#[test]
fn both_ports_are_opened_again() {
    let network = Network::new(1);
    let mut running = network.start(&network.config(""));
    network.wait_until_forwarding(&mut running);
    // While both are down, no socket of the UMEM is bound.
    network.disconnect(0);
    network.disconnect(1);
    wait_for_report(&running, "both ports are down", |report| {
        report["ports"][0]["state"] == "down" && report["ports"][1]["state"] == "down"
    });
    network.connect(1);
    wait_for_report(&running, "wan is up", |report| report["ports"][1]["state"] == "up");
    network.connect(0);
    network.wait_until_forwarding(&mut running);
    let final_report = stop(running, 1);
    assert_eq!(final_report["ports"][0]["losses"], 1);
}

#[test]
fn port_with_two_queues_and_two_workers_is_opened_again() {
    for io in ["af_xdp", "packet-mmsg"] {
        let network = Network::new(2);
        let interface = "interface = \"wan0\"";
        let config = network
            .config("cores = [0, 1]")
            .replace(interface, &format!("{interface}\nio = \"{io}\""));
        let mut running = network.start(&config);
        network.wait_until_forwarding(&mut running);
        network.disconnect(1);
        wait_for_report(&running, "wan is down", |report| report["ports"][1]["state"] == "down");
        network.connect(1);
        network.wait_until_forwarding(&mut running);
        ping(&network.hosts[0], RIGHT, &["-c20", "-i0.01", "-W5"]);
        stop(running, 1);
    }
}

#[test]
fn port_is_opened_again_when_its_interface_returns_from_another_namespace() {
    let network = Network::new(1);
    let elsewhere = Namespace::create("elsewhere").unwrap();
    let mut running = network.start(&network.config(""));
    network.wait_until_forwarding(&mut running);
    let leave = format!("link set wan0 netns {}\n", elsewhere.name());
    let back = format!("link set wan0 netns {}\n", network.forwarder.name());
    // At once, and with a pause in which xdpfwd sees that the interface is missing.
    for (losses, pause) in [(1, false), (2, true)] {
        ip_batch(Some(&network.forwarder), &leave);
        if pause {
            wait_for_report(&running, "wan is down", |report| {
                report["ports"][1]["state"] == "down"
            });
        }
        ip_batch(Some(&elsewhere), &back);
        ip_batch(Some(&network.forwarder), "link set wan0 up\n");
        network.wait_until_forwarding(&mut running);
        wait_for_report(&running, "the loss is counted", |report| {
            report["ports"][1]["losses"] == losses
        });
    }
    stop(running, 2);
}

#[test]
fn filter_in_kernel_counts_and_drops_after_interface_is_created_again() {
    let network = Network::new(1);
    let config = network.config("").replacen(
        "to = \"wan\"",
        "to = \"wan\"\nstages = [\"fw\"]\n[stage.fw]\nkind = \"filter\"\nplace = \"kernel\"\n\
         default = \"accept\"\nrules = [\"drop proto udp dport 7777\"]\n[[path]]\nfrom = \"wan\"\n\
         to = \"lan\"",
        1,
    );
    let config = config.rsplit_once("[[path]]").unwrap().0.to_owned();
    let mut running = network.start(&config);
    network.wait_until_forwarding(&mut running);
    let send_dropped = || {
        let script = "exec 3<>/dev/udp/10.9.0.2/7777; for n in 1 2 3 4 5; do echo $n >&3; done";
        sh(&network.hosts[0], &format!("bash -c '{script}' 2>/dev/null || true"));
    };
    let dropped = |report: &Value| report["ports"][0]["xdp_drops"]["policy"].as_u64().unwrap();
    send_dropped();
    wait_for_report(&running, "five packets are dropped", |report| dropped(report) == 5);
    network.disconnect(0);
    wait_for_report(&running, "lan is down", |report| report["ports"][0]["state"] == "down");
    // A reload while the port is down replaces the program that will be attached.
    running.config.write(&config.replace("7777", "7778"));
    running.reload("INFO reloaded");
    network.connect(0);
    network.wait_until_forwarding(&mut running);
    send_dropped();
    running.config.write(&config);
    running.reload("INFO reloaded");
    send_dropped();
    // The counter continues.
    wait_for_report(&running, "ten packets are dropped", |report| dropped(report) == 10);
    stop(running, 0);
}

#[test]
fn link_flaps_under_load_lose_no_port() {
    let network = Network::new(1);
    let mut running = network.start(&network.config(""));
    network.wait_until_forwarding(&mut running);
    let load = network.load();
    for flap in 0..10 {
        // Each side in turn: of the port itself, and of the far end, so that the carrier goes.
        let (namespace, interface) =
            [(&network.forwarder, "wan0"), (&network.hosts[1], "right0")][flap % 2];
        ip_batch(Some(namespace), &format!("link set {interface} down\n"));
        ip_batch(Some(namespace), &format!("link set {interface} up\n"));
    }
    network.wait_until_forwarding(&mut running);
    drop(load);
    stop(running, 0);
}

fn recreate_under_load(rounds: u64) {
    let network = Network::new(1);
    // Few frames, so that a leak empties the pool.
    let config = network.config("") + "[umem]\nframes = 1024\n";
    let mut running = network.start(&config);
    network.wait_until_forwarding(&mut running);
    let pid = running.forwarder.pid();
    let load = network.load();
    for losses in 1..=rounds {
        network.disconnect(1);
        wait_for_report(&running, "the loss is counted", |report| {
            report["ports"][1]["losses"] == losses
        });
        network.connect(1);
        wait_for_report(&running, "wan is up", |report| report["ports"][1]["state"] == "up");
    }
    network.wait_until_forwarding(&mut running);
    drop(load);
    assert_eq!(running.forwarder.pid(), pid);
    stop(running, rounds);
}

#[test]
fn interface_created_again_under_load_leaks_no_frame() {
    recreate_under_load(20);
}

#[test]
#[ignore = "long: make test-long"]
fn interface_created_a_thousand_times_under_load_leaks_no_frame() {
    recreate_under_load(1000);
}

#[test]
#[ignore = "long: make test-long"]
fn hundred_link_flaps_under_load_lose_no_port() {
    let network = Network::new(1);
    let mut running = network.start(&network.config(""));
    network.wait_until_forwarding(&mut running);
    let load = network.load();
    for _ in 0..100 {
        ip_batch(Some(&network.forwarder), "link set wan0 down\nlink set wan0 up\n");
        network.wait_until_forwarding(&mut running);
    }
    drop(load);
    stop(running, 0);
}

#[test]
fn port_stays_down_with_reason_while_interface_is_not_usable() {
    let network = Network::new(1);
    let mut running = network.start(&network.config(""));
    network.wait_until_forwarding(&mut running);
    network.disconnect(1);
    let has_reason = |text: &'static str| {
        move |report: &Value| {
            report["ports"][1]["down_reason"].as_str().is_some_and(|reason| reason.contains(text))
        }
    };
    wait_for_report(&running, "the interface is missing", has_reason("wan0 has disappeared"));
    // An interface with this name that is down.
    ip_batch(Some(&network.forwarder), "link add wan0 type veth peer name other0\n");
    wait_for_report(&running, "the interface is down", has_reason("ip link set dev wan0 up"));
    // An interface that carries no Ethernet frames.
    ip_batch(
        Some(&network.forwarder),
        "link del wan0\ntuntap add dev wan0 mode tun\nlink set wan0 up\n",
    );
    wait_for_report(&running, "no Ethernet frames", has_reason("carries no Ethernet frames"));
    ip_batch(Some(&network.forwarder), "link del wan0\n");
    wait_for_report(&running, "the interface is missing", has_reason("wan0 does not exist"));
    // An unrelated interface with this name, which arrives from another namespace.
    let elsewhere = Namespace::create("elsewhere").unwrap();
    ip_batch(
        Some(&elsewhere),
        "link add wan0 type veth peer name other0\nlink set wan0 up\nlink set other0 up\n",
    );
    ip_batch(Some(&elsewhere), &format!("link set wan0 netns {}\n", network.forwarder.name()));
    ip_batch(Some(&network.forwarder), "link set wan0 up\n");
    wait_for_report(&running, "wan is up", |report| report["ports"][1]["state"] == "up");
    ip_batch(Some(&network.forwarder), "link del wan0\n");
    network.connect(1);
    network.wait_until_forwarding(&mut running);
    stop(running, 2);
}

/// An interface with fewer queues than the port: the first queues can be bound, and each attempt
/// must give their frames back. The other port goes on.
#[test]
fn attempts_with_too_few_queues_do_not_drain_the_pool() {
    let mut network = Network::new(2);
    let config = network.config("") + "[umem]\nframes = 1024\n";
    let mut running = network.start(&config);
    network.wait_until_forwarding(&mut running);
    network.disconnect(1);
    wait_for_report(&running, "wan is down", |report| report["ports"][1]["state"] == "down");
    network.queues = 1;
    network.connect(1);
    wait_for_report(&running, "the second queue is missing", |report| {
        report["ports"][1]["down_reason"].as_str().is_some_and(|why| why.contains("queue 1"))
    });
    // Several attempts, each after a change of the interface.
    for _ in 0..10 {
        ip_batch(Some(&network.forwarder), "link set wan0 down\nlink set wan0 up\n");
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    let frames = report(&running)["frames"].clone();
    let count = |key: &str| frames[key].as_u64().unwrap();
    // At most the frames of one attempt: a fill ring has an eighth of them.
    assert!(count("quarantined") <= 128 && count("pool") >= 512, "{frames}");
    network.disconnect(1);
    network.queues = 2;
    network.connect(1);
    network.wait_until_forwarding(&mut running);
    stop(running, 1);
}

#[test]
fn interface_with_alternative_name_is_not_taken_for_renamed() {
    let network = Network::new(1);
    ip_batch(Some(&network.forwarder), "link property add dev wan0 altname uplink\n");
    let config = network.config("").replace("\"wan0\"", "\"uplink\"");
    let mut running = network.start(&config);
    network.wait_until_forwarding(&mut running);
    network.disconnect(1);
    wait_for_report(&running, "wan is down", |report| report["ports"][1]["state"] == "down");
    network.connect(1);
    ip_batch(Some(&network.forwarder), "link property add dev wan0 altname uplink\n");
    network.wait_until_forwarding(&mut running);
    assert_eq!(running.count_log_lines("was renamed"), 0, "{:#?}", running.forwarder.stderr());
    stop(running, 1);
}

#[test]
fn xdp_program_detached_by_another_program_is_attached_again() {
    let network = Network::new(1);
    let mut running = network.start(&network.config(""));
    network.wait_until_forwarding(&mut running);
    let index = sh(&network.forwarder, "ip -json link show wan0");
    let index = serde_json::from_str::<Value>(&index).unwrap()[0]["ifindex"].to_string();
    let link = link_id(running.forwarder.pid(), &index);
    run(std::process::Command::new("bpftool").args(["link", "detach", "id", &link]));
    wait_for_report(&running, "the loss is counted", |report| report["ports"][1]["losses"] == 1);
    network.wait_until_forwarding(&mut running);
    assert_ne!(link_id(running.forwarder.pid(), &index), link);
    assert!(running.count_log_lines("has detached the XDP program of interface wan0") > 0);
    stop(running, 1);
}

/// Returns the number of the BPF link of a process on an interface.
fn link_id(pid: u32, interface: &str) -> String {
    let folder = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let files = folder.filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok());
    let field = |text: &str, name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned())
    };
    let mut ids = files
        .filter(|text| field(text, "ifindex").as_deref() == Some(interface))
        .filter_map(|text| field(&text, "link_id"));
    ids.next().expect("the process has no BPF link on this interface")
}

/// While xdpfwd waits for an interface, it must still stop on a signal.
#[test]
fn xdpfwd_stops_while_port_is_down() {
    let network = Network::new(1);
    let running = network.start(&network.config(""));
    network.disconnect(1);
    wait_for_report(&running, "wan is down", |report| report["ports"][1]["state"] == "down");
    let (exit, final_report) = running.stop();
    assert_eq!(exit.status.code(), Some(0));
    let port = &final_report.json["ports"][1];
    assert_eq!((&port["state"], &port["losses"]), (&"down".into(), &1.into()));
    assert_eq!(final_report.json["frames"]["leaked"], 0);
}

#[test]
fn wrong_value_of_on_port_loss_is_refused() {
    let config = Config::new(&cross_connect_between(PORTS, 1, "on_port_loss = \"retry\""));
    let mut command = std::process::Command::new(XDPFWD);
    let output = command.args(["--config", config.path(), "--check"]).output().unwrap();
    let text = support::stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("\"wait\" or \"exit\""), "{text}");
}
