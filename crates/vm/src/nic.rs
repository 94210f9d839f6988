//! The machine's network interfaces, connected in pairs by cables.

use std::collections::HashSet;

/// A network interface of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nic {
    /// Name in the machine.
    pub(crate) name: &'static str,
    pub(crate) model: Model,
    /// Cable; interfaces with the same value are connected.
    pub(crate) cable: Cable,
    pub(crate) mac: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// virtio-net for AF_XDP zero-copy: modern and behind an IOMMU, so that the driver maps DMA.
    Virtio,
    /// The same with two queues. QEMU supports this only with taps, so the cable is a host bridge.
    VirtioMulti,
    /// virtio-net with QEMU's defaults: the device uses guest addresses, so zero-copy is
    /// unavailable.
    VirtioPlain,
    /// Intel's 82576, with two queues.
    Igb,
    /// The same on the machine's second NUMA node.
    IgbFar,
}

/// The implementation of a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cable {
    /// Within QEMU.
    Hub(u8),
    /// Taps and a bridge, in QEMU's own network namespace.
    Bridge(u8),
}

/// Returns all interfaces: each cable connects a forwarder's interface with one for the traffic.
pub(crate) fn all() -> Vec<Nic> {
    let cables = [
        ("v0", Model::Virtio, "v0far"),
        ("v1", Model::Virtio, "v1far"),
        ("i0", Model::Igb, "i0far"),
        ("i1", Model::IgbFar, "i1far"),
        ("m0", Model::VirtioMulti, "m0far"),
        ("m1", Model::VirtioMulti, "m1far"),
        ("p0", Model::VirtioPlain, "p0far"),
    ];
    (1..)
        .zip(cables)
        .flat_map(|(number, (near, model, far))| {
            let cable = if model == Model::VirtioMulti {
                Cable::Bridge(number)
            } else {
                Cable::Hub(number)
            };
            [(near, model, 1), (far, Model::Virtio, 2)].map(|(name, model, end)| Nic {
                name,
                model,
                cable,
                mac: format!("52:54:00:00:{number:02x}:{end:02x}"),
            })
        })
        .collect()
}

/// Returns the `ip -batch` commands for QEMU's network namespace.
pub(crate) fn bridges(nics: &[Nic]) -> String {
    let mut created = HashSet::new();
    let mut lines = String::new();
    for nic in nics {
        let Cable::Bridge(cable) = nic.cable else { continue };
        if created.insert(cable) {
            // Ageing time 0 makes the bridge flood like a hub.
            lines += &format!(
                "link add br{cable} type bridge ageing_time 0 mcast_snooping 0\n\
                 link set br{cable} up\n"
            );
        }
        let (tap, queues) =
            (nic.tap(), if nic.model == Model::VirtioMulti { " multi_queue" } else { "" });
        lines += &format!(
            "tuntap add {tap} mode tap{queues}\nlink set {tap} master br{cable}\n\
             link set {tap} up\n"
        );
    }
    lines
}

/// The PCI Express bus of the second NUMA node.
pub(crate) const FAR_BUS: &str = "pxb-pcie,id=far,bus_nr=64,bus=pcie.0,numa_node=1";

impl Nic {
    fn tap(&self) -> String {
        format!("tap-{}", self.name)
    }

    /// Returns QEMU's arguments; `index` is the interface's index among all.
    pub(crate) fn arguments(&self, index: usize) -> Vec<String> {
        let queues = if self.model == Model::VirtioMulti { ",queues=2" } else { "" };
        let netdev = match self.cable {
            Cable::Hub(hub) => format!("hubport,id=net{index},hubid={hub}"),
            Cable::Bridge(_) => {
                format!(
                    "tap,id=net{index},ifname={},script=no,downscript=no,vhost=off{queues}",
                    self.tap()
                )
            }
        };
        let mut arguments = vec!["-netdev".into(), netdev];
        let mut device = |text: String| arguments.extend(["-device".to_owned(), text]);
        // Set the bus explicitly: QEMU's default is the second node's bus.
        let bus = if self.model == Model::IgbFar { "far" } else { "pcie.0" };
        let common = format!("netdev=net{index},mac={}", self.mac);
        const DMA: &str = "disable-legacy=on,iommu_platform=on";
        let chassis = index + 1;
        match self.model {
            Model::Virtio => device(format!("virtio-net-pci,bus={bus},{common},{DMA}")),
            // One vector per queue and direction, one for control, one for configuration changes.
            Model::VirtioMulti => {
                device(format!("virtio-net-pci,bus={bus},{common},{DMA},mq=on,vectors=6"))
            }
            Model::VirtioPlain => device(format!("virtio-net-pci,bus={bus},{common}")),
            // A PCI Express device needs its own root port.
            Model::Igb | Model::IgbFar => {
                device(format!(
                    "pcie-root-port,bus={bus},id=port{index},chassis={chassis},slot={chassis}"
                ));
                device(format!("igb,bus=port{index},{common}"));
            }
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cable_has_two_ends_and_names_are_unique() {
        let nics = all();
        for nic in &nics {
            assert_eq!(nics.iter().filter(|other| other.cable == nic.cable).count(), 2, "{nic:?}");
            assert!(nic.tap().len() < 16, "{nic:?}");
        }
        assert_eq!(nics.iter().map(|nic| nic.name).collect::<HashSet<_>>().len(), nics.len());
        assert_eq!(nics.iter().map(|nic| &nic.mac).collect::<HashSet<_>>().len(), nics.len());
    }

    #[test]
    fn bridges_create_tap_for_each_end() {
        let nics = all();
        let on_bridges = nics.iter().filter(|nic| matches!(nic.cable, Cable::Bridge(_))).count();
        let batch = bridges(&nics);
        assert_eq!(batch.lines().filter(|line| line.starts_with("tuntap add")).count(), on_bridges);
        assert_eq!(
            batch.lines().filter(|line| line.ends_with("multi_queue")).count(),
            on_bridges / 2
        );
        assert_eq!(bridges(&[]), "");
    }
}
