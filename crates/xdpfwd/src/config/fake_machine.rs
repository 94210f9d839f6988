//! A fake machine, so that test results do not depend on the host.

use std::collections::BTreeMap;
use std::io;

use xdpfwd_engine::{HardwareType, Io, Lockout, Lockouts, Plan, TooFewDescriptors, VlanTagLoss};

use super::machine::{HugePageCounts, Interface, Machine, Memory};

pub(crate) struct FakeMachine {
    pub(crate) cores: Vec<usize>,
    pub(crate) interfaces: BTreeMap<&'static str, Interface>,
    /// SSH sessions and default routes that a start cuts off.
    pub(crate) lockouts: Vec<Lockout>,
    /// Interfaces whose driver removes VLAN tags.
    pub(crate) without_vlan_tags: Vec<&'static str>,
    /// Interfaces with kernel IP forwarding enabled.
    pub(crate) forwarding: Vec<&'static str>,
    /// The limit on file descriptors, if it is too low.
    pub(crate) too_few_descriptors: Option<TooFewDescriptors>,
    /// Whether `io = "xsk-rs"` is built in.
    pub(crate) xsk_rs: bool,
    /// Stage kinds that are not built in, each with the cargo feature that adds it.
    pub(crate) omitted_kinds: Vec<(&'static str, &'static str)>,
}

impl FakeMachine {
    /// Creates a machine with four cores and several interfaces. `eth1-alias` is another name of
    /// `eth1`; `opaque` and `opaque2` have unknown properties.
    pub(crate) fn new() -> Self {
        let interface = |index, queues, mtu| Interface {
            index,
            queues: Some(queues),
            mtu: Some(mtu),
            driver: Some("ixgbe".into()),
            state: Some("up".into()),
            hardware_type: Some(HardwareType::ETHERNET),
            has_combined_queues: true,
            ..Interface::default()
        };
        let unknown = Interface { index: 9, ..Interface::default() };
        let interfaces = BTreeMap::from([
            ("eth1", interface(1, 1, 1500)),
            ("eth1-alias", interface(1, 1, 1500)),
            ("eth2", interface(2, 1, 1500)),
            ("multi1", interface(3, 8, 1500)),
            ("multi2", interface(4, 8, 1500)),
            ("dual1", interface(5, 2, 1500)),
            ("middle", interface(6, 1, 3000)),
            ("jumbo", interface(7, 1, 9000)),
            ("opaque", unknown.clone()),
            ("opaque2", Interface { index: 10, ..unknown }),
        ]);
        Self {
            cores: vec![0, 1, 2, 3],
            interfaces,
            lockouts: Vec::new(),
            without_vlan_tags: Vec::new(),
            forwarding: Vec::new(),
            too_few_descriptors: None,
            xsk_rs: true,
            omitted_kinds: Vec::new(),
        }
    }
}

impl Machine for FakeMachine {
    fn cores(&self) -> Vec<usize> {
        self.cores.clone()
    }

    fn interface(&self, name: &str) -> Option<Interface> {
        self.interfaces.get(name).cloned()
    }

    fn lockouts(&self, _: &Plan) -> io::Result<Lockouts> {
        Ok(Lockouts { found: self.lockouts.clone(), sessions_error: None })
    }

    fn check_descriptors(&self, _: &Plan) -> io::Result<Result<(), TooFewDescriptors>> {
        Ok(self.too_few_descriptors.map_or(Ok(()), Err))
    }

    fn interfaces(&self) -> Vec<String> {
        self.interfaces.keys().map(|&name| name.to_owned()).collect()
    }

    fn forwarding(&self, interface: &str) -> io::Result<Option<String>> {
        let is_on = self.forwarding.contains(&interface);
        Ok(is_on.then(|| format!("net.ipv4.conf.{interface}.forwarding")))
    }

    /// Fails for an interface with "opaque" in its name.
    fn vlan_tag_loss(&self, interface: &str) -> io::Result<Option<VlanTagLoss>> {
        if interface.contains("opaque") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(self.without_vlan_tags.contains(&interface).then(|| VlanTagLoss {
            cause: "its driver removes them".into(),
            fix: format!("run `ethtool -K {interface} rxvlan off`"),
            depends_on_sender: false,
        }))
    }

    fn is_built(&self, io: Io) -> bool {
        io != Io::XskRs || self.xsk_rs
    }

    fn feature_for(&self, kind: &str) -> Option<&'static str> {
        self.omitted_kinds.iter().find(|(missing, _)| *missing == kind).map(|(_, feature)| *feature)
    }

    fn memory(&self) -> Memory {
        Memory { bytes: Some(4 << 30), huge_pages: Some(HugePageCounts { total: 10, free: 4 }) }
    }
}
