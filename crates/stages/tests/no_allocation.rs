//! Checks, with a counting allocator, that the stages and the worker allocate no memory per packet.

#[path = "support/esp.rs"]
mod esp;

use std::path::Path;

use esp::EspFiles as _;
use xdpfwd_pipeline::{BuildCx, NamedStage, PlanCx};
use xdpfwd_stages::{MacSwap, Memcpy, SetMac, Ttl};
use xdpfwd_testkit::wires::cross_connect;
use xdpfwd_wire::MacAddr;

fn udp() -> Vec<u8> {
    let mut packet = vec![0; 64];
    packet[..34].copy_from_slice(
        b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0\x45\0\0\x32\0\0\0\0\x40\x11\x66\xb9\x0a\0\0\x01\x0a\0\0\x02",
    );
    packet[39] = 30; // UDP length
    packet
}

#[test]
fn worker_does_not_allocate_per_packet() {
    let set_mac = || SetMac { source: Some(MacAddr([2, 0, 0, 0, 0, 1])), destination: None };
    // Enough `drop` rules for the classifier to use hash tables, and two rate limits. `continue`
    // gives no verdict.
    let filter = || {
        let drop_rules: String = (0..200)
            .map(|n| format!("\"drop src 172.16.{n}.0/24 proto udp dport {n}\","))
            .collect();
        let table = format!(
            "{{ default = \"drop\", rules = [{drop_rules} \"continue proto udp limit 1Gbps\", \"accept src 10.0.0.0/8 limit 1Mpps per src/24\"], flow_cache = 256 }}"
        );
        let workers = 1;
        let cx = PlanCx::new(Path::new("."), workers);
        let plan = xdpfwd_testkit::plan("filter", &table, &cx).unwrap();
        NamedStage::build("filter", &*plan, &BuildCx::default())
    };
    // Patterns of 1 to 19 zeros, each a prefix of the next, with three different offsets. The
    // payload of `udp()` contains them.
    let payload = || {
        let signatures: String = (1..20)
            .map(|n| format!("'continue hex \"{}\" offset {}',", "00".repeat(n), n % 3))
            .collect();
        let cx = PlanCx::new(Path::new("."), 1);
        let table = format!("{{ signatures = [{signatures} 'drop dport 9 text \"a\"'] }}");
        let plan = xdpfwd_testkit::plan("payload", &table, &cx).unwrap();
        NamedStage::build("payload", &*plan, &BuildCx::default())
    };
    let boxed_stages = || {
        let (ttl, swap) =
            (NamedStage::new("ttl", Ttl::default()), NamedStage::new("swap", MacSwap));
        let memcpy = NamedStage::build("memcpy", &Memcpy::new(8).unwrap(), &BuildCx::default());
        vec![ttl, filter(), payload(), memcpy, swap]
    };

    // The stages of `fixed` are chosen at compile time, those of `boxed` at run time.
    let (mut fixed, fixed_wires) =
        cross_connect((Ttl::default(), MacSwap, set_mac()), (Ttl::default(), MacSwap, set_mac()));
    let (mut boxed, boxed_wires) = cross_connect(boxed_stages(), boxed_stages());
    let packet = udp();
    for round in 0..20 {
        for _ in 0..60 {
            fixed_wires.lan.deliver(&packet).unwrap();
            boxed_wires.wan.deliver(&packet).unwrap();
        }
        // Recording frames allocates.
        fixed_wires.wan.set_recording(false);
        boxed_wires.lan.set_recording(false);
        let info = allocation_counter::measure(|| {
            assert_eq!(fixed.poll_once(), 60);
            assert_eq!(boxed.poll_once(), 60);
            assert_eq!(fixed.poll_once(), 0);
        });
        assert_eq!(info.count_total, 0, "round {round}: {info:?}");
    }
    assert_eq!(fixed.report().queues[1].counters.tx_packets, 1200);
    assert_eq!(boxed.report().queues[0].counters.tx_packets, 1200, "{:?}", boxed.report());
    assert!(
        allocation_counter::measure(|| drop(fixed.report())).count_total > 0,
        "expected the counting allocator to count the allocations of a report"
    );
}

/// Tests tunnel mode over IPv6, tunnel mode over IPv4 and UDP, and transport mode.
#[test]
fn esp_does_not_allocate_per_packet() {
    let folder = esp::Folder::new();
    let tunnel = "source = '2001:db8::1', destination = '2001:db8::2'";
    for (case, (transform, seal, open)) in [
        ("aes-128-gcm", tunnel, ""),
        (
            "aes-256-gcm",
            "source = '192.0.2.1', destination = '192.0.2.2', udp_ports = [4500, 4500]",
            "udp_port = 4500",
        ),
        ("chacha20-poly1305", "mode = 'transport'", "mode = 'transport'"),
        ("null-aes-128-gmac", tunnel, ""),
    ]
    .into_iter()
    .enumerate()
    {
        let key = folder.key(&format!("{case}.key"), esp::key_of(transform));
        let stages = [("esp-seal", seal), ("esp-open", open)].map(|(kind, more_sa_keys)| {
            let state = folder.state(&format!("{case}-{kind}.state"));
            let icmp_rate = if kind == "esp-seal" { ", icmp_rate = 1000000" } else { "" };
            let comma = if more_sa_keys.is_empty() { "" } else { "," };
            esp::build(&esp::plan(
                kind,
                &format!(
                    "{{ lab = true, tcp_mss = 1000, state_file = '{state}', sa = [{{ spi = 4096, transform = '{transform}', key_file = '{key}'{comma} {more_sa_keys} }}]{icmp_rate} }}"
                ),
            ))
        });
        let mut bench = esp::EspBench::new(stages.into());
        let packets = [esp::udp_v4(100), esp::udp_v6(1000)];
        for round in 0..20 {
            for packet in packets.iter().cycle().take(60) {
                bench.wires.lan.deliver(packet).unwrap();
            }
            // This IPv4 packet is too big: the stage answers with an ICMP error. The packet of
            // zeros is not IP: the stage drops it.
            bench
                .wires
                .lan
                .deliver(&esp::ipv4(17, esp::SOURCE_V4, esp::DESTINATION_V4, 0x4000, &[0; 1480]))
                .unwrap();
            bench.wires.lan.deliver(&[0; 60]).unwrap();
            bench.wires.lan.set_recording(false);
            bench.wires.wan.set_recording(false);
            let info = allocation_counter::measure(|| {
                assert_eq!(bench.worker.poll_once(), 62);
                assert_eq!(bench.worker.poll_once(), 0);
            });
            assert_eq!(info.count_total, 0, "round {round} of {transform}: {info:?}");
        }
        let report = bench.worker.report();
        let sent = report.queues.iter().map(|queue| queue.counters.tx_packets).collect::<Vec<_>>();
        assert_eq!(sent, [20, 1200], "{:?}", report.drops);
    }
}
