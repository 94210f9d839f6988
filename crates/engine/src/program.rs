//! The XDP program and its maps. `bpf/README.md` says what they are.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, RawFd};

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder, PrintLevel, ProgramInput, set_print};
use xsk::{AttachMode, XdpLink, attach_xdp};

use crate::error::StartError;
use crate::host::OwnAddresses;
use crate::keep::{Keep, KeepRule};

static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/xdpfwd.bpf.o"));

/// The XDP program, loaded for one interface.
pub struct XdpProgram {
    object: Object,
    xsks: MapHandle,
    counters: MapHandle,
    /// Of the interface's own addresses: MAC, IPv4, IPv6.
    own: [MapHandle; 3],
    /// What is in those maps.
    followed: OwnAddresses,
}

/// What the program did, added up over the processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpCounters {
    /// Given to the AF_XDP socket of the queue.
    pub redirected: u64,
    /// Left to the kernel: no socket serves the queue.
    pub passed: u64,
    /// Left to the kernel: a rule of `keep` says so.
    pub kept: u64,
}

/// Whose a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The kernel's, by a rule of `keep`.
    Kept,
    /// The stages'.
    ForStages,
}

impl XdpProgram {
    /// Loads it for an interface of which so many queues are used, with what stays with the kernel. It knows none of the
    /// host's addresses yet: until [`follow`](Self::follow) only what goes to a group is kept.
    pub fn load(queues: u16, keep: &Keep) -> Result<Self, StartError> {
        let fail = |error| StartError::load(&error);
        set_print(Some((PrintLevel::Info, log)));
        let mut open = ObjectBuilder::default().name("xdpfwd").map_err(fail)?.open_memory(PROGRAM).map_err(fail)?;
        for mut map in open.maps_mut() {
            if map.name() == "xsks" {
                map.set_max_entries(u32::from(queues)).map_err(fail)?;
            }
        }
        let object = open.load().map_err(fail)?;
        let find = |name: &str| {
            let map = object.maps().find(|map| map.name() == name);
            map.ok_or_else(|| StartError::bpf(format!("the XDP program has no map {name}")))
                .and_then(|map| MapHandle::try_from(&map).map_err(fail))
        };
        let (xsks, counters) = (find("xsks")?, find("counters")?);
        let own = [find("own_macs")?, find("own_ipv4")?, find("own_ipv6")?];
        find("keep")?.update(&0u32.to_ne_bytes(), &rules(keep), MapFlags::ANY).map_err(fail)?;
        Ok(Self { object, xsks, counters, own, followed: OwnAddresses::default() })
    }

    /// Makes these the addresses by which frames are for this host.
    pub fn follow(&mut self, own: OwnAddresses) -> Result<(), StartError> {
        let [macs, ipv4, ipv6] = &self.own;
        let before = &self.followed;
        let replaced = replace(macs, &before.macs, &own.macs, |mac| mac.0)
            .and_then(|()| replace(ipv4, &before.ipv4, &own.ipv4, |ip| ip.octets()))
            .and_then(|()| replace(ipv6, &before.ipv6, &own.ipv6, |ip| ip.octets()));
        if let Err(error) = replaced {
            // Some are in, some are not: whatever may be there is seen to next time.
            self.followed.macs.extend(own.macs);
            self.followed.ipv4.extend(own.ipv4);
            self.followed.ipv6.extend(own.ipv6);
            return Err(StartError::bpf(format!("telling the XDP program this host's addresses: {error:#}")));
        }
        self.followed = own;
        Ok(())
    }

    /// Sends a queue's packets to a socket.
    pub(crate) fn direct(&self, queue: u16, socket: RawFd) -> Result<(), libbpf_rs::Error> {
        let (key, value) = (u32::from(queue).to_ne_bytes(), (socket as u32).to_ne_bytes());
        self.xsks.update(&key, &value, MapFlags::ANY)
    }

    /// Leaves the packets of all queues to the kernel again.
    pub(crate) fn release(&self, queues: u16) {
        for queue in 0..u32::from(queues) {
            // A queue without an entry is as it should be.
            let _ = self.xsks.delete(&queue.to_ne_bytes());
        }
    }

    /// What it did so far.
    pub fn counters(&self) -> XdpCounters {
        let mut sum = XdpCounters::default();
        let per_cpu = self.counters.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY).ok().flatten();
        for value in per_cpu.into_iter().flatten() {
            if let [redirected, passed, kept, ..] = *value.as_chunks::<8>().0 {
                sum.redirected += u64::from_ne_bytes(redirected);
                sum.passed += u64::from_ne_bytes(passed);
                sum.kept += u64::from_ne_bytes(kept);
            }
        }
        sum
    }

    /// Has the kernel run the program on a frame, which goes nowhere, to see whose it is (`BPF_PROG_TEST_RUN`). For a
    /// program that is not attached: it counts the frame like any other.
    ///
    /// <https://docs.kernel.org/bpf/bpf_prog_run.html>
    pub fn judge(&mut self, frame: &[u8]) -> io::Result<Judgement> {
        let before = self.counters().kept;
        let input = ProgramInput { data_in: Some(frame), ..ProgramInput::default() };
        let program = self.object.progs_mut().next().ok_or_else(no_program)?;
        program.test_run(input).map_err(io::Error::other)?;
        Ok(if self.counters().kept > before { Judgement::Kept } else { Judgement::ForStages })
    }

    /// Attaches it to an interface.
    pub(crate) fn attach(&self, index: u32, mode: AttachMode) -> io::Result<XdpLink> {
        attach_xdp(self.object.progs().next().ok_or_else(no_program)?.as_fd(), index, mode)
    }
}

/// What libbpf has to say about a failure is for who develops the program: the error that follows is for who runs it.
fn log(_: PrintLevel, line: String) {
    tracing::debug!("{}", line.trim_end());
}

fn no_program() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the XDP object has no program")
}

/// Puts into a map what is new, and takes out what is gone; in this order, so that nothing is missing in between.
fn replace<T: Ord, K: AsRef<[u8]>>(
    map: &MapHandle,
    before: &BTreeSet<T>,
    now: &BTreeSet<T>,
    key: impl Fn(&T) -> K,
) -> Result<(), libbpf_rs::Error> {
    for added in now.difference(before) {
        map.update(key(added).as_ref(), &[1], MapFlags::ANY)?;
    }
    for gone in before.difference(now) {
        match map.delete(key(gone).as_ref()) {
            Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The value of the map `keep`: `struct keep` in bpf/keep.h.
fn rules(keep: &Keep) -> Vec<u8> {
    let mut kinds = 0u64;
    let (mut vlan, mut tcp, mut udp) = (vec![0u64; 4096 / 64], vec![0u64; 65536 / 64], vec![0u64; 65536 / 64]);
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
