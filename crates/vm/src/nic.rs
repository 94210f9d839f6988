//! The machine's network interfaces, connected in pairs by cables.

use std::collections::HashSet;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nic {
    /// The interface's name in the machine.
    pub(crate) name: &'static str,
    pub(crate) model: Model,
    /// Interfaces with the same cable are connected.
    pub(crate) cable: Cable,
    pub(crate) mac: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// virtio-net with `iommu_platform`: its driver maps memory for DMA, as AF_XDP zero-copy
    /// requires.
    Virtio,
    /// Like `Virtio`, with two queues. QEMU supports several queues only with taps, so the cable is
    /// a bridge.
    VirtioMulti,
    /// virtio-net with QEMU's defaults: the device uses guest-physical addresses, so zero-copy is
    /// unavailable.
    VirtioPlain,
    /// Intel's 82576, with two queues.
    Igb,
    /// Like `Igb`, on the machine's second NUMA node.
    IgbOnNode1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cable {
    /// A hub inside QEMU, with this number.
    Hub(u8),
    /// A bridge of the host's kernel, with this number, in QEMU's network namespace. Each interface
    /// is connected to it by a tap.
    Bridge(u8),
}

/// Returns all interfaces. Each cable connects an interface for the forwarder, such as `v0`, with
/// one for the test traffic, such as `v0far`.
pub(crate) fn all() -> Vec<Nic> {
    let cables = [
        ("v0", Model::Virtio, "v0far"),
        ("v1", Model::Virtio, "v1far"),
        ("i0", Model::Igb, "i0far"),
        ("i1", Model::IgbOnNode1, "i1far"),
        ("m0", Model::VirtioMulti, "m0far"),
        ("m1", Model::VirtioMulti, "m1far"),
        ("p0", Model::VirtioPlain, "p0far"),
    ];
    (1..)
        .zip(cables)
        .flat_map(|(number, (forwarder_name, model, traffic_name))| {
            let cable = if model == Model::VirtioMulti {
                Cable::Bridge(number)
            } else {
                Cable::Hub(number)
            };
            [(forwarder_name, model, 1), (traffic_name, Model::Virtio, 2)].map(
                |(name, model, end)| Nic {
                    name,
                    model,
                    cable,
                    mac: format!("52:54:00:00:{number:02x}:{end:02x}"),
                },
            )
        })
        .collect()
}

/// Returns commands for `ip -batch` that create the bridges and taps.
pub(crate) fn bridge_commands(nics: &[Nic]) -> String {
    let mut created = HashSet::new();
    let mut commands = String::new();
    for nic in nics {
        let Cable::Bridge(cable) = nic.cable else { continue };
        if created.insert(cable) {
            // Ageing time 0 makes the bridge flood like a hub.
            commands += &format!(
                "link add br{cable} type bridge ageing_time 0 mcast_snooping 0\n\
                 link set br{cable} up\n"
            );
        }
        let (tap, queues) =
            (nic.tap(), if nic.model == Model::VirtioMulti { " multi_queue" } else { "" });
        commands += &format!(
            "tuntap add {tap} mode tap{queues}\nlink set {tap} master br{cable}\n\
             link set {tap} up\n"
        );
    }
    commands
}

/// The PCI Express bus of the second NUMA node.
pub(crate) const NODE1_BUS: &str = "pxb-pcie,id=node1,bus_nr=64,bus=pcie.0,numa_node=1";

impl Nic {
    /// Returns the name of the interface's tap.
    fn tap(&self) -> String {
        format!("tap-{}", self.name)
    }

    /// Returns QEMU's arguments for the interface. `index` is its index in the machine's list of
    /// interfaces.
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
        // Always name the bus: by default, QEMU would use the bus of the second NUMA node.
        let bus = if self.model == Model::IgbOnNode1 { "node1" } else { "pcie.0" };
        let common = format!("netdev=net{index},mac={}", self.mac);
        const IOMMU_OPTIONS: &str = "disable-legacy=on,iommu_platform=on";
        let chassis = index + 1;
        match self.model {
            Model::Virtio => device(format!("virtio-net-pci,bus={bus},{common},{IOMMU_OPTIONS}")),
            // Six interrupt vectors: one per queue and direction, one for the control queue, one
            // for configuration changes.
            Model::VirtioMulti => {
                device(format!("virtio-net-pci,bus={bus},{common},{IOMMU_OPTIONS},mq=on,vectors=6"))
            }
            Model::VirtioPlain => device(format!("virtio-net-pci,bus={bus},{common}")),
            // A PCI Express device needs its own root port.
            Model::Igb | Model::IgbOnNode1 => {
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
    fn interfaces_are_unique_and_connected_in_pairs() {
        let nics = all();
        for nic in &nics {
            assert_eq!(nics.iter().filter(|other| other.cable == nic.cable).count(), 2, "{nic:?}");
            assert!(nic.tap().len() < 16, "{nic:?}");
        }
        assert_eq!(nics.iter().map(|nic| nic.name).collect::<HashSet<_>>().len(), nics.len());
        assert_eq!(nics.iter().map(|nic| &nic.mac).collect::<HashSet<_>>().len(), nics.len());
    }

    #[test]
    fn bridge_commands_create_tap_for_each_interface_on_a_bridge() {
        let nics = all();
        let on_bridges = nics.iter().filter(|nic| matches!(nic.cable, Cable::Bridge(_))).count();
        let batch = bridge_commands(&nics);
        assert_eq!(batch.lines().filter(|line| line.starts_with("tuntap add")).count(), on_bridges);
        assert_eq!(
            batch.lines().filter(|line| line.ends_with("multi_queue")).count(),
            on_bridges / 2
        );
        assert_eq!(bridge_commands(&[]), "");
    }
}
