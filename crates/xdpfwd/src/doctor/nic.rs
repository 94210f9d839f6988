//! Checks one interface with /sys and /proc.

use xdpfwd_engine::PortPlan;

use super::tree::parse_list;
use super::{Finding, Subject, Tree};
use crate::config::largest_mtu;

/// If the interface's index in /sys differs from `index`, the only finding is that /sys shows
/// another network namespace. `None` skips this comparison.
pub(crate) fn examine(
    subject: &Subject,
    port: &PortPlan,
    tree: &Tree,
    index: Option<u32>,
) -> Vec<Finding> {
    let name = &*port.interface;
    let nic = Nic { name, tree, folder: format!("/sys/class/net/{name}") };
    if index.is_some() && nic.number("ifindex") != index {
        let why = "/sys shows another network namespace; start doctor with `ip netns exec`, which \
                   mounts /sys again";
        return vec![Finding::unknown("interface", name, why)];
    }
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
    tree: &'a Tree,
    folder: String,
}

impl Nic<'_> {
    fn text(&self, file: &str) -> Option<String> {
        self.tree.text(&format!("{}/{file}", self.folder))
    }

    fn number<N: std::str::FromStr>(&self, file: &str) -> Option<N> {
        self.tree.number(&format!("{}/{file}", self.folder))
    }

    /// Returns `None` if the interface has no device.
    fn driver(&self) -> Option<String> {
        self.tree.link_target_name(&format!("{}/device/driver", self.folder))
    }

    fn link(&self) -> Finding {
        const CHECK: &str = "link";
        let state = self.text("operstate").unwrap_or_else(|| "unknown".into());
        match &*state {
            "down" => {
                let flags = self
                    .text("flags")
                    .and_then(|flags| u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok());
                // Bit 0 is IFF_UP.
                let is_set_down = flags.is_none_or(|flags| flags & 1 == 0);
                let (found, fix) = if is_set_down {
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
                let driver =
                    self.driver().map_or(", virtual".into(), |driver| format!(", driver {driver}"));
                Finding::ok(CHECK, self.name, format!("{state}{driver}{speed}"))
            }
        }
    }

    /// Packets must fit into a frame after the kernel's headroom.
    fn mtu(&self, frame_size: u32) -> Finding {
        const CHECK: &str = "mtu";
        let Some(mtu) = self.number::<u32>("mtu") else {
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

    /// Zero-copy needs DMA mappings, which a legacy virtio device lacks. Returns `None` for other
    /// drivers.
    fn virtio(&self, driver: &str) -> Option<Finding> {
        const CHECK: &str = "virtio";
        if driver != "virtio_net" {
            return None;
        }
        let bits = self.text("device/features")?;
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
        let node =
            self.number::<i64>("device/numa_node").or_else(|| self.number("device/../numa_node"));
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

    /// No queue interrupt may be handled only on workers' cores, except with busy polling.
    fn interrupts(&self, subject: &Subject) -> Finding {
        const CHECK: &str = "irq";
        let cores = subject.cores();
        let mut numbers: Vec<u32> = self
            .tree
            .names(&format!("{}/device/msi_irqs", self.folder))
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        if numbers.is_empty() && self.driver().as_deref() == Some("virtio_net") {
            // The interrupts belong to the PCI parent of the virtio device.
            let names = self.tree.names(&format!("{}/device/../msi_irqs", self.folder));
            numbers = names.iter().filter_map(|name| name.parse().ok()).collect();
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
                Finding::warning(
                    CHECK,
                    self.name,
                    format!(
                        "interrupt {irq} is handled on core {core}, which a worker otherwise has \
                         to itself"
                    ),
                    format!(
                        "for irq in {}; do echo {other_cores} \
                         >/proc/irq/$irq/smp_affinity_list; done (irqbalance would undo this)\n\
                         or: [engine] busy_poll = true, so that the worker does that work",
                        irqs.join(" ")
                    ),
                )
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
                    format!("{} interrupts, none of them only on a worker's core", numbers.len());
                Finding::ok(CHECK, self.name, found)
            }
        }
    }
}
