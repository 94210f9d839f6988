//! Checks one interface with /sys and /proc.

use xdpfwd_engine::{Link, PortPlan};

use super::tree::parse_list;
use super::{Finding, Subject, Tree};
use crate::config::largest_mtu;

/// `is_in_sysfs` states that /sys describes this interface, not one of another network namespace.
pub(crate) fn examine(
    subject: &Subject,
    port: &PortPlan,
    tree: &Tree,
    link: &Link,
    is_in_sysfs: bool,
) -> Vec<Finding> {
    let name = &*port.interface;
    let folder = is_in_sysfs.then(|| format!("/sys/class/net/{name}"));
    let nic = Nic { name, link, tree, folder };
    let mut findings = vec![nic.link(), nic.mtu(subject.plan.umem.frame_size)];
    if let Some(driver) = nic.driver() {
        findings.extend(nic.virtio(&driver));
        findings.push(nic.numa(subject));
        findings.push(nic.interrupts(subject));
    }
    findings
}

struct Nic<'a> {
    name: &'a str,
    link: &'a Link,
    tree: &'a Tree,
    /// `None` if /sys does not describe the interface.
    folder: Option<String>,
}

impl Nic<'_> {
    fn text(&self, file: &str) -> Option<String> {
        self.tree.text(&format!("{}/{file}", self.folder.as_ref()?))
    }

    fn number<N: std::str::FromStr>(&self, file: &str) -> Option<N> {
        self.tree.number(&format!("{}/{file}", self.folder.as_ref()?))
    }

    /// Returns `None` if the interface has no device, or if /sys does not describe it.
    fn driver(&self) -> Option<String> {
        self.tree.link_target_name(&format!("{}/device/driver", self.folder.as_ref()?))
    }

    /// Returns the file names that are numbers in the interface's `folder`.
    fn numbers_in(&self, folder: &str) -> Vec<u32> {
        let Some(interface) = &self.folder else { return Vec::new() };
        let names = self.tree.names(&format!("{interface}/{folder}"));
        names.iter().filter_map(|name| name.parse().ok()).collect()
    }

    fn link(&self) -> Finding {
        const CHECK: &str = "link";
        let state = &self.link.state;
        match &**state {
            "down" => {
                let (found, fix) = if !self.link.is_up {
                    (
                        "is down: xdpfwd would wait for it",
                        format!("ip link set dev {} up", self.name),
                    )
                } else {
                    (
                        "is up but has no carrier",
                        "plug in the cable, or set the other end up".to_owned(),
                    )
                };
                Finding::warning(CHECK, self.name, found, fix)
            }
            "dormant" | "notpresent" => {
                let fix = format!("`ip -d link show {}` shows details", self.name);
                Finding::warning(CHECK, self.name, format!("is {state}: no packets pass"), fix)
            }
            "lowerlayerdown" => Finding::warning(
                CHECK,
                self.name,
                "its other end is down",
                "set the other end up: ip link set dev PEER up",
            ),
            _ => {
                let speed = self.number::<i64>("speed").filter(|&speed| speed > 0);
                let speed = speed.map_or(String::new(), |speed| format!(", {speed} Mbit/s"));
                let driver = match self.driver() {
                    Some(driver) => format!(", driver {driver}"),
                    None if self.link.has_device => String::new(),
                    None => ", virtual".to_owned(),
                };
                Finding::ok(CHECK, self.name, format!("{state}{driver}{speed}"))
            }
        }
    }

    /// Checks that packets fit into a frame, after the kernel's headroom.
    fn mtu(&self, frame_size: u32) -> Finding {
        const CHECK: &str = "mtu";
        let Some(mtu) = self.link.mtu else {
            return Finding::unknown(CHECK, self.name, "cannot read its MTU");
        };
        let room = largest_mtu(frame_size);
        if mtu <= room {
            return Finding::ok(
                CHECK,
                self.name,
                format!("{mtu}: fits into frames of {frame_size} bytes (up to {room})"),
            );
        }
        let lower_mtu = format!("ip link set dev {} mtu {room}", self.name);
        let fix = if mtu <= largest_mtu(4096) {
            format!("[umem] frame_size = 4096\nor: {lower_mtu}")
        } else {
            lower_mtu
        };
        let found = format!(
            "{mtu}: frames of {frame_size} bytes have room for MTU {room}, after 256 bytes of \
             headroom"
        );
        Finding::error(CHECK, self.name, found, fix)
    }

    /// Checks that a virtio device has the DMA mappings that zero-copy needs; a legacy device has
    /// none. Returns `None` for other drivers.
    fn virtio(&self, driver: &str) -> Option<Finding> {
        const CHECK: &str = "virtio";
        if driver != "virtio_net" {
            return None;
        }
        let Some(bits) = self.text("device/features") else {
            return Some(Finding::unknown(
                CHECK,
                self.name,
                "cannot read the features of its device",
            ));
        };
        // One character per bit, lowest bit first (drivers/virtio/virtio.c, features_show). Bit 32
        // is VIRTIO_F_VERSION_1, and bit 33 is VIRTIO_F_ACCESS_PLATFORM.
        let has_feature = |bit: usize| bits.as_bytes().get(bit) == Some(&b'1');
        let (modern, dma) = (has_feature(32), has_feature(33));
        let qemu = "QEMU: -device virtio-net-pci,…,disable-legacy=on,iommu_platform=on\n\
                    libvirt: <driver iommu='on'/> on a machine with an IOMMU";
        Some(match (modern, dma) {
            (_, true) => Finding::ok(
                CHECK,
                self.name,
                "a modern device that does DMA (VIRTIO_F_ACCESS_PLATFORM)",
            ),
            (true, false) => Finding::warning(
                CHECK,
                self.name,
                "no VIRTIO_F_ACCESS_PLATFORM: its device uses guest addresses without DMA \
                 mappings, so there is no zero-copy",
                qemu,
            ),
            (false, false) => Finding::warning(
                CHECK,
                self.name,
                "a legacy device (no VIRTIO_F_VERSION_1): no zero-copy",
                qemu,
            ),
        })
    }

    fn numa(&self, subject: &Subject) -> Finding {
        const CHECK: &str = "numa";
        // The node of a virtio device is that of its PCI parent.
        let node =
            self.number::<i64>("device/numa_node").or_else(|| self.number("device/../numa_node"));
        if node.is_none() && self.tree.exists("/sys/devices/system/node") {
            return Finding::unknown(CHECK, self.name, "cannot read the NUMA node of its device");
        }
        let Some(node) = node.and_then(|node| usize::try_from(node).ok()) else {
            return Finding::ok(CHECK, self.name, "its device belongs to no NUMA node");
        };
        let local_cores = self
            .tree
            .text(&format!("/sys/devices/system/node/node{node}/cpulist"))
            .as_deref()
            .and_then(parse_list);
        let Some(local_cores) = local_cores else {
            return Finding::unknown(
                CHECK,
                self.name,
                format!("cannot read the cores of node {node}"),
            );
        };
        let remote_cores: Vec<_> =
            subject.cores().into_iter().filter(|core| !local_cores.contains(core)).collect();
        if local_cores.is_empty() {
            return Finding::ok(
                CHECK,
                self.name,
                format!("its device is on node {node}, which has no cores"),
            );
        }
        if let Some(core) = remote_cores.first() {
            let examples: Vec<_> = local_cores.iter().take(4).map(ToString::to_string).collect();
            return Finding::warning(
                CHECK,
                self.name,
                format!(
                    "its device is on node {node}, core {core} is not; packet memory is allocated \
                     near the core"
                ),
                format!("[engine] cores = [{}, …], those of node {node}", examples.join(", ")),
            );
        }
        let cores = if subject.cores().is_empty() { "" } else { ", as the workers' cores are" };
        Finding::ok(CHECK, self.name, format!("its device is on node {node}{cores}"))
    }

    /// Checks that every interrupt may be handled on a core without a worker, except with busy
    /// polling.
    fn interrupts(&self, subject: &Subject) -> Finding {
        const CHECK: &str = "irq";
        let cores = subject.cores();
        let mut numbers = self.numbers_in("device/msi_irqs");
        if numbers.is_empty() && self.driver().as_deref() == Some("virtio_net") {
            // The interrupts belong to the PCI parent of the virtio device.
            numbers = self.numbers_in("device/../msi_irqs");
        }
        if numbers.is_empty() {
            return Finding::unknown(
                CHECK,
                self.name,
                "/sys shows no MSI interrupts of its device",
            );
        }
        let affinity = |irq: &u32| {
            let read = |file| {
                self.tree.text(&format!("/proc/irq/{irq}/{file}")).as_deref().and_then(parse_list)
            };
            let allowed = read("smp_affinity_list")?;
            // A new affinity takes effect with the next interrupt. Until then, the effective core
            // may be one that is no longer allowed.
            let effective = read("effective_affinity_list").unwrap_or_default();
            let is_effective_allowed =
                !effective.is_empty() && effective.iter().all(|core| allowed.contains(core));
            Some(if is_effective_allowed { effective } else { allowed })
        };
        if numbers.iter().all(|irq| affinity(irq).is_none()) {
            return Finding::unknown(
                CHECK,
                self.name,
                format!("cannot read on which cores its interrupts run (/proc/irq/{})", numbers[0]),
            );
        }
        let on_workers: Vec<(u32, usize)> = numbers
            .iter()
            .filter_map(|irq| {
                let targets = affinity(irq)?;
                // Ignore an interrupt that cores without a worker may also handle.
                let core = targets.iter().find(|core| cores.contains(core))?;
                targets.iter().all(|core| cores.contains(core)).then_some((*irq, *core))
            })
            .collect();
        let online = self
            .tree
            .text("/sys/devices/system/cpu/online")
            .as_deref()
            .and_then(parse_list)
            .unwrap_or_default();
        let other_cores: Vec<_> =
            online.iter().filter(|core| !cores.contains(core)).map(ToString::to_string).collect();
        let other_cores = other_cores.join(",");
        match on_workers.first() {
            Some((irq, core)) if !subject.plan.busy_poll => {
                let irqs: Vec<_> = on_workers.iter().map(|(irq, _)| irq.to_string()).collect();
                let found = format!(
                    "interrupt {irq} is handled on core {core}, which a worker otherwise has to \
                     itself (irqbalance, if it runs, can undo a changed affinity)"
                );
                let busy_poll =
                    "[engine] busy_poll = true, so that the worker polls the device itself";
                let fix = if other_cores.is_empty() {
                    busy_poll.to_owned()
                } else {
                    format!(
                        "for irq in {}; do echo {other_cores} >/proc/irq/$irq/smp_affinity_list; \
                         done\nor: {busy_poll}",
                        irqs.join(" ")
                    )
                };
                Finding::warning(CHECK, self.name, found, fix)
            }
            Some((_, core)) => Finding::ok(
                CHECK,
                self.name,
                format!("handled on core {core}, whose worker polls the device as well"),
            ),
            None if cores.is_empty() => {
                Finding::ok(CHECK, self.name, format!("{} interrupts", numbers.len()))
            }
            None => {
                let found =
                    format!("{} interrupts, none limited to cores of workers", numbers.len());
                Finding::ok(CHECK, self.name, found)
            }
        }
    }
}
