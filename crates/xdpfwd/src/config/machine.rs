//! The machine against which a configuration is checked.

use std::cell::{Cell, OnceCell};
use std::fs;
use std::io;
use std::path::Path;

use nix::net::if_::{if_indextoname, if_nameindex, if_nametoindex};
use nix::sys::sysinfo::sysinfo;
use xdpfwd_engine::{
    Ethtool, HardwareType, Io, Link, LinkUser, Links, Lockouts, Plan, PortPlan, TooFewDescriptors,
    VlanTagLoss,
};
use xdpfwd_pipeline::Ports;

/// The properties of a machine; fake in tests.
pub(crate) trait Machine {
    /// The cores that this process may run on, ascending; empty if unknown.
    fn cores(&self) -> Vec<usize>;

    /// Returns the interface called `name` in the network namespace of this process, if it exists.
    fn interface(&self, name: &str) -> Option<Interface>;

    /// Returns the traffic on which this host may depend, and which the plan's ports would take
    /// from the kernel.
    fn lockouts(&self, plan: &Plan) -> io::Result<Lockouts>;

    fn interfaces(&self) -> Vec<String>;

    /// Returns the properties of the ports. By default, these are only what the configuration
    /// states.
    fn describe(&self, ports: &[PortPlan]) -> Ports {
        xdpfwd_engine::ports_without_interfaces(ports)
    }

    /// Returns the name of a sysctl that makes the kernel forward packets of an interface; `None`
    /// if the kernel does not forward them.
    fn forwarding(&self, _interface: &str) -> io::Result<Option<String>> {
        Ok(None)
    }

    /// Returns whether this process may open as many files as the plan needs.
    fn check_descriptors(&self, _plan: &Plan) -> io::Result<Result<(), TooFewDescriptors>> {
        Ok(Ok(()))
    }

    /// Returns whether this is a real machine, neither fake nor unknown. On a real machine, a
    /// property that cannot be read causes a warning, because checks that need it cannot run.
    fn is_real(&self) -> bool {
        false
    }

    /// Returns why received frames of an existing interface can lack their VLAN tags; `None` if
    /// they contain all tags.
    fn vlan_tag_loss(&self, _interface: &str) -> io::Result<Option<VlanTagLoss>> {
        Ok(None)
    }

    /// Returns whether this program supports `io`.
    fn is_built(&self, io: Io) -> bool {
        io.is_built()
    }

    /// Returns the cargo feature that adds a stage kind, if the kind is not built in.
    fn feature_for(&self, kind: &str) -> Option<&'static str> {
        xdpfwd_stages::omitted_kinds()
            .find(|(missing, _)| *missing == kind)
            .map(|(_, feature)| feature)
    }

    fn memory(&self) -> Memory {
        Memory::default()
    }
}

/// Memory, as far as known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) bytes: Option<u64>,
    /// Huge pages of 2 MiB.
    pub(crate) huge_pages: Option<HugePageCounts>,
}

/// Numbers of pages in the kernel's pool (`nr_hugepages` and `free_hugepages`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HugePageCounts {
    pub(crate) total: u64,
    pub(crate) free: u64,
}

/// Properties of an interface, as far as known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    /// The index, which is the same for all names of an interface.
    pub(crate) index: u32,
    pub(crate) hardware_type: Option<HardwareType>,
    /// Queues that are active in both directions.
    pub(crate) queues: Option<u16>,
    /// Whether `ethtool -L` sets the queues of both directions together.
    pub(crate) has_combined_queues: bool,
    /// Longest packet in bytes, without the Ethernet header.
    pub(crate) mtu: Option<u32>,
    /// `None` for a virtual interface, or if unknown.
    pub(crate) driver: Option<String>,
    /// Whether the interface belongs to no device.
    pub(crate) is_virtual: bool,
    /// Operational state (RFC 2863), as the kernel prints it: `up`, `down`, `lowerlayerdown`, ….
    pub(crate) state: Option<String>,
    /// Interfaces that use this one, such as a bridge or a VLAN interface.
    pub(crate) users: Vec<LinkUser>,
    /// Properties that cannot be checked, each with the reason, such as `the number of queues: …`.
    pub(crate) unchecked: Vec<String>,
}

/// A machine about which nothing is known, so that checks find only errors of the configuration
/// itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoMachine;

impl Machine for NoMachine {
    fn cores(&self) -> Vec<usize> {
        Vec::new()
    }

    fn interface(&self, _: &str) -> Option<Interface> {
        None
    }

    fn lockouts(&self, _: &Plan) -> io::Result<Lockouts> {
        Ok(Lockouts::default())
    }

    fn interfaces(&self) -> Vec<String> {
        Vec::new()
    }
}

/// This machine. Reads the list of links only once, at the first use.
#[derive(Debug, Default)]
pub(crate) struct ThisMachine {
    links: OnceCell<io::Result<Links>>,
    has_missing_interface: Cell<bool>,
}

impl ThisMachine {
    /// Returns whether an interface that was looked up did not exist, so that its checks did not
    /// run.
    pub(crate) fn has_missing_interface(&self) -> bool {
        self.has_missing_interface.get()
    }

    fn links(&self) -> Result<&Links, &io::Error> {
        self.links.get_or_init(Links::read).as_ref()
    }
}

impl Machine for ThisMachine {
    fn cores(&self) -> Vec<usize> {
        let mut cores: Vec<usize> = core_affinity::get_core_ids()
            .unwrap_or_default()
            .into_iter()
            .map(|core| core.id)
            .collect();
        cores.sort_unstable();
        cores
    }

    fn is_real(&self) -> bool {
        true
    }

    fn interface(&self, name: &str) -> Option<Interface> {
        let Ok(index) = if_nametoindex(name) else {
            self.has_missing_interface.set(true);
            return None;
        };
        let mut interface = Interface { index, ..Interface::default() };
        match self.links() {
            Ok(links) => interface.users = links.users(index),
            Err(error) => {
                interface.unchecked.push(format!("what else uses the interface: {error}"));
            }
        }
        let mut folder = None;
        match Link::read(index) {
            Ok(link) => {
                folder = link.sysfs_folder();
                interface.hardware_type = Some(link.hardware_type);
                interface.mtu = link.mtu;
                interface.is_virtual = !link.has_device;
                interface.state = Some(link.state);
            }
            Err(error) => {
                let unchecked = format!("the hardware type and the MTU: {error}");
                interface.unchecked.push(unchecked);
            }
        }
        interface.driver = folder.as_deref().and_then(driver);
        match active_queues(index, folder.as_deref()) {
            Ok((queues, combined)) => {
                interface.queues = Some(queues);
                interface.has_combined_queues = combined.unwrap_or(interface.driver.is_some());
            }
            Err(error) => interface.unchecked.push(format!("the number of queues: {error}")),
        }
        Some(interface)
    }

    fn lockouts(&self, plan: &Plan) -> io::Result<Lockouts> {
        xdpfwd_engine::lockouts(plan)
    }

    fn describe(&self, ports: &[PortPlan]) -> Ports {
        xdpfwd_engine::describe_ports(ports)
    }

    fn interfaces(&self) -> Vec<String> {
        let Ok(interfaces) = if_nameindex() else { return Vec::new() };
        interfaces.iter().map(|interface| interface.name().to_string_lossy().into_owned()).collect()
    }

    fn forwarding(&self, interface: &str) -> io::Result<Option<String>> {
        let Ok(index) = if_nametoindex(interface) else { return Ok(None) };
        let name = if_indextoname(index)?.to_string_lossy().into_owned();
        // Unlike /sys, /proc/sys/net shows the reader's network namespace.
        let value = |family: &str| {
            let file = format!("/proc/sys/net/{family}/conf/{name}/forwarding");
            fs::read_to_string(&file)
                .map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))
        };
        let setting = |family: &str| Ok(Some(format!("net.{family}.conf.{name}.forwarding")));
        if value("ipv4")?.trim() != "0" {
            return setting("ipv4");
        }
        // Ignore an error: if IPv6 is disabled, the file does not exist.
        match value("ipv6") {
            Ok(value) if value.trim() != "0" => setting("ipv6"),
            _ => Ok(None),
        }
    }

    fn check_descriptors(&self, plan: &Plan) -> io::Result<Result<(), TooFewDescriptors>> {
        xdpfwd_engine::check_descriptors(plan)
    }

    fn vlan_tag_loss(&self, interface: &str) -> io::Result<Option<VlanTagLoss>> {
        VlanTagLoss::find(interface, if_nametoindex(interface)?)
    }

    fn memory(&self) -> Memory {
        let total = sysinfo().ok().map(|info| info.ram_total());
        let folder = Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB");
        let number = |file| read(folder, file).and_then(|text| text.parse().ok());
        let huge_pages = number("nr_hugepages")
            .zip(number("free_hugepages"))
            .map(|(total, free)| HugePageCounts { total, free });
        Memory { bytes: total, huge_pages }
    }
}

fn read(folder: &Path, file: &str) -> Option<String> {
    Some(fs::read_to_string(folder.join(file)).ok()?.trim().to_owned())
}

/// Returns the number of queues with both directions, and whether `ethtool -L` sets both together
/// (`None` if unknown). The kernel binds a socket with an RX and a TX ring only to
/// such a queue (net/xdp/xsk.c, `xsk_bind`).
fn active_queues(index: u32, folder: Option<&Path>) -> Result<(u16, Option<bool>), String> {
    let channels = Ethtool::open(index).and_then(|ethtool| ethtool.channels());
    let not_in_ethtool = match channels {
        Ok(channels) if channels.receive.min(channels.send) > 0 => {
            let active = channels.receive.min(channels.send).try_into().unwrap_or(u16::MAX);
            return Ok((active, Some(channels.combined)));
        }
        // A tap device that no process has opened has no channels, but it has a queue, which /sys
        // lists.
        Ok(_) => "ethtool reports none".to_owned(),
        Err(error) => format!("ethtool: {error}"),
    };
    match folder {
        Some(folder) => queues_in_sysfs(folder)
            .map(|queues| (queues, None))
            .ok_or_else(|| format!("{not_in_ethtool}; /sys does not list them")),
        None => {
            Err(format!("{not_in_ethtool}; /sys is missing or shows another network namespace"))
        }
    }
}

fn queues_in_sysfs(folder: &Path) -> Option<u16> {
    let (mut receive, mut send) = (0, 0);
    for entry in fs::read_dir(folder.join("queues")).ok()? {
        let name = entry.ok()?.file_name();
        let name = name.to_string_lossy();
        receive += u16::from(name.starts_with("rx-"));
        send += u16::from(name.starts_with("tx-"));
    }
    Some(receive.min(send))
}

fn driver(folder: &Path) -> Option<String> {
    let target = fs::read_link(folder.join("device/driver")).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cores_and_a_loopback() {
        let machine = ThisMachine::default();
        assert!(!machine.cores().is_empty());
        assert!(machine.interfaces().contains(&"lo".to_owned()));
        let loopback = machine.interface("lo").unwrap();
        assert_eq!((loopback.index, &loopback.driver), (1, &None));
        assert_eq!(loopback.hardware_type, Some(772.into()));
        assert!(loopback.mtu.is_some() && loopback.state.is_some(), "{loopback:?}");
        // The number of queues is unknown if /sys shows another network namespace.
        assert_eq!(loopback.queues.is_none(), !loopback.unchecked.is_empty(), "{loopback:?}");
        assert!(!machine.has_missing_interface());
    }

    #[test]
    fn this_machine_has_memory() {
        let Memory { bytes, huge_pages } = ThisMachine::default().memory();
        assert!(bytes.unwrap() > 64 << 20, "{bytes:?}");
        assert!(huge_pages.is_none_or(|pages| pages.free <= pages.total), "{huge_pages:?}");
    }

    #[test]
    fn queues_in_sysfs_counts_queues_with_both_directions() {
        let folder = std::env::temp_dir().join(format!("xdpfwd-queues-{}", std::process::id()));
        for queue in ["rx-0", "rx-1", "rx-2", "tx-0", "tx-1"] {
            fs::create_dir_all(folder.join("queues").join(queue)).unwrap();
        }
        let queues = queues_in_sysfs(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(queues, Some(2));
        assert_eq!(queues_in_sysfs(&folder), None);
    }

    #[test]
    fn interface_with_unknown_name_is_none() {
        for name in ["", ".", "..", "xdpfwd-none", "../lo", "a\0b", &"x".repeat(1000)] {
            let machine = ThisMachine::default();
            assert_eq!(machine.interface(name), None, "{name:?}");
            assert!(machine.has_missing_interface());
        }
    }
}
