//! The machine against which a configuration is checked.

use std::fs;
use std::io;
use std::path::Path;

use nix::net::if_::{if_indextoname, if_nameindex, if_nametoindex};
use xdpfwd_engine::{Io, Lockout, Plan, PortPlan, VlanTagLoss};
use xdpfwd_pipeline::Ports;

/// The properties of a machine; fake in tests.
pub(crate) trait Machine {
    /// The cores that this process may run on, ascending; empty if unknown.
    fn cores(&self) -> Vec<usize>;

    /// Looks in the network namespace of this process.
    fn interface(&self, name: &str) -> Option<Interface>;

    /// Returns the traffic on which this host may depend, and which the plan's ports would take
    /// from the kernel.
    fn lockouts(&self, plan: &Plan) -> io::Result<Vec<Lockout>>;

    fn interfaces(&self) -> Vec<String>;

    /// The default is what the configuration states.
    fn describe(&self, ports: &[PortPlan]) -> Ports {
        xdpfwd_engine::ports_without_interfaces(ports)
    }

    /// Returns the name of a sysctl that makes the kernel forward packets of an interface; `None`
    /// if the kernel does not forward them.
    fn forwarding(&self, _interface: &str) -> Option<String> {
        None
    }

    /// Returns why frames of an existing interface can lack their VLAN tags.
    fn vlan_tag_loss(&self, _interface: &str) -> io::Result<Option<VlanTagLoss>> {
        Ok(None)
    }

    /// Whether this program supports `io`.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// All names of one interface share it.
    pub(crate) index: u32,
    /// Queues that are active in both directions.
    pub(crate) queues: Option<u16>,
    /// Longest packet in bytes, without the Ethernet header.
    pub(crate) mtu: Option<u32>,
    /// `None` for a virtual interface.
    pub(crate) driver: Option<String>,
    /// Operational state (RFC 2863), as the kernel prints it: `up`, `down`, `lowerlayerdown`, ….
    pub(crate) state: Option<String>,
}

/// Nothing is known, so checks find only errors of the configuration itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoMachine;

impl Machine for NoMachine {
    fn cores(&self) -> Vec<usize> {
        Vec::new()
    }

    fn interface(&self, _: &str) -> Option<Interface> {
        None
    }

    fn lockouts(&self, _: &Plan) -> io::Result<Vec<Lockout>> {
        Ok(Vec::new())
    }

    fn interfaces(&self) -> Vec<String> {
        Vec::new()
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ThisMachine;

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

    fn interface(&self, name: &str) -> Option<Interface> {
        let index = if_nametoindex(name).ok()?;
        // Alternative names have no folder in /sys.
        let name = if_indextoname(index).ok()?.to_string_lossy().into_owned();
        let folder = Path::new("/sys/class/net").join(name);
        // /sys shows the network namespace that it was mounted in. If the index differs, /sys
        // describes another interface with the same name.
        let is_visible = read(&folder, "ifindex").is_some_and(|text| text.parse() == Ok(index));
        let property = |file| is_visible.then(|| read(&folder, file)).flatten();
        Some(Interface {
            index,
            queues: is_visible.then(|| active_queues(&folder)).flatten(),
            mtu: property("mtu").and_then(|text| text.parse().ok()),
            driver: is_visible.then(|| driver(&folder)).flatten(),
            state: property("operstate"),
        })
    }

    fn lockouts(&self, plan: &Plan) -> io::Result<Vec<Lockout>> {
        xdpfwd_engine::lockouts(plan)
    }

    fn describe(&self, ports: &[PortPlan]) -> Ports {
        xdpfwd_engine::describe_ports(ports)
    }

    fn interfaces(&self) -> Vec<String> {
        let Ok(interfaces) = if_nameindex() else { return Vec::new() };
        interfaces.iter().map(|interface| interface.name().to_string_lossy().into_owned()).collect()
    }

    fn forwarding(&self, interface: &str) -> Option<String> {
        let index = if_nametoindex(interface).ok()?;
        let name = if_indextoname(index).ok()?.to_string_lossy().into_owned();
        // Unlike /sys, /proc/sys/net shows the reader's network namespace.
        let is_on = |family: &&str| {
            let folder = Path::new("/proc/sys/net").join(family).join("conf").join(&name);
            read(&folder, "forwarding").is_some_and(|text| text != "0")
        };
        let family = ["ipv4", "ipv6"].into_iter().find(|family| is_on(family))?;
        Some(format!("net.{family}.conf.{name}.forwarding"))
    }

    fn vlan_tag_loss(&self, interface: &str) -> io::Result<Option<VlanTagLoss>> {
        VlanTagLoss::find(interface, if_nametoindex(interface)?)
    }

    fn memory(&self) -> Memory {
        let total = read(Path::new("/proc"), "meminfo").and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
        });
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

/// Counts queues with both directions: the kernel refuses to bind a socket with an RX and a TX ring
/// to others (net/xdp/xsk.c, `xsk_bind`).
fn active_queues(folder: &Path) -> Option<u16> {
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
        assert!(!ThisMachine.cores().is_empty());
        assert!(ThisMachine.interfaces().contains(&"lo".to_owned()));
        let loopback = ThisMachine.interface("lo").unwrap();
        assert_eq!((loopback.index, loopback.driver), (1, None));
        // `None` if /sys shows another network namespace.
        assert!(matches!(loopback.queues, None | Some(1..)), "{:?}", loopback.queues);
    }

    #[test]
    fn this_machine_has_memory() {
        let Memory { bytes, huge_pages } = ThisMachine.memory();
        assert!(bytes.unwrap() > 64 << 20, "{bytes:?}");
        assert!(huge_pages.is_none_or(|pages| pages.free <= pages.total), "{huge_pages:?}");
    }

    #[test]
    fn active_queues_counts_queues_with_both_directions() {
        let folder = std::env::temp_dir().join(format!("xdpfwd-queues-{}", std::process::id()));
        for queue in ["rx-0", "rx-1", "rx-2", "tx-0", "tx-1"] {
            fs::create_dir_all(folder.join("queues").join(queue)).unwrap();
        }
        let queues = active_queues(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(queues, Some(2));
        assert_eq!(active_queues(&folder), None);
    }

    #[test]
    fn interface_with_unknown_name_is_none() {
        for name in ["", ".", "..", "xdpfwd-none", "../lo", "a\0b", &"x".repeat(1000)] {
            assert_eq!(ThisMachine.interface(name), None, "{name:?}");
        }
    }
}
