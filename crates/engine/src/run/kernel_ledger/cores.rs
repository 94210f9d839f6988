//! The cores that the kernel ledger measures: those of the workers, and those that receive packets
//! for the ports.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use xdpfwd_perf::Core;

use crate::host::interface::Interface;
use crate::host::link::Link;
use crate::plan::Plan;

/// Returns the cores on which a worker runs or may run, and those that run the kernel's receive
/// work for a port.
pub(crate) fn find_cores(plan: &Plan, interfaces: &[Interface]) -> Vec<Core> {
    let online = read_list(Path::new("/sys/devices/system/cpu/online")).unwrap_or_default();
    let mut worker_cores: BTreeSet<usize> = plan.workers.iter().copied().flatten().collect();
    if plan.workers.contains(&None) {
        let allowed = core_affinity::get_core_ids().unwrap_or_default();
        worker_cores.extend(allowed.into_iter().map(|core| core.id));
    }
    let links: Vec<Option<Link>> =
        interfaces.iter().map(|interface| Link::read(interface.index).ok()).collect();
    let only_veths = links
        .iter()
        .all(|link| link.as_ref().is_some_and(|link| link.kind.as_deref() == Some("veth")));
    let mut cores = worker_cores.clone();
    for link in &links {
        let folder = link.as_ref().and_then(Link::sysfs_folder);
        let receiving = folder.and_then(|folder| receiving_cores(&folder));
        // An interface without interrupts, such as a veth, receives on the core that sends to it.
        cores.extend(receiving.unwrap_or_else(|| online.clone()));
    }
    let core = |number| Core {
        number,
        has_worker: worker_cores.contains(&number),
        only_veths,
        polls_other_end: false,
    };
    cores.into_iter().map(core).collect()
}

/// Returns the cores that receive for an interface, from its folder in /sys/class/net; `None` if
/// any core may.
fn receiving_cores(folder: &Path) -> Option<BTreeSet<usize>> {
    let is_threaded =
        fs::read_to_string(folder.join("threaded")).is_ok_and(|text| text.trim() != "0");
    // The interrupts belong to the device itself or, for virtio, to its parent.
    let device = folder.join("device");
    let interrupts = fs::read_dir(device.join("msi_irqs"))
        .or_else(|_| fs::read_dir(device.join("../msi_irqs")))
        .ok()
        .filter(|_| !is_threaded)?;
    let mut cores = BTreeSet::new();
    for interrupt in interrupts.flatten() {
        let folder = Path::new("/proc/irq").join(interrupt.file_name());
        cores.extend(read_list(&folder.join("effective_affinity_list")).into_iter().flatten());
    }
    for queue in fs::read_dir(folder.join("queues")).into_iter().flatten().flatten() {
        let mask = fs::read_to_string(queue.path().join("rps_cpus")).unwrap_or_default();
        cores.extend(parse_mask(&mask).into_iter().flatten());
    }
    (!cores.is_empty()).then_some(cores)
}

fn read_list(path: &Path) -> Option<BTreeSet<usize>> {
    parse_list(&fs::read_to_string(path).ok()?)
}

/// Parses the kernel's lists of cores: `0-3,8`.
fn parse_list(text: &str) -> Option<BTreeSet<usize>> {
    let mut cores = BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse().ok()?..=last.parse::<usize>().ok()?.min(MAX_CORE));
    }
    Some(cores)
}

/// The kernel supports at most 8192 cores.
const MAX_CORE: usize = 8191;

/// Parses the kernel's masks of cores: hexadecimal words of 32 bits, the highest first:
/// `1,00000003`.
fn parse_mask(text: &str) -> Option<BTreeSet<usize>> {
    let mut cores = BTreeSet::new();
    for (index, word) in text.trim().rsplit(',').enumerate() {
        let word = u32::from_str_radix(word, 16).ok()?;
        cores.extend((0..32).filter(|bit| word >> bit & 1 == 1).map(|bit| index * 32 + bit));
    }
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_masks_of_cores_are_parsed() {
        let set = |cores: &[usize]| Some(cores.iter().copied().collect::<BTreeSet<_>>());
        assert_eq!(parse_list("0-2,8\n"), set(&[0, 1, 2, 8]));
        assert_eq!(parse_list("\n"), set(&[]));
        assert_eq!(parse_list("x"), None);
        assert_eq!(parse_list("0-99999999").map(|cores| cores.len()), Some(MAX_CORE + 1));
        assert_eq!(parse_mask("1,00000005\n"), set(&[0, 2, 32]));
        assert_eq!(parse_mask("0"), set(&[]));
        assert_eq!(parse_mask(""), None);
    }
}
