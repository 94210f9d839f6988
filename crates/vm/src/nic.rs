//! The machine's network interfaces, in pairs with a cable between the two ends.

/// A network interface of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nic {
    /// Its name in the machine.
    pub(crate) name: &'static str,
    pub(crate) model: Model,
    /// Those with the same number are on one cable.
    pub(crate) cable: u8,
    pub(crate) mac: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// virtio-net as AF_XDP's zero-copy needs it: modern, behind an IOMMU, so that the driver does DMA mappings.
    Virtio,
    /// virtio-net as QEMU makes it if nothing is said: the device is given guest addresses, so there is no zero-copy.
    VirtioPlain,
    /// Intel's 82576, with two queues.
    Igb,
}

/// All of the lab's: on each cable the end that a forwarder is given, and a far end, where traffic comes from and goes to.
pub(crate) fn all() -> Vec<Nic> {
    let cables = [
        ("v0", Model::Virtio, "v0far"),
        ("v1", Model::Virtio, "v1far"),
        ("i0", Model::Igb, "i0far"),
        ("i1", Model::Igb, "i1far"),
        ("p0", Model::VirtioPlain, "p0far"),
    ];
    (1..)
        .zip(cables)
        .flat_map(|(cable, (near, model, far))| {
            [(near, model, 1), (far, Model::Virtio, 2)].map(|(name, model, end)| Nic {
                name,
                model,
                cable,
                mac: format!("52:54:00:00:{cable:02x}:{end:02x}"),
            })
        })
        .collect()
}

impl Nic {
    /// What QEMU is to be told; `index` is this one's among all.
    pub(crate) fn arguments(&self, index: usize) -> Vec<String> {
        let mut arguments = vec!["-netdev".into(), format!("hubport,id=net{index},hubid={}", self.cable)];
        let mut device = |text: String| arguments.extend(["-device".to_owned(), text]);
        let common = format!("netdev=net{index},mac={}", self.mac);
        match self.model {
            Model::Virtio => device(format!("virtio-net-pci,{common},disable-legacy=on,iommu_platform=on")),
            Model::VirtioPlain => device(format!("virtio-net-pci,{common}")),
            Model::Igb => {
                // It is a PCI Express device, and wants a root port of its own.
                device(format!("pcie-root-port,id=port{index},chassis={},slot={}", index + 1, index + 1));
                device(format!("igb,bus=port{index},{common}"));
            }
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_cable_has_two_ends_and_nothing_is_there_twice() {
        let nics = all();
        for nic in &nics {
            assert_eq!(nics.iter().filter(|other| other.cable == nic.cable).count(), 2, "{nic:?}");
            assert!(nic.name.len() < 16, "{nic:?}");
        }
        assert_eq!(nics.iter().map(|nic| nic.name).collect::<HashSet<_>>().len(), nics.len());
        assert_eq!(nics.iter().map(|nic| &nic.mac).collect::<HashSet<_>>().len(), nics.len());
    }
}
