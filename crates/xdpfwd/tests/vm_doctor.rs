//! Tests `xdpfwd doctor` on the NICs of the test VM (`make vmtest`; crates/vm), for conditions that
//! a veth cannot have. Interfaces: v0, v1, m0 and m1 are virtio-net, i0 and i1 igb, and p0
//! virtio-net without DMA, which zero-copy needs.
//!
//! `fix(subject, check, level, text)` expects a finding of this level that contains this text, and
//! returns its fix.

mod support;

use support::cables::{Cables, best_mode, kernel_has_zero_copy};
use support::examination::{CORE_1_ISOLATION, Examination, command_in_fix, run_shell};
use xdpfwd_lab::Namespace;

fn examine(cables: &Cables, queues: u16, engine: &str) -> Examination {
    Examination::run_with_config(&cables.forwarder, &cables.config(queues, engine))
}

#[test]
fn doctor_predicts_mode_that_xdpfwd_then_uses() {
    for pair in [["v0", "v1"], ["i0", "i1"], ["v0", "i1"]] {
        let cables = Cables::new(pair);
        cables.set_queues(1);
        let examination = examine(&cables, 1, "");
        // The namespace has no default route and no SSH session that a start could cut off.
        examination.assert_ok("host", "lockout");
        for interface in pair {
            let features = examination.finding(interface, "xdp-features")["finding"]
                .as_str()
                .unwrap()
                .to_owned();
            assert_eq!(
                features.contains("xsk-zerocopy"),
                kernel_has_zero_copy(),
                "{interface}: {features}"
            );
            if kernel_has_zero_copy() {
                examination.assert_ok(interface, "mode");
                assert_eq!(examination.finding(interface, "mode")["finding"], "zero-copy");
            } else {
                examination.fix(interface, "mode", "warning", "copy: ");
            }
            println!("case: {interface}: {}, features: {features}", best_mode());
        }
        // doctor has left no program attached and no socket bound.
        let (exit, final_report) = cables.start(1, "").stop();
        assert!(exit.status.success());
        assert_eq!(final_report.json["ports"][0]["mode"], best_mode());
    }
}

#[test]
fn doctor_names_virtio_device_without_dma() {
    let cables = Cables::new(["v0", "p0"]);
    let examination = examine(&cables, 1, "");
    let fix = examination.fix("p0", "virtio", "warning", "no zero-copy");
    // The VM sets these QEMU options for v0.
    assert!(fix.contains("disable-legacy=on,iommu_platform=on"), "{fix}");
    examination.assert_ok("v0", "virtio");
    // If all drivers lack zero-copy, doctor names the first port.
    let limiting_port = if kernel_has_zero_copy() { "p0" } else { "v0" };
    for interface in ["v0", "p0"] {
        let fix = examination.fix(
            interface,
            "mode",
            "warning",
            &format!("copy: {limiting_port} has no zero-copy"),
        );
        assert!(fix.starts_with(&format!("`xdpfwd doctor {limiting_port}` shows")), "{fix}");
    }
}

#[test]
fn doctor_prints_working_fixes_for_offloads_and_queues_of_igb() {
    let cables = Cables::new(["i0", "i1"]);
    cables.set_queues(2);
    let namespace = &cables.forwarder;
    let examination = examine(&cables, 1, "");
    for interface in ["i0", "i1"] {
        let fix = examination.fix(interface, "offloads", "warning", "rx-vlan-hw-parse");
        run_shell(namespace, &fix);
        let fix = examination.fix(interface, "queues", "warning", "1 of 2 are served");
        run_shell(namespace, command_in_fix(&fix, "ethtool"));
    }
    cables.wait_for_carriers();
    let examination = examine(&cables, 1, "");
    for interface in ["i0", "i1"] {
        examination.assert_ok(interface, "offloads");
        examination.assert_ok(interface, "queues");
    }
    run_shell(namespace, "ethtool -K i0 rxvlan on; ethtool -K i1 rxvlan on");
    cables.set_queues(2);
    examine(&cables, 2, "").assert_ok("i0", "queues");
}

/// i1 is on the machine's second NUMA node, which has core 1.
#[test]
fn doctor_warns_of_worker_on_other_numa_node() {
    let cables = Cables::new(["v0", "i1"]);
    cables.set_queues(1);
    let fix =
        examine(&cables, 1, "cores = [0]").fix("i1", "numa", "warning", "on node 1, core 0 is not");
    assert!(fix.starts_with("[engine] cores = [1, …]"), "{fix}");
    examine(&cables, 1, "cores = [1]").assert_ok("i1", "numa");
    println!("case: i1 on node 1, its worker on node 0 and on node 1");
}

#[test]
fn doctor_fix_moves_interrupts_off_worker_core() {
    let cables = Cables::new(["v0", "i0"]);
    cables.set_queues(1);
    let namespace = &cables.forwarder;
    for interface in ["v0", "i0"] {
        let folder = format!("/sys/class/net/{interface}/device");
        let to_core_1 = format!(
            "for irq in $(cd {folder}; ls msi_irqs ../msi_irqs 2>/dev/null | grep '^[0-9]'); do \
             echo 1 >/proc/irq/$irq/smp_affinity_list; done"
        );
        run_shell(namespace, &to_core_1);
        let fix = examine(&cables, 1, "cores = [1]").fix(
            interface,
            "irq",
            "warning",
            "is handled on core 1",
        );
        let command = fix.lines().next().unwrap();
        run_shell(namespace, command);
        examine(&cables, 1, "cores = [1]").assert_ok(interface, "irq");
        println!("case: interrupts of {interface} on core 1 and, after the fix, on core 0");
    }
    // With busy polling, the worker may share a core with the interrupts.
    examine(&cables, 1, "cores = [0]\nbusy_poll = true").assert_ok("v0", "irq");
}

#[test]
fn doctor_fix_brings_offline_core_online() {
    let cables = Cables::new(["v0", "v1"]);
    let namespace = &cables.forwarder;
    examine(&cables, 1, "cores = [1]").assert_ok("host", "cores");
    run_shell(namespace, "echo 0 >/sys/devices/system/cpu/cpu1/online");
    let fix =
        examine(&cables, 1, "cores = [1]").fix("host", "cores", "error", "core 1: not online");
    run_shell(namespace, &fix);
    let examination = examine(&cables, 1, "cores = [1]");
    examination.assert_ok("host", "cores");
    // The VM of vm_isolated.rs boots with the parameters of this fix.
    let fix = examination.fix("host", "isolation", "warning", "core 1: not isolated");
    assert_eq!(fix, format!("{CORE_1_ISOLATION} on the kernel's command line, and reboot"));
}

/// virtio-net on a tap device has the offload `rx-gro-hw`, with which the host may merge packets.
/// Only one of the two configured queues of m1 is active.
#[test]
fn doctor_prints_working_fixes_for_offloads_and_queues_of_virtio() {
    let cables = Cables::new(["m0", "m1"]);
    cables.set_queues(1);
    let fix = examine(&cables, 1, "").fix(
        "m0",
        "offloads",
        "warning",
        "rx-gro-hw: several packets arrive merged into one",
    );
    run_shell(&cables.forwarder, &fix);
    examine(&cables, 1, "").assert_ok("m0", "offloads");
    let fix = examine(&cables, 2, "").fix(
        "m1",
        "queues",
        "error",
        "2 are configured, 1 are active, at most 2 are possible",
    );
    run_shell(&cables.forwarder, &fix);
    examine(&cables, 2, "").assert_ok("m1", "queues");
    run_shell(&cables.forwarder, "ethtool -K m0 rx-gro-hw on");
}

#[test]
fn doctor_reports_release_and_options_of_booted_kernel() {
    let namespace = Namespace::create("host").unwrap();
    run_shell(&namespace, "ip link set lo up");
    let examination = Examination::run(&namespace, &["--no-probe", "lo"]);
    let kernel = examination.finding("host", "kernel")["finding"].as_str().unwrap();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(kernel.starts_with(&format!("Linux {}", release.trim())), "{kernel}");
    // Linux 6.12, the VM's kernel without zero-copy, also lacks this feature of 6.17.
    assert_eq!(
        kernel.contains("more than 32 packets per system call"),
        !kernel_has_zero_copy(),
        "{kernel}"
    );
    examination.assert_ok("host", "kernel-options");
}

#[test]
fn doctor_fix_allocates_huge_pages() {
    let namespace = Namespace::create("host").unwrap();
    run_shell(&namespace, "sysctl -qw vm.nr_hugepages=0 && ip link set lo up");
    let fix = Examination::run(&namespace, &["--no-probe", "lo"]).fix(
        "host",
        "huge-pages",
        "warning",
        "0 pages of 2 MiB are free",
    );
    run_shell(&namespace, &fix);
    Examination::run(&namespace, &["--no-probe", "lo"]).assert_ok("host", "huge-pages");
    run_shell(&namespace, "sysctl -qw vm.nr_hugepages=0");
}
