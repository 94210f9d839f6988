//! Checks the machine: kernel, privileges, memory and cores.

use xdpfwd_xsk::HugePages;

use super::tree::parse_list;
use super::{Finding, Subject, Tree};
use crate::config::RequiredMemory;

const HOST: &str = "host";

pub(crate) fn examine(subject: &Subject, tree: &Tree) -> Vec<Finding> {
    // Packet sockets need fewer privileges, and their memory is not locked.
    let uses_xdp = subject.plan.ports.iter().any(|port| port.io.uses_xdp());
    let mut findings = vec![kernel(tree)];
    if uses_xdp {
        findings.extend([kernel_options(tree), bpf_jit(tree)]);
    }
    findings.push(capabilities(uses_xdp, tree));
    findings.extend(uses_xdp.then(|| memory_lock(subject, tree)));
    findings.push(huge_pages(subject, tree));
    findings.extend(cores(subject, tree));
    findings
}

/// Optional kernel features: the first kernel version with the feature, and what it does.
const FEATURES_SINCE: [((u32, u32), &str); 4] = [
    ((5, 11), "preferred busy polling (busy_poll = true)"),
    ((6, 3), "querying a driver's XDP features"),
    ((6, 6), "AF_XDP packets in several buffers, in drivers"),
    ((6, 17), "more than 32 packets per system call in copy mode"),
];

/// The oldest supported kernel. Linux 5.9 added BPF links for XDP, with which xdpfwd attaches its
/// program.
const OLDEST_KERNEL: (u32, u32) = (5, 9);

fn kernel(tree: &Tree) -> Finding {
    const CHECK: &str = "kernel";
    let Some(release) = tree.text("/proc/sys/kernel/osrelease") else {
        return Finding::unknown(CHECK, HOST, "cannot read /proc/sys/kernel/osrelease");
    };
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit()).map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Finding::unknown(
            CHECK,
            HOST,
            format!("cannot parse the kernel release {release:?}"),
        );
    };
    if (major, minor) < OLDEST_KERNEL {
        return Finding::error(
            CHECK,
            HOST,
            format!("Linux {release} has no BPF links for XDP; 5.9 or later is required"),
            "boot a newer kernel",
        );
    }
    let missing: Vec<_> = FEATURES_SINCE
        .iter()
        .filter(|(since, _)| (major, minor) < *since)
        .map(|((major, minor), feature)| format!("{feature} (from {major}.{minor})"))
        .collect();
    let without = if missing.is_empty() {
        String::new()
    } else {
        format!("; without: {}", missing.join(", "))
    };
    Finding::ok(CHECK, HOST, format!("Linux {release}{without}"))
}

fn kernel_options(tree: &Tree) -> Finding {
    const CHECK: &str = "kernel-options";
    let release = tree.text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let paths = [format!("/boot/config-{release}"), format!("/lib/modules/{release}/config")];
    let Some(text) = paths.iter().find_map(|path| tree.text(path)) else {
        let why = format!(
            "cannot read {}; if /proc/config.gz exists: zgrep XDP /proc/config.gz",
            paths.join(" or ")
        );
        return Finding::unknown(CHECK, HOST, why);
    };
    let is_set = |option: &str| {
        text.lines().any(|line| {
            line.strip_prefix(option).is_some_and(|value| value == "=y" || value == "=m")
        })
    };
    let missing: Vec<_> = ["CONFIG_BPF_SYSCALL", "CONFIG_XDP_SOCKETS", "CONFIG_BPF_JIT"]
        .into_iter()
        .filter(|option| !is_set(option))
        .collect();
    match &missing[..] {
        [] if is_set("CONFIG_XDP_SOCKETS_DIAG") => {
            Finding::ok(CHECK, HOST, "built with AF_XDP, the BPF compiler, and `ss --xdp`")
        }
        [] => Finding::ok(
            CHECK,
            HOST,
            "built with AF_XDP and the BPF compiler (without CONFIG_XDP_SOCKETS_DIAG: no `ss \
             --xdp`)",
        ),
        ["CONFIG_BPF_JIT"] => Finding::warning(
            CHECK,
            HOST,
            "built without CONFIG_BPF_JIT: XDP programs are interpreted",
            "boot a kernel that is built with CONFIG_BPF_JIT",
        ),
        missing => Finding::error(
            CHECK,
            HOST,
            format!("built without {}", missing.join(", ")),
            format!("boot a kernel that is built with {}", missing.join(", ")),
        ),
    }
}

/// Warns if the BPF JIT compiler was disabled at run time.
fn bpf_jit(tree: &Tree) -> Finding {
    const CHECK: &str = "bpf-jit";
    match tree.text("/proc/sys/net/core/bpf_jit_enable").as_deref() {
        Some("0") => Finding::warning(
            CHECK,
            HOST,
            "disabled: XDP programs are interpreted",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(_) => Finding::ok(CHECK, HOST, "XDP programs are compiled"),
        None => Finding::unknown(
            CHECK,
            HOST,
            "net.core.bpf_jit_enable is visible only to root in the initial network namespace",
        ),
    }
}

/// The capability (linux/capability.h) with which memory locks have no limit.
const CAP_IPC_LOCK: u32 = 14;

/// Numbers (linux/capability.h) and names of the capabilities that xdpfwd needs.
const CAPABILITIES: [(u32, &str); 5] = [
    (12, "cap_net_admin"),
    (13, "cap_net_raw"),
    (CAP_IPC_LOCK, "cap_ipc_lock"),
    (38, "cap_perfmon"),
    (39, "cap_bpf"),
];

fn status_field(tree: &Tree, field: &str) -> Option<String> {
    let status = tree.text("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// Returns the effective capabilities of this process, one bit for each.
fn effective_capabilities(tree: &Tree) -> Option<u64> {
    u64::from_str_radix(&status_field(tree, "CapEff")?, 16).ok()
}

fn capabilities(uses_xdp: bool, tree: &Tree) -> Finding {
    const CHECK: &str = "capabilities";
    const SYS_ADMIN: u32 = 21;
    let Some(effective) = effective_capabilities(tree) else {
        return Finding::unknown(CHECK, HOST, "cannot read /proc/self/status");
    };
    // Usually, only the initial user namespace maps all user IDs.
    if tree
        .text("/proc/self/uid_map")
        .is_some_and(|map| map.split_whitespace().nth(2) != Some("4294967295"))
    {
        let why = "capabilities of this user namespace have no effect outside of it; the check \
                   `mode` probes whether they suffice";
        return Finding::unknown(CHECK, HOST, why);
    }
    let has_capability = |number: u32| effective >> number & 1 == 1;
    // CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON (`bpf_capable` and `perfmon_capable` in the
    // kernel).
    let suffices = |number: u32, name: &str| {
        has_capability(number)
            || has_capability(SYS_ADMIN) && matches!(name, "cap_bpf" | "cap_perfmon")
    };
    let needed: Vec<(u32, &str)> = CAPABILITIES
        .into_iter()
        .filter(|(_, name)| uses_xdp || matches!(*name, "cap_net_admin" | "cap_net_raw"))
        .collect();
    let missing: Vec<_> = needed
        .iter()
        .filter(|(number, name)| !suffices(*number, name))
        .map(|(_, name)| *name)
        .collect();
    let needed_names: Vec<&str> = needed.iter().map(|(_, name)| *name).collect();
    match &missing[..] {
        [] => Finding::ok(CHECK, HOST, format!("{}: all present", needed_names.join(","))),
        // The check `memory-lock` examines the limit on locked memory.
        ["cap_ipc_lock"] => Finding::ok(
            CHECK,
            HOST,
            "all present except cap_ipc_lock, which a sufficient locked-memory limit replaces",
        ),
        missing => Finding::error(
            CHECK,
            HOST,
            format!("this process lacks: {}", missing.join(", ")),
            format!("{}\nor: run it as root", xdpfwd_xsk::grant_command(&needed_names)),
        ),
    }
}

fn memory_lock(subject: &Subject, tree: &Tree) -> Finding {
    const CHECK: &str = "memory-lock";
    let needed = RequiredMemory::new(&subject.plan.umem, subject.plan.workers.len()).bytes;
    if effective_capabilities(tree).is_some_and(|effective| effective >> CAP_IPC_LOCK & 1 == 1) {
        return Finding::ok(
            CHECK,
            HOST,
            format!("cap_ipc_lock: {} MiB may be locked", needed >> 20),
        );
    }
    let limits = tree.text("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    let bytes = match soft {
        Some("unlimited") => u64::MAX,
        Some(bytes) => bytes.parse().unwrap_or(0),
        None => return Finding::unknown(CHECK, HOST, "cannot read /proc/self/limits"),
    };
    if bytes >= needed {
        return Finding::ok(
            CHECK,
            HOST,
            format!("{} MiB may be locked, {} MiB are needed", bytes >> 20, needed >> 20),
        );
    }
    Finding::error(
        CHECK,
        HOST,
        format!(
            "{} KiB may be locked, {} KiB are needed for packet memory",
            bytes >> 10,
            needed >> 10
        ),
        "ulimit -l unlimited\nor, in the systemd unit: LimitMEMLOCK=infinity\nor: the capability \
         cap_ipc_lock",
    )
}

fn huge_pages(subject: &Subject, tree: &Tree) -> Finding {
    const CHECK: &str = "huge-pages";
    let needed = RequiredMemory::new(&subject.plan.umem, subject.plan.workers.len()).huge_pages;
    if subject.plan.umem.huge_pages == HugePages::Off {
        return Finding::ok(CHECK, HOST, "not requested (umem.huge_pages = \"off\")");
    }
    let folder = "/sys/kernel/mm/hugepages/hugepages-2048kB";
    // `free_hugepages` includes pages promised to mappings but not used yet.
    let promised: u64 = tree.number(&format!("{folder}/resv_hugepages")).unwrap_or(0);
    let free = tree
        .number::<u64>(&format!("{folder}/free_hugepages"))
        .map(|free| free.saturating_sub(promised));
    let Some(free) = free else {
        return Finding::unknown(
            CHECK,
            HOST,
            format!("cannot read {folder}: does this processor have pages of 2 MiB?"),
        );
    };
    let total: u64 = tree.number(&format!("{folder}/nr_hugepages")).unwrap_or(free);
    let found = format!("{free} pages of 2 MiB are free, {needed} are needed");
    if free >= needed {
        return Finding::ok(CHECK, HOST, found);
    }
    // Pages in use or promised, plus those that xdpfwd needs.
    let fix = format!("sysctl -w vm.nr_hugepages={}", total - free.min(total) + needed);
    match subject.plan.umem.huge_pages {
        HugePages::On => {
            Finding::error(CHECK, HOST, found + ", and umem.huge_pages = \"on\" requires them", fix)
        }
        _ => Finding::warning(
            CHECK,
            HOST,
            found + ": packet memory uses normal pages, which cause more TLB misses",
            fix,
        ),
    }
}

/// Formats `core 2` or `cores 2, 3`.
fn core_list(cores: &[usize]) -> String {
    let cores: Vec<_> = cores.iter().map(ToString::to_string).collect();
    format!("{} {}", if cores.len() == 1 { "core" } else { "cores" }, cores.join(", "))
}

fn cores(subject: &Subject, tree: &Tree) -> Vec<Finding> {
    let pinned = subject.cores();
    if pinned.is_empty() {
        let fix =
            "[engine] cores = [2, 3]: one worker per core; choose cores that run nothing else";
        let found = "no core is configured: the scheduler may move the worker between cores";
        return if subject.configured {
            vec![Finding::warning("cores", HOST, found, fix)]
        } else {
            Vec::new()
        };
    }
    vec![
        online(&pinned, tree),
        isolation(&pinned, tree),
        governor(&pinned, tree),
        siblings(&pinned, tree),
    ]
}

fn online(pinned: &[usize], tree: &Tree) -> Finding {
    const CHECK: &str = "cores";
    let Some(online) = tree.text("/sys/devices/system/cpu/online").as_deref().and_then(parse_list)
    else {
        return Finding::unknown(CHECK, HOST, "cannot read /sys/devices/system/cpu/online");
    };
    let offline: Vec<usize> =
        pinned.iter().copied().filter(|core| !online.contains(core)).collect();
    if offline.is_empty() {
        return Finding::ok(CHECK, HOST, format!("{}: online", core_list(pinned)));
    }
    let commands =
        offline.iter().map(|core| format!("echo 1 >/sys/devices/system/cpu/cpu{core}/online"));
    Finding::error(
        CHECK,
        HOST,
        format!("{}: not online", core_list(&offline)),
        commands.collect::<Vec<_>>().join("\n"),
    )
}

fn isolation(pinned: &[usize], tree: &Tree) -> Finding {
    const CHECK: &str = "isolation";
    let cpus = "/sys/devices/system/cpu";
    let core_set = |file: &str| {
        tree.text(&format!("{cpus}/{file}")).as_deref().and_then(parse_list).unwrap_or_default()
    };
    if !tree.exists(&format!("{cpus}/isolated")) {
        return Finding::unknown(CHECK, HOST, format!("cannot read {cpus}/isolated"));
    }
    let (isolated, tickless) = (core_set("isolated"), core_set("nohz_full"));
    let not_isolated: Vec<usize> =
        pinned.iter().copied().filter(|core| !isolated.contains(core)).collect();
    // A kernel without CONFIG_NO_HZ_FULL lacks this file.
    let has_nohz_full = tree.exists(&format!("{cpus}/nohz_full"));
    let ticking: Vec<usize> =
        pinned.iter().copied().filter(|core| has_nohz_full && !tickless.contains(core)).collect();
    if not_isolated.is_empty() && ticking.is_empty() {
        return Finding::ok(
            CHECK,
            HOST,
            format!("{}: isolated, without a tick", core_list(pinned)),
        );
    }
    // Other tasks need a core. Core 0, the boot core, always has a timer tick.
    let online =
        tree.text(&format!("{cpus}/online")).as_deref().and_then(parse_list).unwrap_or_default();
    let cores: Vec<_> = pinned.iter().map(ToString::to_string).collect();
    let cores = cores.join(",");
    let fix = if pinned.contains(&0) || online.iter().all(|core| pinned.contains(core)) {
        "leave core 0 to the system: set other cores in engine.cores, then isolate those".to_owned()
    } else if has_nohz_full {
        format!(
            "isolcpus={cores} nohz_full={cores} rcu_nocbs={cores} on the kernel's command line, \
             and reboot"
        )
    } else {
        format!("isolcpus={cores} on the kernel's command line, and reboot")
    };
    let found = if not_isolated.is_empty() {
        format!("{}: isolated, but with a tick (no nohz_full)", core_list(&ticking))
    } else {
        format!("{}: not isolated, other processes may run there", core_list(&not_isolated))
    };
    Finding::warning(CHECK, HOST, found, fix)
}

fn governor(pinned: &[usize], tree: &Tree) -> Finding {
    const CHECK: &str = "governor";
    let governor = |core: &usize| {
        tree.text(&format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"))
    };
    let not_performance: Vec<(usize, String)> = pinned
        .iter()
        .filter_map(|core| Some((*core, governor(core)?)))
        .filter(|(_, governor)| governor != "performance")
        .collect();
    if let Some((core, name)) = not_performance.first() {
        let cores: Vec<_> = not_performance.iter().map(|(core, _)| core.to_string()).collect();
        return Finding::warning(
            CHECK,
            HOST,
            format!("core {core} uses the frequency governor {name:?}"),
            format!("cpupower -c {} frequency-set -g performance", cores.join(",")),
        );
    }
    match pinned.iter().find_map(governor) {
        Some(_) => Finding::ok(CHECK, HOST, "performance"),
        None if !tree.exists("/sys/devices/system/cpu") => {
            Finding::unknown(CHECK, HOST, "cannot read /sys/devices/system/cpu")
        }
        None => Finding::ok(
            CHECK,
            HOST,
            "this kernel does not control the frequency (as in a virtual machine)",
        ),
    }
}

/// Checks that no two workers run on two threads of one physical core.
fn siblings(pinned: &[usize], tree: &Tree) -> Finding {
    const CHECK: &str = "hyper-threads";
    let file =
        |core: usize| format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    if pinned.len() > 1
        && let Some(core) = pinned.iter().find(|&&core| tree.text(&file(core)).is_none())
    {
        return Finding::unknown(CHECK, HOST, format!("cannot read {}", file(*core)));
    }
    for (index, &core) in pinned.iter().enumerate() {
        let siblings = tree.text(&file(core)).as_deref().and_then(parse_list).unwrap_or_default();
        if let Some(other) = pinned[index + 1..].iter().find(|other| siblings.contains(other)) {
            return Finding::warning(
                CHECK,
                HOST,
                format!(
                    "cores {core} and {other} are two threads of one physical core, which two \
                     workers share"
                ),
                format!(
                    "replace core {other} in engine.cores: `lscpu -e` shows which threads share a \
                     core"
                ),
            );
        }
    }
    Finding::ok(CHECK, HOST, "no two workers share a physical core")
}
