//! `xdpfwd doctor` on real drivers, in the test machine (`make vmtest`; crates/vm): what the lab's veths cannot show.

mod support;

use lab::Namespace;
use support::cables::{Cables, best, kernel_has_zero_copy};
use support::examined::{Examined, apply, line};

fn examine(cables: &Cables, queues: u16, engine: &str) -> Examined {
    Examined::of_config(&cables.forwarder, &cables.config(queues, engine))
}

#[test]
fn the_mode_that_is_got_is_told_before_a_start() {
    for near in [["v0", "v1"], ["i0", "i1"], ["v0", "i1"]] {
        let cables = Cables::new(near);
        cables.set_queues(1);
        let examined = examine(&cables, 1, "");
        // A network namespace in which nothing was ever configured can be read, too.
        let findings = examined.json["findings"].as_array().unwrap();
        assert!(findings.iter().all(|finding| finding["check"] != "lockout"), "{findings:?}");
        for interface in near {
            let features = examined.finding(interface, "xdp-features")["finding"].as_str().unwrap().to_owned();
            assert_eq!(features.contains("xsk-zerocopy"), kernel_has_zero_copy(), "{interface}: {features}");
            if kernel_has_zero_copy() {
                examined.assert_ok(interface, "mode");
                assert_eq!(examined.finding(interface, "mode")["finding"], "zero-copy");
            } else {
                examined.fix(interface, "mode", "warning", "copy: ");
            }
            println!("case: {interface}: {}, claims: {features}", best());
        }
        // It lets go of everything: a start gets the same.
        let (ended, last) = cables.start(1, "").stop();
        assert!(ended.status.success());
        assert_eq!(last.json["ports"][0]["mode"], best());
    }
}

#[test]
fn a_virtio_device_without_dma_is_named_and_one_with_it_is_the_fix() {
    let cables = Cables::new(["v0", "p0"]);
    let examined = examine(&cables, 1, "");
    let fix = examined.fix("p0", "virtio", "warning", "no zero-copy");
    // What v0 was made with.
    assert!(fix.contains("disable-legacy=on,iommu_platform=on"), "{fix}");
    examined.assert_ok("v0", "virtio");
    let decides = if kernel_has_zero_copy() { "p0" } else { "v0" };
    for interface in ["v0", "p0"] {
        let who = if interface == decides { "it".to_owned() } else { decides.to_owned() };
        let fix = examined.fix(interface, "mode", "warning", &format!("copy: {who} has no zero-copy"));
        assert!(fix.starts_with(&format!("`xdpfwd doctor {decides}` shows")), "{fix}");
    }
}

#[test]
fn igb_takes_tags_out_and_receives_on_queues_that_nobody_serves() {
    let cables = Cables::new(["i0", "i1"]);
    cables.set_queues(2);
    let namespace = &cables.forwarder;
    let examined = examine(&cables, 1, "");
    for interface in ["i0", "i1"] {
        let fix = examined.fix(interface, "offloads", "warning", "rx-vlan-hw-parse");
        apply(namespace, &fix);
        let fix = examined.fix(interface, "queues", "warning", "1 of 2 are served");
        apply(namespace, line(&fix, "ethtool"));
    }
    cables.wait_for_carriers();
    let examined = examine(&cables, 1, "");
    for interface in ["i0", "i1"] {
        examined.assert_ok(interface, "offloads");
        examined.assert_ok(interface, "queues");
    }
    apply(namespace, "ethtool -K i0 rxvlan on; ethtool -K i1 rxvlan on");
    cables.set_queues(2);
    examine(&cables, 2, "").assert_ok("i0", "queues");
}

#[test]
fn huge_pages_that_are_short_are_there_after_the_fix() {
    let namespace = Namespace::create("host").unwrap();
    apply(&namespace, "sysctl -qw vm.nr_hugepages=0 && ip link set lo up");
    let fix =
        Examined::of(&namespace, &["--no-probe", "lo"]).fix("host", "huge-pages", "warning", "0 of 2 MiB are free");
    apply(&namespace, &fix);
    Examined::of(&namespace, &["--no-probe", "lo"]).assert_ok("host", "huge-pages");
    apply(&namespace, "sysctl -qw vm.nr_hugepages=0");
}
