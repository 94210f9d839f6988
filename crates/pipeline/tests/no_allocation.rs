//! Nothing is allocated per packet: counted, not believed.

mod support;

use std::path::Path;

use pipeline::stages::{MacSwap, SetMac, Ttl};
use pipeline::wire::MacAddr;
use pipeline::{BuildCx, NamedStage, PlanCx, Registry, Stage};
use support::cross_connect;

fn udp() -> Vec<u8> {
    let mut packet = vec![0; 64];
    packet[..34].copy_from_slice(
        b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0\x45\0\0\x32\0\0\0\0\x40\x11\x66\xb9\x0a\0\0\x01\x0a\0\0\x02",
    );
    packet[39] = 30; // UDP's length
    packet
}

#[test]
fn a_worker_at_work_allocates_nothing() {
    let set_mac = || SetMac { source: Some(MacAddr([2, 0, 0, 0, 0, 1])), destination: None };
    let boxed = |name: &str, stage: Box<dyn Stage>| NamedStage { name: name.into(), stage };
    // Enough rules for the classifier's tables, one with a limit, one that goes on.
    let filter = || {
        let many: String = (0..200).map(|n| format!("\"drop src 172.16.{n}.0/24 proto udp dport {n}\",")).collect();
        let table = format!(
            "{{ default = \"drop\", rules = [{many} \"continue proto udp limit 1Gbps\", \"accept src 10.0.0.0/8 limit 1Mpps per src/24\"], flow_cache = 256 }}"
        );
        let cx = PlanCx { directory: Path::new("."), workers: 1 };
        let table = toml::de::ValueDeserializer::parse(table.leak()).unwrap();
        Registry::builtin().plan("filter", table, &cx).unwrap().build(&BuildCx {
            worker: 0,
            workers: 1,
            ..BuildCx::default()
        })
    };
    let dynamic =
        || vec![boxed("ttl", Box::<Ttl>::default()), boxed("filter", filter()), boxed("swap", Box::new(MacSwap))];

    let (mut fixed, fixed_wires) =
        cross_connect((Ttl::default(), MacSwap, set_mac()), (Ttl::default(), MacSwap, set_mac()));
    let (mut planned, planned_wires) = cross_connect(dynamic(), dynamic());
    let packet = udp();
    for round in 0..20 {
        // The fake kernel keeps a copy of what it sends, so its share is measured apart: a wake-up belongs to it.
        for _ in 0..60 {
            fixed_wires.lan.deliver(&packet).unwrap();
            planned_wires.wan.deliver(&packet).unwrap();
        }
        fixed_wires.wan.set_recording(false);
        planned_wires.lan.set_recording(false);
        let info = allocation_counter::measure(|| {
            assert_eq!(fixed.turn(), 60);
            assert_eq!(planned.turn(), 60);
            assert_eq!(fixed.turn(), 0);
        });
        assert_eq!(info.count_total, 0, "round {round}: {info:?}");
    }
    assert_eq!(fixed.report().queues[1].counters.tx_packets, 1200);
    assert_eq!(planned.report().queues[0].counters.tx_packets, 1200, "{:?}", planned.report());
    assert!(allocation_counter::measure(|| drop(fixed.report())).count_total > 0, "the counter counts");
}
