//! The XDP program and its maps, described in `bpf/README.md`.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::os::fd::{AsFd as _, RawFd};
use std::sync::Arc;

use libbpf_rs::{
    MapCore, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject, PrintLevel, ProgramInput,
    set_print,
};
use xdpfwd_pipeline::{Reason, XdpImage};
use xdpfwd_xsk::{AttachMode, XdpLink, attach_xdp};

use crate::attach::offload::{self, RowCounters};
use crate::error::StartError;
use crate::host::addresses::{AddressUse, OwnAddresses};
use crate::keep::{Keep, KeepRule};

/// Name of the XDP program without a kernel stage.
const PLAIN: &str = "xdpfwd";

/// The embedded programs, by name.
static PROGRAMS: [(&str, &[u8]); 2] = [
    (PLAIN, include_bytes!(concat!(env!("OUT_DIR"), "/xdpfwd.bpf.o"))),
    ("xdpfwd_filter", include_bytes!(concat!(env!("OUT_DIR"), "/xdpfwd_filter.bpf.o"))),
];

/// Drop reasons of a program, in the order of `enum reason` in `bpf/filter.h`.
const REASONS: [Reason; 7] = [
    Reason::POLICY,
    Reason::NOT_IP,
    Reason::MALFORMED,
    Reason::VLAN_STACK,
    Reason::EXTENSION_CHAIN,
    Reason::IP_OPTIONS,
    Reason::LATER_FRAGMENT,
];

/// The XDP program, loaded for one interface.
pub struct XdpProgram {
    object: Object,
    xsks: MapHandle,
    counters: MapHandle,
    /// The image and row counters of the stage that runs in this program, if any.
    offload: Option<(Arc<XdpImage>, RowCounters)>,
    /// Maps of this host's addresses; `None` without `keep` rules, which need them.
    own: Option<OwnMaps>,
}

/// Counters of the program, summed over CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpCounters {
    /// Packets redirected to the AF_XDP socket of their queue.
    pub redirected: u64,
    /// Packets passed to the kernel because no socket serves their queue.
    pub passed: u64,
    /// Packets passed to the kernel by a `keep` rule.
    pub kept: u64,
    /// Packets dropped by the program, per reason; see [`XdpCounters::drops`].
    dropped: [u64; REASONS.len()],
}

impl XdpCounters {
    /// Returns the packets dropped by the program, by reason.
    pub fn drops(&self) -> impl Iterator<Item = (Reason, u64)> {
        REASONS.into_iter().zip(self.dropped)
    }

    /// Returns the total of packets dropped by the program.
    pub fn dropped(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

/// The decision of the XDP program for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpDecision {
    /// Passed to the kernel by a `keep` rule.
    Kept,
    /// Redirected to the stages.
    ForStages,
    /// Dropped.
    Dropped,
}

impl XdpProgram {
    /// Loads the program for an interface with this number of queues, with the `keep` rules and the
    /// filter image. Until [`update_addresses`](Self::update_addresses) supplies the host's
    /// addresses, only multicast and broadcast frames can match `keep` rules.
    pub fn load(
        queues: u16,
        keep: &Keep,
        image: Option<&Arc<XdpImage>>,
    ) -> Result<Self, StartError> {
        let fail = |error| StartError::load(&error);
        let mut open = open(image, !keep.is_empty()).map_err(fail)?;
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            if name == "xsks" {
                map.set_max_entries(u32::from(queues)).map_err(fail)?;
            } else if name.starts_with("own_") && !keep.is_empty() {
                map.set_max_entries(MAX_ADDRESSES).map_err(fail)?;
            }
        }
        let Successor { object, offload } = load(open, image).map_err(|error| match image {
            Some(_) if error.kind() != libbpf_rs::ErrorKind::PermissionDenied => {
                StartError::Offload(format!("{error:#}"))
            }
            _ => fail(error),
        })?;
        let find = |name: &str| {
            let map = object.maps().find(|map| map.name() == name);
            map.ok_or_else(|| StartError::Bpf(format!("the XDP program has no map {name}")))
                .and_then(|map| MapHandle::try_from(&map).map_err(fail))
        };
        let (xsks, counters) = (find("xsks")?, find("counters")?);
        let own = (!keep.is_empty()).then(|| -> Result<_, StartError> {
            Ok(OwnMaps {
                macs: SyncedMap::new(find("own_macs")?),
                vlans: SyncedMap::new(find("own_vlans")?),
                ipv4: SyncedMap::new(find("own_ipv4")?),
                ipv6: SyncedMap::new(find("own_ipv6")?),
            })
        });
        let own = own.transpose()?;
        find("keep")?.update(&0u32.to_ne_bytes(), &rules(keep), MapFlags::ANY).map_err(fail)?;
        Ok(Self { object, xsks, counters, offload, own })
    }

    /// Loads the program again with another filter or none. The successor shares all other maps and
    /// takes over when it is attached.
    pub(crate) fn load_successor(
        &self,
        image: Option<&Arc<XdpImage>>,
    ) -> Result<Successor, libbpf_rs::Error> {
        let mut open = open(image, self.own.is_some())?;
        for mut map in open.maps_mut() {
            if SHARED.iter().any(|shared| map.name() == *shared) {
                let own = self.object.maps().find(|own| own.name() == map.name());
                if let Some(own) = own {
                    map.reuse_fd(own.as_fd())?;
                }
            }
        }
        load(open, image)
    }

    /// Replaces this program with an attached successor and returns the predecessor, which may
    /// still be processing packets.
    pub(crate) fn replace_with(&mut self, successor: Successor) -> Successor {
        let Successor { object, offload } = successor;
        Successor {
            object: mem::replace(&mut self.object, object),
            offload: mem::replace(&mut self.offload, offload),
        }
    }

    /// Returns the image of the stage that runs in this program, if any.
    pub(crate) fn image(&self) -> Option<&XdpImage> {
        self.offload.as_ref().map(|(image, _)| &**image)
    }

    /// Returns the row counters of the stage in this program; `None` if there is none.
    pub fn row_counters(&self) -> Option<Vec<u64>> {
        self.offload.as_ref().and_then(|(_, counters)| counters.read_or_warn())
    }

    /// Returns whether the program has `keep` rules and so needs
    /// [`update_addresses`](Self::update_addresses).
    pub fn needs_addresses(&self) -> bool {
        self.own.is_some()
    }

    /// Sets the host's addresses. Skips addresses that cannot be inserted, retries them in the next
    /// call, and returns the error of the first.
    pub fn update_addresses(&mut self, own: &OwnAddresses) -> Result<(), AddressUpdateError> {
        let Some(maps) = &mut self.own else { return Ok(()) };
        let uses =
            |address: &AddressUse| u8::from(address.destination) | u8::from(address.target) << 1;
        let macs = own.macs.iter().map(|mac| (mac.0, 1)).collect();
        let vlans = own.vlans.iter().map(|vlan| (u32::from(*vlan).to_ne_bytes(), 1)).collect();
        let ipv4 = own.ipv4.iter().map(|(ip, address)| (ip.octets(), uses(address))).collect();
        let ipv6 = own.ipv6.iter().map(|(ip, address)| (ip.octets(), uses(address))).collect();
        let results = [
            maps.macs.update(macs),
            maps.vlans.update(vlans),
            maps.ipv4.update(ipv4),
            maps.ipv6.update(ipv6),
        ];
        results.into_iter().collect()
    }

    /// Redirects a queue's packets to a socket.
    pub fn redirect(&self, queue: u16, socket: RawFd) -> Result<(), libbpf_rs::Error> {
        let (key, value) = (u32::from(queue).to_ne_bytes(), (socket as u32).to_ne_bytes());
        self.xsks.update(&key, &value, MapFlags::ANY)
    }

    /// Passes the packets of all queues to the kernel again.
    pub(crate) fn release(&self, queues: u16) {
        for queue in 0..u32::from(queues) {
            // The queue may have no entry.
            let _ = self.xsks.delete(&queue.to_ne_bytes());
        }
    }

    /// Returns the counters of the program.
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

    /// Runs the program on a frame without forwarding it (`BPF_PROG_TEST_RUN`) and returns the
    /// decision. Use it only on a program that is not attached: the counters include the frame.
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

    /// Attaches the program to an interface.
    pub(crate) fn attach(&self, index: u32, mode: AttachMode) -> io::Result<XdpLink> {
        attach_xdp(self.object.progs().next().ok_or_else(no_program)?.as_fd(), index, mode)
    }
}

/// A program loaded to replace another one, or the program that was replaced.
pub(crate) struct Successor {
    object: Object,
    offload: Option<(Arc<XdpImage>, RowCounters)>,
}

impl Successor {
    /// Attaches the program in place of the current one, atomically: every packet is processed by
    /// exactly one of them.
    pub(crate) fn replace(&self, link: &XdpLink) -> io::Result<()> {
        link.replace(self.object.progs().next().ok_or_else(no_program)?.as_fd())
    }

    /// Returns the row counters of the stage in this program.
    pub(crate) fn row_counters(&self) -> Option<Vec<u64>> {
        self.offload.as_ref().and_then(|(_, counters)| counters.read_or_warn())
    }
}

/// Maps that a successor shares: those that belong to no stage.
const SHARED: [&str; 8] =
    ["xsks", "counters", "keep", "own_macs", "own_vlans", "own_ipv4", "own_ipv6", "fragments"];

/// `enum xdp_action` in linux/bpf.h.
const XDP_DROP: u32 = 1;

/// Opens the program for an image. `has_keep_rules` is whether the port has `keep` rules.
fn open(
    image: Option<&Arc<XdpImage>>,
    has_keep_rules: bool,
) -> Result<OpenObject, libbpf_rs::Error> {
    set_print(Some((PrintLevel::Info, log)));
    let name = image.map_or(PLAIN, |image| image.program);
    let Some((_, object)) = PROGRAMS.iter().find(|(own, _)| *own == name) else {
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

/// Loads the program with an image's tables.
fn load(
    mut open: OpenObject,
    image: Option<&Arc<XdpImage>>,
) -> Result<Successor, libbpf_rs::Error> {
    let Some(image) = image else { return Ok(Successor { object: open.load()?, offload: None }) };
    offload::prepare(&mut open, image)?;
    let object = open.load()?;
    let counters = offload::fill(&object, image)?;
    Ok(Successor { object, offload: Some((Arc::clone(image), counters)) })
}

/// Logs libbpf's output, which is for developers; the error that follows is for users.
fn log(_: PrintLevel, line: String) {
    tracing::debug!("{}", line.trim_end());
}

fn no_program() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the XDP object has no program")
}

/// Maximum number of addresses per kind and port.
const MAX_ADDRESSES: u32 = 65536;

struct OwnMaps {
    macs: SyncedMap<6>,
    vlans: SyncedMap<4>,
    ipv4: SyncedMap<4>,
    ipv6: SyncedMap<16>,
}

/// Error of a failed address update.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot update {missing} host addresses in the XDP program \
     (at most {MAX_ADDRESSES} of a kind fit): {source}"
)]
pub struct AddressUpdateError {
    missing: usize,
    source: libbpf_rs::Error,
}

/// A map that is synchronised to a wanted content with as few updates as possible.
struct SyncedMap<const N: usize> {
    map: MapHandle,
    /// Current entries of the map.
    entries: BTreeMap<[u8; N], u8>,
}

impl<const N: usize> SyncedMap<N> {
    fn new(map: MapHandle) -> Self {
        Self { map, entries: BTreeMap::new() }
    }

    fn update(&mut self, wanted: BTreeMap<[u8; N], u8>) -> Result<(), AddressUpdateError> {
        let mut failed: Option<AddressUpdateError> = None;
        let mut fail = |source| {
            let missing = failed.as_ref().map_or(0, |failed| failed.missing) + 1;
            failed = Some(AddressUpdateError { missing, source });
        };
        // Delete first, to make room.
        let gone: Vec<_> =
            self.entries.keys().filter(|key| !wanted.contains_key(*key)).copied().collect();
        for key in gone {
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

/// Returns the value of the map `keep`: `struct keep` in bpf/keep.h.
fn rules(keep: &Keep) -> Vec<u8> {
    let mut kinds = 0u64;
    let (mut vlan, mut tcp, mut udp) =
        (vec![0u64; 4096 / 64], vec![0u64; 65536 / 64], vec![0u64; 65536 / 64]);
    let set = |bits: &mut [u64], number: u16| {
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
                set(&mut tcp, port);
                1 << 6
            }
            KeepRule::Udp(port) => {
                set(&mut udp, port);
                1 << 7
            }
            KeepRule::Vlan(id) => {
                set(&mut vlan, id);
                1 << 8
            }
        };
    }
    [vec![kinds], vlan, tcp, udp].concat().into_iter().flat_map(u64::to_ne_bytes).collect()
}
