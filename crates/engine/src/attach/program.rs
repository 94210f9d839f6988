//! The XDP program of an interface and its maps; `bpf/README.md` describes both.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::os::fd::{AsFd as _, RawFd};
use std::sync::Arc;

use libbpf_rs::{
    MapCore, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject, PrintLevel, ProgramInput,
    set_print,
};
use xdpfwd_perf::RunTime;
use xdpfwd_pipeline::{Reason, XdpImage};
use xdpfwd_xsk::{AttachMode, XdpLink, attach_xdp};

use crate::attach::offload::{self, RowCounterMap};
use crate::error::StartError;
use crate::host::addresses::{AddressUse, OwnAddresses};
use crate::keep::{Keep, KeepRule};

const PROGRAM_WITHOUT_STAGE: &str = "xdpfwd";

static PROGRAMS: [(&str, &[u8]); 2] = [
    (PROGRAM_WITHOUT_STAGE, include_bytes!(concat!(env!("OUT_DIR"), "/xdpfwd.bpf.o"))),
    ("xdpfwd_filter", include_bytes!(concat!(env!("OUT_DIR"), "/xdpfwd_filter.bpf.o"))),
];

/// The name of the program in all objects, which kernel symbols and `bpftool` show.
pub(crate) const PROGRAM_NAME: &str = "xdpfwd";

/// The drop reasons of the program, in the order of `enum reason` in `bpf/filter.h`.
const REASONS: [Reason; 8] = [
    Reason::POLICY,
    Reason::NOT_IP,
    Reason::MALFORMED,
    Reason::VLAN_STACK,
    Reason::EXTENSION_CHAIN,
    Reason::IP_OPTIONS,
    Reason::ROUTING_HEADER,
    Reason::LATER_FRAGMENT,
];

/// The XDP program, loaded for one interface.
pub struct XdpProgram {
    object: Object,
    /// The AF_XDP socket of each queue (`XSKMAP`).
    xsks: MapHandle,
    counters: MapHandle,
    /// The image and the row counters of the stage that this program runs.
    offload: Option<(Arc<XdpImage>, RowCounterMap)>,
    /// `None` without `keep` rules.
    address_maps: Option<AddressMaps>,
}

/// Counters of an XDP program, summed over CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpCounters {
    /// Packets redirected to AF_XDP sockets.
    pub redirected: u64,
    /// Packets passed to the kernel because no socket serves their queue.
    pub passed: u64,
    /// Packets passed to the kernel by a `keep` rule.
    pub kept: u64,
    dropped: [u64; REASONS.len()],
}

impl XdpCounters {
    /// Returns the dropped packets, by reason.
    pub fn drops(&self) -> impl Iterator<Item = (Reason, u64)> {
        REASONS.into_iter().zip(self.dropped)
    }

    /// Returns all drops.
    pub fn dropped(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

/// The decision of the XDP program for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpDecision {
    /// Passed to the kernel by a `keep` rule.
    Kept,
    /// Redirected to its queue's socket, or passed to the kernel if the queue has none.
    ForStages,
    /// Dropped.
    Dropped,
}

impl XdpProgram {
    /// Loads the program, for the stage that `image` describes, if any. Until
    /// [`update_addresses`](Self::update_addresses) supplies the host's addresses, only the `keep`
    /// rules `lldp` and `stp` match.
    pub fn load(
        queues: u16,
        keep: &Keep,
        image: Option<&Arc<XdpImage>>,
    ) -> Result<Self, StartError> {
        let load_failed = |error| StartError::load_failed(&error);
        let mut open = open(image, !keep.is_empty()).map_err(load_failed)?;
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if name == "xsks" {
                map.set_max_entries(u32::from(queues)).map_err(load_failed)?;
            } else if name.starts_with("own_") && !keep.is_empty() {
                map.set_max_entries(MAX_ADDRESSES).map_err(load_failed)?;
            }
        }
        let LoadedObject { object, offload } = load(open, image).map_err(|error| match image {
            Some(_) if error.kind() != libbpf_rs::ErrorKind::PermissionDenied => {
                StartError::Offload(format!("{error:#}"))
            }
            _ => load_failed(error),
        })?;
        let find_map = |name: &str| {
            let map = object.maps().find(|map| map.name() == name);
            map.ok_or_else(|| StartError::Bpf(format!("the XDP program has no map {name}")))
                .and_then(|map| MapHandle::try_from(&map).map_err(load_failed))
        };
        let (xsks, counters) = (find_map("xsks")?, find_map("counters")?);
        let address_maps = (!keep.is_empty()).then(|| -> Result<_, StartError> {
            Ok(AddressMaps {
                macs: SyncedMap::new(find_map("own_macs")?),
                vlans: SyncedMap::new(find_map("own_vlans")?),
                ipv4: SyncedMap::new(find_map("own_ipv4")?),
                ipv6: SyncedMap::new(find_map("own_ipv6")?),
            })
        });
        let address_maps = address_maps.transpose()?;
        find_map("keep")?
            .update(&0u32.to_ne_bytes(), &keep_map_value(keep), MapFlags::ANY)
            .map_err(load_failed)?;
        Ok(Self { object, xsks, counters, offload, address_maps })
    }

    /// Loads the program that will replace this one; `image` is as in [`load`](Self::load). Both
    /// share [`SHARED_MAPS`].
    pub(crate) fn load_successor(
        &self,
        image: Option<&Arc<XdpImage>>,
    ) -> Result<LoadedObject, libbpf_rs::Error> {
        let mut open = open(image, self.address_maps.is_some())?;
        for mut map in open.maps_mut() {
            if SHARED_MAPS.iter().any(|shared| map.name() == *shared) {
                let current = self.object.maps().find(|current| current.name() == map.name());
                if let Some(current) = current {
                    map.reuse_fd(current.as_fd())?;
                }
            }
        }
        load(open, image)
    }

    /// Records that `successor` is now attached. Some CPUs may still run the returned predecessor.
    pub(crate) fn set_current(&mut self, successor: LoadedObject) -> LoadedObject {
        let LoadedObject { object, offload } = successor;
        LoadedObject {
            object: mem::replace(&mut self.object, object),
            offload: mem::replace(&mut self.offload, offload),
        }
    }

    pub(crate) fn run_time(&self) -> Option<RunTime> {
        run_time(&self.object)
    }

    pub(crate) fn image(&self) -> Option<&XdpImage> {
        self.offload.as_ref().map(|(image, _)| &**image)
    }

    /// Returns the counters of the stage's rows, such as filter rules; `None` without a stage, or
    /// if they cannot be read.
    pub fn row_counters(&self) -> Option<Vec<u64>> {
        self.offload.as_ref().and_then(|(_, counters)| counters.read_or_warn())
    }

    /// Returns whether the program has `keep` rules and so needs
    /// [`update_addresses`](Self::update_addresses).
    pub fn needs_addresses(&self) -> bool {
        self.address_maps.is_some()
    }

    /// Passes this host's addresses to the program, if it has `keep` rules. The next call repeats
    /// failed updates. If several maps fail, returns the error of the first.
    pub fn update_addresses(&mut self, addresses: &OwnAddresses) -> Result<(), AddressUpdateError> {
        let Some(maps) = &mut self.address_maps else { return Ok(()) };
        // The bits `OWN_DESTINATION` and `OWN_TARGET` of bpf/keep.h.
        let uses =
            |address: &AddressUse| u8::from(address.destination) | u8::from(address.target) << 1;
        let macs = addresses.macs.iter().map(|mac| (mac.0, 1)).collect();
        let vlans =
            addresses.vlans.iter().map(|vlan| (u32::from(*vlan).to_ne_bytes(), 1)).collect();
        let ipv4 =
            addresses.ipv4.iter().map(|(ip, address)| (ip.octets(), uses(address))).collect();
        let ipv6 =
            addresses.ipv6.iter().map(|(ip, address)| (ip.octets(), uses(address))).collect();
        let results = [
            maps.macs.update(macs),
            maps.vlans.update(vlans),
            maps.ipv4.update(ipv4),
            maps.ipv6.update(ipv6),
        ];
        results.into_iter().collect()
    }

    /// Redirects a queue's packets to the AF_XDP socket `socket_fd`.
    pub fn redirect(&self, queue: u16, socket_fd: RawFd) -> Result<(), libbpf_rs::Error> {
        let (key, value) = (u32::from(queue).to_ne_bytes(), (socket_fd as u32).to_ne_bytes());
        self.xsks.update(&key, &value, MapFlags::ANY)
    }

    pub(crate) fn stop_redirecting(&self, queue_count: u16) {
        for queue in 0..u32::from(queue_count) {
            // Fails harmlessly for queues without a socket.
            let _ = self.xsks.delete(&queue.to_ne_bytes());
        }
    }

    /// Returns the counters; zeros if they cannot be read.
    pub fn counters(&self) -> XdpCounters {
        let mut sum = XdpCounters::default();
        let per_cpu =
            self.counters.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY).ok().flatten();
        for value in per_cpu.into_iter().flatten() {
            if let [redirected, passed, kept, ref dropped @ ..] = *value.as_chunks::<8>().0 {
                sum.redirected += u64::from_ne_bytes(redirected);
                sum.passed += u64::from_ne_bytes(passed);
                sum.kept += u64::from_ne_bytes(kept);
                for (sum, dropped) in sum.dropped.iter_mut().zip(dropped) {
                    *sum += u64::from_ne_bytes(*dropped);
                }
            }
        }
        sum
    }

    /// Runs the program on a frame without forwarding it (`BPF_PROG_TEST_RUN`). Only for a program
    /// that is not attached: the frame changes its counters, and arriving packets can change the
    /// result.
    ///
    /// <https://docs.kernel.org/bpf/bpf_prog_run.html>
    pub fn test_run(&mut self, frame: &[u8]) -> io::Result<XdpDecision> {
        let before = self.counters().kept;
        let input = ProgramInput { data_in: Some(frame), ..ProgramInput::default() };
        let program = self.object.progs_mut().next().ok_or_else(no_program)?;
        let output = program.test_run(input).map_err(io::Error::other)?;
        Ok(match output.return_value {
            XDP_DROP => XdpDecision::Dropped,
            _ if self.counters().kept > before => XdpDecision::Kept,
            _ => XdpDecision::ForStages,
        })
    }

    pub(crate) fn attach(&self, index: u32, mode: AttachMode) -> io::Result<XdpLink> {
        attach_xdp(self.object.progs().next().ok_or_else(no_program)?.as_fd(), index, mode)
    }
}

/// A program that is not yet, or no longer, attached to its interface.
pub(crate) struct LoadedObject {
    object: Object,
    offload: Option<(Arc<XdpImage>, RowCounterMap)>,
}

impl LoadedObject {
    /// Replaces the program on the link atomically: each packet is processed by either the old or
    /// the new program.
    pub(crate) fn attach_in_place(&self, link: &XdpLink) -> io::Result<()> {
        link.replace(self.object.progs().next().ok_or_else(no_program)?.as_fd())
    }

    pub(crate) fn row_counters(&self) -> Option<Vec<u64>> {
        self.offload.as_ref().and_then(|(_, counters)| counters.read_or_warn())
    }

    pub(crate) fn run_time(&self) -> Option<RunTime> {
        run_time(&self.object)
    }
}

fn run_time(object: &Object) -> Option<RunTime> {
    RunTime::of_program(object.progs().next()?.as_fd()).ok()
}

/// The maps that a program shares with its successor. They belong to no stage.
const SHARED_MAPS: [&str; 8] =
    ["xsks", "counters", "keep", "own_macs", "own_vlans", "own_ipv4", "own_ipv6", "fragments"];

/// From `enum xdp_action` in linux/bpf.h.
const XDP_DROP: u32 = 1;

/// Opens the program that `image` names; without an image, opens [`PROGRAM_WITHOUT_STAGE`].
fn open(
    image: Option<&Arc<XdpImage>>,
    has_keep_rules: bool,
) -> Result<OpenObject, libbpf_rs::Error> {
    set_print(Some((PrintLevel::Info, log)));
    let name = image.map_or(PROGRAM_WITHOUT_STAGE, |image| image.program);
    let Some((_, object)) = PROGRAMS.iter().find(|(embedded, _)| *embedded == name) else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("no XDP program {name} is embedded"),
        )
        .into());
    };
    let mut open = ObjectBuilder::default().name("xdpfwd")?.open_memory(object)?;
    let Some(mut map) = open.maps_mut().find(|map| map.name() == ".rodata.keep") else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the XDP program has no map .rodata.keep",
        )
        .into());
    };
    map.set_initial_value(&[has_keep_rules.into()])?;
    Ok(open)
}

fn load(
    mut open: OpenObject,
    image: Option<&Arc<XdpImage>>,
) -> Result<LoadedObject, libbpf_rs::Error> {
    let Some(image) = image else {
        return Ok(LoadedObject { object: open.load()?, offload: None });
    };
    offload::prepare(&mut open, image)?;
    let object = open.load()?;
    let counters = offload::fill(&object, image)?;
    Ok(LoadedObject { object, offload: Some((Arc::clone(image), counters)) })
}

/// Logs at the debug level, because users already see the error of the failed call.
fn log(_: PrintLevel, line: String) {
    tracing::debug!("{}", line.trim_end());
}

fn no_program() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the XDP object has no program")
}

const MAX_ADDRESSES: u32 = 65536;

struct AddressMaps {
    macs: SyncedMap<6>,
    vlans: SyncedMap<4>,
    ipv4: SyncedMap<4>,
    ipv6: SyncedMap<16>,
}

/// The error of [`XdpProgram::update_addresses`].
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot update {failed_updates} host addresses in the XDP program \
     (at most {MAX_ADDRESSES} of a kind fit): {source}"
)]
pub struct AddressUpdateError {
    failed_updates: usize,
    /// The map's last error.
    source: libbpf_rs::Error,
}

/// A map with a copy of its entries, so that an update changes only those that differ.
struct SyncedMap<const N: usize> {
    map: MapHandle,
    entries: BTreeMap<[u8; N], u8>,
}

impl<const N: usize> SyncedMap<N> {
    fn new(map: MapHandle) -> Self {
        Self { map, entries: BTreeMap::new() }
    }

    fn update(&mut self, wanted: BTreeMap<[u8; N], u8>) -> Result<(), AddressUpdateError> {
        let mut failed: Option<AddressUpdateError> = None;
        let mut fail = |source| {
            let failed_updates = failed.as_ref().map_or(0, |failed| failed.failed_updates) + 1;
            failed = Some(AddressUpdateError { failed_updates, source });
        };
        // Delete before inserting, to make room.
        let obsolete: Vec<_> =
            self.entries.keys().filter(|key| !wanted.contains_key(*key)).copied().collect();
        for key in obsolete {
            match self.map.delete(&key) {
                Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => fail(error),
                _ => drop(self.entries.remove(&key)),
            }
        }
        for (key, value) in wanted {
            if self.entries.get(&key) != Some(&value) {
                match self.map.update(&key, &[value], MapFlags::ANY) {
                    Ok(()) => drop(self.entries.insert(key, value)),
                    Err(error) => fail(error),
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Encodes the rules as `struct keep` in bpf/keep.h, with the bits `KEEP_…`.
fn keep_map_value(keep: &Keep) -> Vec<u8> {
    let mut kinds = 0u64;
    let (mut vlan, mut tcp, mut udp) =
        (vec![0u64; 4096 / 64], vec![0u64; 65536 / 64], vec![0u64; 65536 / 64]);
    let set_bit = |bits: &mut [u64], number: u16| {
        if let Some(word) = bits.get_mut(usize::from(number) / 64) {
            *word |= 1 << (number % 64);
        }
    };
    for rule in keep {
        kinds |= match *rule {
            KeepRule::Arp => 1 << 0,
            KeepRule::Nd => 1 << 1,
            KeepRule::Icmp => 1 << 2,
            KeepRule::Local => 1 << 3,
            KeepRule::Lldp => 1 << 4,
            KeepRule::Stp => 1 << 5,
            KeepRule::Tcp(port) => {
                set_bit(&mut tcp, port);
                1 << 6
            }
            KeepRule::Udp(port) => {
                set_bit(&mut udp, port);
                1 << 7
            }
            KeepRule::Vlan(id) => {
                set_bit(&mut vlan, id);
                1 << 8
            }
        };
    }
    [vec![kinds], vlan, tcp, udp].concat().into_iter().flat_map(u64::to_ne_bytes).collect()
}
