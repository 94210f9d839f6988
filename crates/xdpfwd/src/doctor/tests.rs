//! Host and NIC checks on fake machines.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use xdpfwd_xsk::HugePages;

use super::*;

/// A folder with `proc`, `sys` and `boot`, removed on drop; and what the kernel reports about eth1.
struct MachineFolder(PathBuf, RefCell<Link>);

impl MachineFolder {
    /// Creates a server with two NUMA nodes, each with four cores of two threads. The interface
    /// eth1 (driver ice) is on node 0.
    fn server() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let machine = Self(
            std::env::temp_dir().join(format!("xdpfwd-doctor-{}-{number}", std::process::id())),
            RefCell::new(server_link()),
        );
        let status = "Name:\txdpfwd\nCapEff:\t000001ffffffffff\n";
        let limits = "Limit                     Soft Limit           Hard Limit           \
                      Units     \n\
                      Max locked memory         8388608              8388608              \
                      bytes     \n";
        for (path, text) in [
            ("proc/sys/kernel/osrelease", "7.2.12+deb13-amd64"),
            (
                "boot/config-7.2.12+deb13-amd64",
                "CONFIG_BPF_SYSCALL=y\nCONFIG_XDP_SOCKETS=y\nCONFIG_BPF_JIT=y\nCONFIG_XDP_SOCKETS_DIAG=m\n",
            ),
            ("proc/self/status", status),
            ("proc/self/limits", limits),
            ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "1024"),
            ("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "1000"),
            ("sys/devices/system/cpu/online", "0-15"),
            ("sys/devices/system/cpu/isolated", "2-3"),
            ("sys/devices/system/cpu/nohz_full", "2-3"),
            ("sys/devices/system/node/node0/cpulist", "0-3,8-11"),
            ("sys/devices/system/node/node1/cpulist", "4-7,12-15"),
            ("sys/devices/pci0000:00/0000:00:01.0/numa_node", "0"),
            ("sys/devices/pci0000:00/0000:00:01.0/msi_irqs/140", "msix"),
            ("sys/devices/pci0000:00/0000:00:01.0/msi_irqs/141", "msix"),
            ("sys/class/net/eth1/speed", "100000"),
            ("proc/irq/140/effective_affinity_list", "0"),
            ("proc/irq/141/effective_affinity_list", "1"),
            ("proc/irq/140/smp_affinity_list", "0-15"),
            ("proc/irq/141/smp_affinity_list", "0-15"),
            ("proc/sys/net/core/bpf_jit_enable", "1"),
        ] {
            machine.write(path, text);
        }
        for core in 0..16 {
            machine.write(
                &format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"),
                "performance",
            );
            let siblings = format!("{},{}", core % 8, core % 8 + 8);
            machine.write(
                &format!("sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"),
                &siblings,
            );
        }
        let link = |target: &str, path: &str| symlink(target, machine.0.join(path)).unwrap();
        link("../../../devices/pci0000:00/0000:00:01.0", "sys/class/net/eth1/device");
        link("../../../bus/pci/drivers/ice", "sys/devices/pci0000:00/0000:00:01.0/driver");
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn tree(&self) -> Tree {
        Tree::in_folder(&self.0)
    }
}

fn server_link() -> Link {
    let mut link = Link::default();
    (link.mtu, link.is_up, link.has_device) = (Some(1500), true, true);
    link.state = "up".to_owned();
    link
}

impl Drop for MachineFolder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Returns what doctor examines for a configuration file with the port eth1 and a worker on each of
/// `cores`.
fn subject(cores: &[usize]) -> Subject {
    let mut subject = Subject { configured: true, ..Subject::of_interfaces(&["eth1".into()]) };
    subject.plan.workers = cores.iter().map(|&core| Some(core)).collect();
    subject
}

fn examine_files(machine: &MachineFolder, subject: &Subject) -> Vec<Finding> {
    let mut findings = host::examine(subject, &machine.tree());
    findings.extend(
        subject.plan.ports.iter().flat_map(|port| {
            nic::examine(subject, port, &machine.tree(), &machine.1.borrow(), true)
        }),
    );
    findings
}

#[track_caller]
fn finding(machine: &MachineFolder, subject: &Subject, check: &str) -> Finding {
    let findings = examine_files(machine, subject);
    let mut found = findings.iter().filter(|finding| finding.check == check);
    let first = found.next().unwrap_or_else(|| panic!("no {check} among {findings:#?}")).clone();
    assert!(found.next().is_none(), "more than one finding of {check}: {findings:#?}");
    first
}

/// Asserts that the check is `Ok` on the unchanged server and after `fix`. After `cause`, its
/// finding has `level` and contains `expected_texts[0]`; its fix contains `expected_texts[1]`.
#[track_caller]
fn assert_found_until_fixed(
    check: &str,
    level: Level,
    expected_texts: [&str; 2],
    cores: &[usize],
    cause: impl FnOnce(&MachineFolder, &mut Subject),
    fix: impl FnOnce(&MachineFolder, &mut Subject),
) {
    let (machine, mut subject) = (MachineFolder::server(), subject(cores));
    assert_eq!(
        finding(&machine, &subject, check).level,
        Level::Ok,
        "on the unchanged server: {:?}",
        finding(&machine, &subject, check)
    );
    cause(&machine, &mut subject);
    let found = finding(&machine, &subject, check);
    assert_eq!(found.level, level, "{found:?}");
    assert!(found.finding.contains(expected_texts[0]), "{found:?}");
    assert!(found.fix.as_deref().unwrap_or_default().contains(expected_texts[1]), "{found:?}");
    fix(&machine, &mut subject);
    let fixed = finding(&machine, &subject, check);
    assert_eq!(fixed.level, Level::Ok, "{fixed:?}");
}

#[test]
fn tuned_server_has_only_ok_findings() {
    let findings = examine_files(&MachineFolder::server(), &subject(&[2, 3]));
    assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:#?}");
    assert!(findings.len() >= 13, "{findings:#?}");
}

#[test]
fn numa_warns_of_worker_on_remote_node() {
    assert_found_until_fixed(
        "numa",
        Level::Warning,
        ["node 0, core 5 is not", "cores = [0, 1, 2, 3, …]"],
        &[2],
        |_, subject| subject.plan.workers = vec![Some(2), Some(5)],
        |_, subject| subject.plan.workers = vec![Some(2), Some(3)],
    );
}

#[test]
fn governor_warns_unless_performance() {
    let file = "sys/devices/system/cpu/cpu3/cpufreq/scaling_governor";
    assert_found_until_fixed(
        "governor",
        Level::Warning,
        [
            "core 3 uses the frequency governor \"powersave\"",
            "cpupower -c 3 frequency-set -g performance",
        ],
        &[2, 3],
        |machine, _| machine.write(file, "powersave"),
        |machine, _| machine.write(file, "performance"),
    );
}

#[test]
fn isolation_warns_of_shared_or_ticking_cores() {
    let set_cores = |machine: &MachineFolder, isolated: &str, tickless: &str| {
        machine.write("sys/devices/system/cpu/isolated", isolated);
        machine.write("sys/devices/system/cpu/nohz_full", tickless);
    };
    for (isolated, tickless, found) in
        [("", "", "cores 2, 3: not isolated"), ("2-3", "3", "core 2: isolated, but with a tick")]
    {
        assert_found_until_fixed(
            "isolation",
            Level::Warning,
            [found, "isolcpus=2,3 nohz_full=2,3 rcu_nocbs=2,3"],
            &[2, 3],
            |machine, _| set_cores(machine, isolated, tickless),
            |machine, _| set_cores(machine, "2-3", "2-3"),
        );
    }
}

#[test]
fn irq_warns_of_interrupt_on_worker_core() {
    let file = "proc/irq/141/effective_affinity_list";
    assert_found_until_fixed(
        "irq",
        Level::Warning,
        [
            "interrupt 141 is handled on core 2",
            "for irq in 141; do echo 0,1,4,5,6,7,8,9,10,11,12,13,14,15 \
             >/proc/irq/$irq/smp_affinity_list; done\nor: ",
        ],
        &[2, 3],
        |machine, _| machine.write(file, "2"),
        |machine, _| machine.write(file, "0-1"),
    );
    // After core 2 is forbidden, it stays effective until the next interrupt.
    let (machine, two_workers) = (MachineFolder::server(), subject(&[2, 3]));
    machine.write(file, "2");
    machine.write("proc/irq/141/smp_affinity_list", "0-1");
    assert_eq!(finding(&machine, &two_workers, "irq").level, Level::Ok);
    // With busy polling, the worker's core may handle the interrupt.
    let (machine, mut subject) = (MachineFolder::server(), subject(&[2, 3]));
    machine.write(file, "2");
    subject.plan.busy_poll = true;
    assert_eq!(finding(&machine, &subject, "irq").level, Level::Ok);
}

#[test]
fn hyper_threads_warns_of_two_workers_on_one_core() {
    assert_found_until_fixed(
        "hyper-threads",
        Level::Warning,
        ["2 and 10 are two threads of one physical core", "replace core 10"],
        &[2],
        |_, subject| subject.plan.workers = vec![Some(2), Some(10)],
        |_, subject| subject.plan.workers = vec![Some(2), Some(3)],
    );
}

#[test]
fn cores_reports_offline_core_and_missing_pinning() {
    assert_found_until_fixed(
        "cores",
        Level::Error,
        ["core 3: not online", "echo 1 >/sys/devices/system/cpu/cpu3/online"],
        &[2, 3],
        |machine, _| machine.write("sys/devices/system/cpu/online", "0-2,4-15"),
        |machine, _| machine.write("sys/devices/system/cpu/online", "0-15"),
    );
    assert_found_until_fixed(
        "cores",
        Level::Warning,
        ["no core is configured", "[engine] cores = "],
        &[2],
        |_, subject| subject.plan.workers = vec![None],
        |_, subject| subject.plan.workers = vec![Some(2)],
    );
}

#[test]
fn kernel_reports_old_release_and_missing_options() {
    let release = "proc/sys/kernel/osrelease";
    assert_found_until_fixed(
        "kernel",
        Level::Error,
        ["Linux 5.4.0-generic has no BPF links for XDP", "boot a newer kernel"],
        &[2],
        |machine, _| machine.write(release, "5.4.0-generic"),
        |machine, _| machine.write(release, "7.2.12+deb13-amd64"),
    );
    let machine = MachineFolder::server();
    machine.write(release, "6.1.0-9-amd64");
    let found = finding(&machine, &subject(&[2]), "kernel").finding;
    assert!(
        found.contains("querying a driver's XDP features (from 6.3)")
            && !found.contains("busy polling"),
        "{found}"
    );
    let config = "boot/config-7.2.12+deb13-amd64";
    let complete = "CONFIG_BPF_SYSCALL=y\nCONFIG_XDP_SOCKETS=y\nCONFIG_BPF_JIT=y";
    for (text, level, found) in [
        (
            "CONFIG_BPF_SYSCALL=y\n# CONFIG_XDP_SOCKETS is not set\nCONFIG_BPF_JIT=y",
            Level::Error,
            "CONFIG_XDP_SOCKETS",
        ),
        (
            "CONFIG_BPF_SYSCALL=y\nCONFIG_XDP_SOCKETS=y\nCONFIG_XDP_SOCKETS_DIAG=m",
            Level::Warning,
            "CONFIG_BPF_JIT",
        ),
    ] {
        assert_found_until_fixed(
            "kernel-options",
            level,
            [found, "boot a kernel that is built with CONFIG_"],
            &[2],
            |machine, _| machine.write(config, text),
            |machine, _| machine.write(config, complete),
        );
    }
}

#[test]
fn kernel_options_are_read_from_boot_or_lib_modules() {
    let machine = MachineFolder::server();
    let boot = "boot/config-7.2.12+deb13-amd64";
    let text = fs::read_to_string(machine.0.join(boot)).unwrap();
    fs::remove_file(machine.0.join(boot)).unwrap();
    let unreadable = finding(&machine, &subject(&[2]), "kernel-options");
    assert_eq!(unreadable.level, Level::Unknown, "{unreadable:?}");
    machine.write("lib/modules/7.2.12+deb13-amd64/config", &text);
    assert_eq!(finding(&machine, &subject(&[2]), "kernel-options").level, Level::Ok);
}

#[test]
fn bpf_jit_warns_when_disabled() {
    let file = "proc/sys/net/core/bpf_jit_enable";
    assert_found_until_fixed(
        "bpf-jit",
        Level::Warning,
        ["interpreted", "sysctl -w net.core.bpf_jit_enable=1"],
        &[2],
        |machine, _| machine.write(file, "0"),
        |machine, _| machine.write(file, "1"),
    );
}

#[test]
fn missing_capabilities_and_memory_lock_are_errors() {
    let file = "proc/self/status";
    assert_found_until_fixed(
        "capabilities",
        Level::Error,
        [
            "this process lacks: cap_net_raw, cap_bpf",
            "&& setcap cap_net_admin,cap_net_raw,cap_ipc_lock,cap_perfmon,cap_bpf+ep /",
        ],
        &[2],
        |machine, _| {
            // The process has all capabilities except cap_net_raw (bit 13), cap_sys_admin (21) and
            // cap_bpf (39).
            machine.write(file, &format!("CapEff:\t{:016x}", !(1u64 << 13 | 1 << 21 | 1 << 39)))
        },
        |machine, _| machine.write(file, "CapEff:\t000001ffffffffff"),
    );
    // Without cap_ipc_lock (bit 14), 8 MiB may be locked; 32 MiB are needed.
    assert_found_until_fixed(
        "memory-lock",
        Level::Error,
        ["8192 KiB may be locked, 32768 KiB are needed for packet memory", "ulimit -l unlimited"],
        &[2],
        |machine, _| machine.write(file, &format!("CapEff:\t{:016x}", !(1u64 << 14))),
        |machine, _| {
            machine.write(
                "proc/self/limits",
                "Max locked memory         unlimited            unlimited            bytes",
            )
        },
    );
}

#[test]
fn too_few_huge_pages_are_warning_or_error() {
    let free = "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    for (wanted, level) in [(HugePages::Auto, Level::Warning), (HugePages::On, Level::Error)] {
        assert_found_until_fixed(
            "huge-pages",
            level,
            // Two workers of 32 MiB: 32 pages. 1024 are reserved, 1020 of them in use.
            ["4 pages of 2 MiB are free, 32 are needed", "sysctl -w vm.nr_hugepages=1052"],
            &[2, 3],
            |machine, subject| {
                subject.plan.umem.huge_pages = wanted;
                machine.write(free, "4");
            },
            |machine, _| machine.write(free, "32"),
        );
    }
}

#[test]
fn mtu_larger_than_frame_is_error() {
    let set_mtu = |machine: &MachineFolder, mtu| machine.1.borrow_mut().mtu = Some(mtu);
    assert_found_until_fixed(
        "mtu",
        Level::Error,
        [
            "3000: frames of 2048 bytes have room for MTU 1770",
            "[umem] frame_size = 4096\nor: ip link set dev eth1 mtu 1770",
        ],
        &[2],
        |machine, _| set_mtu(machine, 3000),
        |_, subject| subject.plan.umem.frame_size = 4096,
    );
    assert_found_until_fixed(
        "mtu",
        Level::Error,
        ["9000: frames of 4096 bytes", "ip link set dev eth1 mtu 3818"],
        &[2],
        |machine, subject| {
            subject.plan.umem.frame_size = 4096;
            set_mtu(machine, 9000);
        },
        |machine, _| set_mtu(machine, 3818),
    );
}

#[test]
fn link_down_or_without_carrier_is_warning() {
    let set_state = |machine: &MachineFolder, state: &str, is_up| {
        let mut link = machine.1.borrow_mut();
        (link.state, link.is_up) = (state.to_owned(), is_up);
    };
    assert_found_until_fixed(
        "link",
        Level::Warning,
        ["is down", "ip link set dev eth1 up"],
        &[2],
        |machine, _| set_state(machine, "down", false),
        |machine, _| set_state(machine, "up", true),
    );
    assert_found_until_fixed(
        "link",
        Level::Warning,
        ["no carrier", "plug in the cable"],
        &[2],
        |machine, _| set_state(machine, "down", true),
        |machine, _| set_state(machine, "up", true),
    );
}

#[test]
fn virtio_without_dma_mappings_is_warning() {
    let machine = MachineFolder::server();
    let device = machine.0.join("sys/devices/pci0000:00/0000:00:01.0");
    fs::remove_file(device.join("driver")).unwrap();
    symlink("../../../bus/virtio/drivers/virtio_net", device.join("driver")).unwrap();
    let features = |bits: &[usize]| -> String {
        (0..64).map(|bit| if bits.contains(&bit) { '1' } else { '0' }).collect()
    };
    for (bits, level, found) in [
        (&[0, 5][..], Level::Warning, "a legacy device"),
        (&[0, 5, 32], Level::Warning, "no VIRTIO_F_ACCESS_PLATFORM"),
        (&[0, 5, 32, 33], Level::Ok, "does DMA"),
    ] {
        machine.write("sys/devices/pci0000:00/0000:00:01.0/features", &features(bits));
        let finding = finding(&machine, &subject(&[2]), "virtio");
        assert_eq!(finding.level, level, "{finding:?}");
        assert!(finding.finding.contains(found), "{finding:?}");
        assert_eq!(
            finding.fix.is_some_and(|fix| fix.contains("iommu_platform=on")),
            level == Level::Warning
        );
    }
}

/// A check whose files are missing must not report `Ok`.
#[test]
fn check_without_source_is_unknown() {
    for (check, paths) in [
        ("isolation", &["sys/devices/system/cpu/isolated"][..]),
        ("governor", &["sys/devices/system/cpu"]),
        ("hyper-threads", &["sys/devices/system/cpu/cpu3/topology"]),
        ("cores", &["sys/devices/system/cpu/online"]),
        ("numa", &["sys/devices/pci0000:00/0000:00:01.0/numa_node"]),
        ("irq", &["proc/irq/140", "proc/irq/141"]),
        ("huge-pages", &["sys/kernel/mm/hugepages"]),
        ("capabilities", &["proc/self/status"]),
        ("bpf-jit", &["proc/sys/net/core"]),
        ("kernel", &["proc/sys/kernel/osrelease"]),
    ] {
        let machine = MachineFolder::server();
        for path in paths.iter().map(|path| machine.0.join(path)) {
            let removed =
                if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            removed.unwrap();
        }
        let found = finding(&machine, &subject(&[2, 3]), check);
        assert_eq!(found.level, Level::Unknown, "{found:?}");
    }
    let machine = MachineFolder::server();
    machine.1.borrow_mut().mtu = None;
    assert_eq!(finding(&machine, &subject(&[2]), "mtu").level, Level::Unknown);
}

/// If /sys shows another network namespace, only rtnetlink describes the interface.
#[test]
fn with_foreign_sys_only_link_and_mtu_are_checked() {
    let (machine, subject) = (MachineFolder::server(), subject(&[2]));
    machine.1.borrow_mut().mtu = Some(3000);
    let is_in_sysfs = false;
    let link = machine.1.borrow();
    let port = &subject.plan.ports[0];
    let findings = nic::examine(&subject, port, &machine.tree(), &link, is_in_sysfs);
    let levels: Vec<_> = findings.iter().map(|found| (found.check, found.level)).collect();
    assert_eq!(levels, [("link", Level::Ok), ("mtu", Level::Error)], "{findings:#?}");
}

#[test]
fn empty_tree_gives_unknown_findings_but_no_error() {
    let (empty_tree, subject) = (Tree::in_folder("/nowhere"), subject(&[0]));
    let mut findings = host::examine(&subject, &empty_tree);
    findings.extend(nic::examine(
        &subject,
        &subject.plan.ports[0],
        &empty_tree,
        &server_link(),
        true,
    ));
    assert!(findings.iter().any(|finding| finding.level == Level::Unknown), "{findings:#?}");
    for finding in &findings {
        assert!(finding.level != Level::Error, "{finding:?}");
        assert_eq!(finding.fix.is_some(), finding.level > Level::Unknown, "{finding:?}");
    }
}
