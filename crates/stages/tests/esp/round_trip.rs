//! Tests of `esp-seal` followed by `esp-open`: packets are restored, and no frame is lost.

use std::cell::{Cell, RefCell};

use proptest::prop_assert;
use proptest::test_runner::{Config, TestRunner};
use xdpfwd_xsk::fake_kernel::FakeKernelConfig;

use super::support::*;

/// ESP does not protect the IP header before it, so the stages must not hide damage to that header.
#[test]
fn invalid_ip_checksum_stays_invalid() {
    let folder = Folder::new();
    for mode in ["tunnel", "transport"] {
        // In transport mode, an SA needs no addresses, so `OPEN` also suits `esp-seal`.
        let seal =
            if mode == "tunnel" { SEAL.to_owned() } else { format!("{OPEN}, mode = 'transport'") };
        let open = format!("{OPEN}, mode = '{mode}'");
        let mut seal =
            bench(&plan("esp-seal", &table(&folder, &format!("{mode}-seal.state"), &[&seal], "")));
        let mut open =
            bench(&plan("esp-open", &table(&folder, &format!("{mode}-open.state"), &[&open], "")));
        // Flip a bit in the TTL of the first packet before encapsulation, and of the second after
        // it.
        let mut before = udp_v4(20);
        before[22] ^= 4;
        let sealed = seal.forward(&[before.clone(), udp_v4(20)]);
        let is_valid = |frame: &[u8]| ones_complement_sum(&frame[14..34]) == 0;
        // In tunnel mode, `is_valid` checks the outer header.
        assert_eq!(
            sealed.iter().map(|frame| is_valid(frame)).collect::<Vec<_>>(),
            [mode == "tunnel", true]
        );
        let mut changed_after = sealed[1].clone();
        changed_after[22] ^= 4;
        let opened = open.forward(&[sealed[0].clone(), changed_after]);
        assert_eq!(opened[0], before);
        assert_eq!(is_valid(&opened[1]), mode == "tunnel", "{mode}");
    }
}

#[test]
fn decapsulation_restores_encapsulated_packet() {
    let folder = Folder::new();
    let encapsulations = encapsulations();
    for (index, sa) in encapsulations.iter().enumerate() {
        let open = sa
            .split(", source")
            .next()
            .unwrap()
            .replace("udp_ports = [4500, 4500]", "udp_port = 4500");
        let stages = [("esp-seal", sa), ("esp-open", &open)].map(|(kind, sa)| {
            build(&plan(
                kind,
                &table(&folder, &format!("{index}-{kind}.state"), &[sa], ", bypass = ['not-ip']"),
            ))
        });
        let bench = RefCell::new(EspBench::new(stages.into()));
        let passed = Cell::new(0);
        let mut runner =
            TestRunner::new(Config { cases: 1500, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&random_frame(), |frame| {
            if let Disposition::Passed(got) = bench.borrow_mut().send_one(&frame) {
                prop_assert!(
                    frame.starts_with(&got),
                    "{got:02x?} is not the beginning of {frame:02x?}"
                );
                passed.set(passed.get() + 1);
            }
            Ok(())
        });
        outcome.unwrap();
        assert!(passed.get() > 200, "only {} of 1500 frames passed", passed.get());
        bench.into_inner().assert_balanced();
    }
}

#[test]
fn backends_interoperate() {
    let folder = Folder::new();
    let packets: Vec<Vec<u8>> =
        (0..100).flat_map(|size| [udp_v4(size), udp_v6(1400 - size)]).collect();
    for (index, sa) in encapsulations().iter().enumerate() {
        for transform in TRANSFORMS {
            let sa = sa.replace("aes-128-gcm", transform).replace("null-aes-256-gmac", transform);
            let open = sa
                .split(", source")
                .next()
                .unwrap()
                .replace("udp_ports = [4500, 4500]", "udp_port = 4500");
            for backends in [["aws-lc", "rustcrypto"], ["rustcrypto", "aws-lc"]] {
                let mut backends = backends.iter();
                let stages = [("esp-seal", &sa), ("esp-open", &open)].map(|(kind, sa)| {
                    let backend = backends.next().unwrap();
                    let state = format!("{index}-{transform}-{kind}-{backend}.state");
                    let mtu = if kind == "esp-seal" { ", mtu = 9216" } else { "" };
                    let other_keys = format!(", backend = '{backend}'{mtu}");
                    build(&plan(kind, &table(&folder, &state, &[sa], &other_keys)))
                });
                assert_eq!(EspBench::new(stages.into()).forward(&packets), packets, "{sa}");
            }
        }
    }
}

#[test]
fn no_frame_is_lost_with_faulty_kernel() {
    let folder = Folder::new();
    let stages = |end: &str| {
        let sas = [format!("{SEAL}, selector = ['10.2.0.0/16']"), OPEN.to_owned()];
        vec![
            build(&plan(
                "esp-seal",
                &table(&folder, &format!("{end}-seal.state"), &[&sas[0]], ", icmp_rate = 1000000"),
            )),
            build(&plan("esp-open", &table(&folder, &format!("{end}-open.state"), &[&sas[1]], ""))),
        ]
    };
    let mut bench = EspBench::with_both_paths(stages("lan"), stages("wan"));
    let mut frames =
        [udp_v4(5), packet_of_size(1500, false), udp_v6(5), ethernet(0x0806, &[0; 46])]
            .into_iter()
            .cycle();
    for round in 0..600_u32 {
        bench.wires.wan.set(match round / 20 % 5 {
            0 => FakeKernelConfig::default(),
            1 => FakeKernelConfig { budget: 0, ..FakeKernelConfig::default() },
            2 => FakeKernelConfig {
                errors: [16, 11, 105, 100].into(), // EBUSY, EAGAIN, ENOBUFS, ENETDOWN
                ..FakeKernelConfig::default()
            },
            3 => FakeKernelConfig { completion_delay: None, ..FakeKernelConfig::default() },
            _ => FakeKernelConfig { ignored_wakeups: 3, ..FakeKernelConfig::default() },
        });
        for wire in [&bench.wires.lan, &bench.wires.wan] {
            for _ in 0..round % 50 {
                bench.accounting.delivered +=
                    u64::from(wire.deliver(&frames.next().unwrap()).is_ok());
            }
        }
        bench.worker.poll_once();
        bench.accounting.balance(&mut bench.worker, &bench.wires);
    }
    assert!(bench.counter("icmp_sent") > 100, "expected more than 100 ICMP messages");
    assert!(bench.drops().iter().any(|(reason, _)| *reason == "no_sa"), "{:?}", bench.drops());
    assert!(bench.accounting.sent > 1000, "{:?}", bench.accounting);
}
