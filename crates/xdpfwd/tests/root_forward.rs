//! Tests forwarding of ping, TCP, iperf3 and generated traffic, and compares the counters of
//! xdpfwd, the kernel and the lab. Needs root.
//!
//! [`build_lab`] connects gen0 to fwd0 and fwd1 to sink0. `cross_connect(queues, engine)` returns a
//! configuration that forwards between fwd0 and fwd1, with `engine` in its table `[engine]`.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::iperf3::{GEN_ADDRESS, SINK_ADDRESS, transfer_both_ways};
use support::{Running, TIMEOUT, build_lab, cross_connect, run_with_grants};
use xdpfwd_lab::{Chain, Sink, Traffic};
use xdpfwd_testkit::lab::ping;
use xdpfwd_testkit::process::run;

fn on_one_and_two_queues(test: impl Fn(&Chain)) {
    for queues in [1, 2] {
        let lab = build_lab(Chain::builder().queues(queues).addresses(true));
        let running = Running::start(&lab, &cross_connect(queues, ""));
        test(&lab);
        let (exit, final_report) = running.stop();
        assert!(exit.status.success(), "{exit:?}");
        final_report.assert_frames_and_packets_add_up();
        assert_eq!(final_report.parsed.drops.values().sum::<u64>(), 0, "{}", final_report.json);
        for port in &final_report.parsed.ports {
            assert!(
                port.rx_packets > 0 && port.tx_packets > 0,
                "{queues} queues: {}",
                final_report.json
            );
        }
    }
}

#[test]
fn ping_passes_both_ways() {
    on_one_and_two_queues(|lab| {
        for (from, to) in [(lab.gen_(), SINK_ADDRESS), (lab.sink(), GEN_ADDRESS)] {
            // Small packets, large packets, and many at once.
            for arguments in
                [["-c5", "-i0.2", "-s56"], ["-c5", "-i0.2", "-s1472"], ["-c200", "-f", "-s100"]]
            {
                ping(from, to, &arguments);
            }
        }
    });
}

/// xdpfwd must not hold a packet until the next one arrives.
#[test]
fn slow_tcp_conversation_is_not_delayed() {
    on_one_and_two_queues(|lab| {
        for (client, server, address) in
            [(lab.gen_(), lab.sink(), SINK_ADDRESS), (lab.sink(), lab.gen_(), GEN_ADDRESS)]
        {
            let address: SocketAddr = format!("{address}:7777").parse().unwrap();
            let listener = server.run(|| TcpListener::bind(address).unwrap()).unwrap();
            let echo = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() {
                    stream.write_all(&byte).unwrap();
                }
            });
            let mut stream =
                client.run(|| TcpStream::connect_timeout(&address, TIMEOUT).unwrap()).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            let start = Instant::now();
            for round in 0..20 {
                let mut byte = [0];
                stream.write_all(&[round]).unwrap();
                stream.read_exact(&mut byte).unwrap();
                assert_eq!(byte, [round]);
                thread::sleep(Duration::from_millis(10));
            }
            // If xdpfwd held a packet, the next one would be TCP's retransmission, after 200 ms.
            assert!(
                start.elapsed() < Duration::from_millis(20 * 200),
                "20 rounds took {:?}",
                start.elapsed()
            );
            drop(stream);
            echo.join().unwrap();
        }
    });
}

#[test]
fn iperf3_moves_data_both_ways() {
    on_one_and_two_queues(|lab| {
        let received_bytes = transfer_both_ways(lab, ["--time", "2"]);
        assert!(received_bytes.iter().all(|&bytes| bytes > 1_000_000), "{received_bytes:?} bytes");
    });
}

#[test]
fn twenty_thousand_packets_arrive_complete_and_in_order() {
    for (size, flows) in [(60, 1), (60, 100), (590, 16), (1514, 16)] {
        assert_all_arrive(size, flows, 20_000);
    }
}

#[test]
#[ignore = "long: make test-long"]
fn ten_million_packets_arrive_complete_and_in_order() {
    assert_all_arrive(60, 100, 10_000_000);
}

fn assert_all_arrive(size: u16, flows: u32, packets: u64) {
    let lab = build_lab(Chain::builder());
    let running = Running::start(&lab, &cross_connect(1, "cores = [1]"));
    let sink = Sink::builder().check(true).attach(lab.sink(), "sink0").unwrap();
    // `run_with_grants` limits the packets in flight, so that none is lost.
    let traffic = Traffic::new().size(size).flows(flows).count(packets).on_grant().core(0);
    let generator = traffic.start(lab.gen_(), "gen0").unwrap();
    let arrived = run_with_grants(&[(&generator, &sink)], || {
        let (mut arrived, mut last_arrival) = (0, Instant::now());
        while arrived < packets && last_arrival.elapsed() < TIMEOUT {
            thread::sleep(Duration::from_millis(1));
            let now = sink.seen().unwrap().arrived.packets;
            if now > arrived {
                (arrived, last_arrival) = (now, Instant::now());
            }
        }
        arrived
    });
    let sent = generator.stop().unwrap();
    assert_eq!(sent.packets, packets, "number of packets sent; {arrived} have arrived");
    let (_, final_report) = running.stop();
    let seen = sink.seen().unwrap();
    assert!(seen.is_clean(), "{size} bytes, {flows} flows: {seen:?}");
    assert_eq!(
        (seen.arrived.packets, seen.arrived.bytes),
        (packets, packets * u64::from(size)),
        "{}",
        final_report.json
    );
    final_report.assert_frames_and_packets_add_up();
    assert_eq!(final_report.parsed.port("fwd0").unwrap().rx_packets, packets);
}

#[test]
fn overload_of_ten_seconds_counts_every_lost_packet() {
    assert_overload_is_counted(Duration::from_secs(10));
}

#[test]
#[ignore = "long: make test-long"]
fn overload_of_five_minutes_counts_every_lost_packet() {
    assert_overload_is_counted(Duration::from_secs(300));
}

/// Checks that under overload, xdpfwd forwards each packet or counts it as lost. Its counters must
/// match those of the kernel and the lab.
fn assert_overload_is_counted(duration: Duration) {
    let lab = build_lab(Chain::builder());
    let running = Running::start(&lab, &cross_connect(1, "cores = [1]"));
    let sink = Sink::attach(lab.sink(), "sink0").unwrap();
    let generator = Traffic::new().size(60).flows(16).core(0).start(lab.gen_(), "gen0").unwrap();
    thread::sleep(duration);
    let (exit, final_report) = running.stop();
    let sent = generator.stop().unwrap();
    assert!(exit.status.success() && !exit.killed, "{exit:?}");
    final_report.assert_frames_and_packets_add_up();
    let (lan, wan) =
        (final_report.parsed.port("fwd0").unwrap(), final_report.parsed.port("fwd1").unwrap());
    assert!(sent.packets > lan.rx_packets, "no overload: xdpfwd received all packets");
    assert_eq!(
        sink.seen().unwrap().arrived.packets,
        wan.tx_packets,
        "the sink and xdpfwd count different numbers of sent packets"
    );
    let kernel = &final_report.json["ports"][0]["kernel"];
    let lost = kernel["rx_ring_full"].as_u64().unwrap() + kernel["rx_dropped"].as_u64().unwrap();
    assert_eq!(lan.xdp_redirected.unwrap(), lan.rx_packets + lost, "{}", final_report.json);
    assert_eq!(
        kernel_tx_counters(&lab, "fwd1"),
        (wan.tx_packets, 0),
        "packets that fwd1 sent and dropped: `ip -s link` differs from xdpfwd"
    );
}

#[test]
fn final_counters_match_kernel_and_lab_both_ways() {
    for queues in [1, 2] {
        let lab = build_lab(Chain::builder().queues(queues));
        let cores: &str = if queues == 1 { "cores = [1]" } else { "cores = [0, 1]" };
        let mut running = Running::start(&lab, &cross_connect(queues, cores));
        let sink_at_sink0 = Sink::attach(lab.sink(), "sink0").unwrap();
        let sink_at_gen0 = Sink::attach(lab.gen_(), "gen0").unwrap();
        let mut generators = vec![];
        for core in 0..usize::from(queues) {
            for (namespace, interface) in [(lab.gen_(), "gen0"), (lab.sink(), "sink0")] {
                generators
                    .push(Traffic::new().flows(16).core(core).start(namespace, interface).unwrap());
            }
        }
        thread::sleep(Duration::from_secs(2));
        running.signal(Signal::SIGTERM);
        running.wait();
        let (exit, final_report) = running.stop();
        for generator in generators {
            generator.stop().unwrap();
        }
        assert_eq!((exit.status.code(), exit.killed), (Some(0), false));
        final_report.assert_frames_and_packets_add_up();
        let mut all_dropped = 0;
        for (index, interface, sink) in [(0, "fwd0", &sink_at_gen0), (1, "fwd1", &sink_at_sink0)] {
            let port = final_report.parsed.port(interface).unwrap();
            assert!(
                port.rx_packets > 0 && port.tx_packets > 0,
                "{queues} queues: {}",
                final_report.json
            );
            // Each redirected packet arrived, or the kernel counted its loss.
            let kernel = &final_report.json["ports"][index]["kernel"];
            let lost =
                kernel["rx_ring_full"].as_u64().unwrap() + kernel["rx_dropped"].as_u64().unwrap();
            assert_eq!(
                port.xdp_redirected.unwrap(),
                port.rx_packets + lost,
                "{queues} queues: {}",
                final_report.json
            );
            let (sent, dropped) = kernel_tx_counters(&lab, interface);
            all_dropped += dropped;
            assert_eq!(
                port.tx_packets,
                sent + dropped,
                "{queues} queues, {interface}: {}",
                final_report.json
            );
            assert_eq!(
                sink.seen().unwrap().arrived.packets,
                sent,
                "{queues} queues, {interface}: {}",
                final_report.json
            );
        }
        let tx_dropped = final_report.json["kernel"]["tx_dropped"].as_u64().unwrap();
        assert!(
            tx_dropped <= all_dropped,
            "tx_dropped is {tx_dropped}, but the interfaces dropped only {all_dropped}"
        );
        println!(
            "{queues} queues: {} sent; tx_dropped counts {tx_dropped} of {all_dropped} drops",
            final_report.parsed.transmitted()
        );
    }
}

/// Returns the packets that the kernel sent and dropped, from `ip -s link`.
fn kernel_tx_counters(lab: &Chain, interface: &str) -> (u64, u64) {
    let mut command = lab.fwd().command("ip");
    command.args(["-json", "-statistics", "link", "show", interface]);
    let links: serde_json::Value = serde_json::from_str(&run(&mut command)).unwrap();
    let tx = &links[0]["stats64"]["tx"];
    (tx["packets"].as_u64().unwrap(), tx["dropped"].as_u64().unwrap())
}

#[test]
fn two_workers_forward_one_queue_each() {
    let lab = build_lab(Chain::builder().queues(2));
    let running = Running::start(&lab, &cross_connect(2, "cores = [0, 1]"));
    let sink = Sink::attach(lab.sink(), "sink0").unwrap();
    // A veth selects the queue by the core that sends.
    for core in [0, 1] {
        let traffic = Traffic::new().rate(20_000).count(5_000).core(core);
        let generator = traffic.start(lab.gen_(), "gen0").unwrap();
        generator.finish(TIMEOUT).unwrap();
    }
    let (_, final_report) = running.stop();
    final_report.assert_frames_and_packets_add_up();
    assert_eq!(final_report.json["workers"], 2);
    assert_eq!(final_report.json["frames"]["total"], 2 * 16384); // the default for each worker
    assert_eq!(
        final_report.parsed.port("fwd1").unwrap().tx_packets,
        10_000,
        "{}",
        final_report.json
    );
    assert_eq!(sink.seen().unwrap().arrived.packets, 10_000);
}

#[test]
fn mac_swap_on_one_port_sends_packets_back() {
    let lab = build_lab(Chain::builder());
    let config = r#"
        [[port]]
        name = "only"
        interface = "fwd0"
        [[path]]
        from = "only"
        to = "only"
        stages = ["swap"]
        [stage.swap]
        kind = "mac-swap"
    "#;
    let running = Running::start(&lab, config);
    let sink = Sink::builder().check(true).attach(lab.gen_(), "gen0").unwrap();
    let generator =
        Traffic::new().rate(10_000).count(5_000).core(0).start(lab.gen_(), "gen0").unwrap();
    generator.finish(TIMEOUT).unwrap();
    let (_, final_report) = running.stop();
    final_report.assert_frames_and_packets_add_up();
    let seen = sink.seen().unwrap();
    assert!(seen.is_clean(), "{seen:?}");
    assert_eq!(seen.arrived.packets, 5_000);
    assert_eq!(final_report.json["stages"][0]["packets"], 5_000);
    assert!(
        final_report.json["stages"][0]["cycles_per_packet"].as_f64().unwrap() > 0.0,
        "{}",
        final_report.json
    );
}

#[test]
fn memcpy_sends_packets_unchanged_and_reports_its_cycles() {
    let lab = build_lab(Chain::builder());
    let config = r#"
        [[port]]
        name = "lan"
        interface = "fwd0"
        [[port]]
        name = "wan"
        interface = "fwd1"
        [[path]]
        from = "lan"
        to = "wan"
        stages = ["control"]
        [stage.control]
        kind = "memcpy"
        copies = 1024
    "#;
    let running = Running::start(&lab, config);
    let sink = Sink::builder().check(true).attach(lab.sink(), "sink0").unwrap();
    let traffic = Traffic::new().size(1514).rate(2_000).count(1_000).core(0);
    traffic.start(lab.gen_(), "gen0").unwrap().finish(TIMEOUT).unwrap();
    let (_, final_report) = running.stop();
    final_report.assert_frames_and_packets_add_up();
    let seen = sink.seen().unwrap();
    assert!(seen.is_clean() && seen.arrived.packets == 1_000, "{seen:?}");
    let stage = &final_report.json["stages"][0];
    assert_eq!(stage["packets"], 1_000);
    // No processor copies 1514 bytes in a cycle.
    assert!(stage["cycles_per_packet"].as_f64().unwrap() > 1024.0, "{stage}");
}

#[test]
fn idle_poll_uses_less_cpu_than_idle_spin() {
    let idle_ticks = |idle: &str| {
        let lab = build_lab(Chain::builder());
        let running = Running::start(&lab, &cross_connect(1, &format!("idle = \"{idle}\"")));
        let before = cpu_ticks(running.forwarder.pid());
        thread::sleep(Duration::from_secs(2));
        let ticks = cpu_ticks(running.forwarder.pid()) - before;
        let (_, final_report) = running.stop();
        final_report.assert_frames_and_packets_add_up();
        ticks
    };
    let (poll, spin) = (idle_ticks("poll"), idle_ticks("spin"));
    assert!(poll * 5 < spin, "clock ticks: {poll} with poll, {spin} with spin");
}

/// Returns CPU time in clock ticks: fields 14 and 15 of proc_pid_stat(5). The first field after the
/// name in parentheses is field 3.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
