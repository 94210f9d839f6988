//! The XDP program on an interface.

use std::io;
use std::os::fd::{AsFd, RawFd};

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder};
use xsk::{AttachMode, XdpLink, attach_xdp};

use crate::error::StartError;
use crate::interface::Interface;
use crate::plan::Mode;

static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/xdpfwd.bpf.o"));

/// The XDP program, loaded for an interface and attached to it. Dropping it detaches it.
pub(crate) struct Attachment {
    link: Option<XdpLink>,
    pub(crate) mode: AttachMode,
    xsks: MapHandle,
    counters: MapHandle,
    _object: Object,
}

/// What the program did, added up over the processors.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct XdpCounters {
    pub(crate) redirected: u64,
    pub(crate) passed: u64,
}

impl Attachment {
    /// Loads and attaches the program, natively if the mode does not say otherwise. With [`Mode::Auto`], what the driver
    /// cannot do natively is done in the generic path; the error that decided is returned beside.
    pub(crate) fn new(interface: &Interface, queues: u16, mode: Mode) -> Result<(Self, Option<io::Error>), StartError> {
        let object = load(queues)?;
        let find = |name: &str| {
            let map = object.maps().find(|map| map.name() == name);
            map.ok_or_else(|| StartError::bpf(format!("the XDP program has no map {name}")))
                .and_then(|map| MapHandle::try_from(&map).map_err(|error| StartError::load(&error)))
        };
        let (xsks, counters) = (find("xsks")?, find("counters")?);
        let (link, attached, fallback) = {
            let program =
                object.progs().next().ok_or_else(|| StartError::bpf("the XDP object has no program".into()))?;
            let attach = |mode| attach_xdp(program.as_fd(), interface.index, mode);
            match mode {
                Mode::Skb => (attach(AttachMode::Skb), AttachMode::Skb, None),
                Mode::ZeroCopy | Mode::Copy => (attach(AttachMode::Native), AttachMode::Native, None),
                Mode::Auto => match attach(AttachMode::Native) {
                    Err(error) if lacks_native_xdp(&error) => (attach(AttachMode::Skb), AttachMode::Skb, Some(error)),
                    result => (result, AttachMode::Native, None),
                },
            }
        };
        let link = link.map_err(|error| StartError::attach(interface, mode, error))?;
        Ok((Self { link: Some(link), mode: attached, xsks, counters, _object: object }, fallback))
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

    /// Takes the program off the interface.
    pub(crate) fn detach(&mut self) {
        self.link = None;
    }

    pub(crate) fn counters(&self) -> XdpCounters {
        let mut sum = XdpCounters::default();
        let per_cpu = self.counters.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY).ok().flatten();
        for value in per_cpu.into_iter().flatten() {
            if let [redirected, passed, ..] = *value.as_chunks::<8>().0 {
                sum.redirected += u64::from_ne_bytes(redirected);
                sum.passed += u64::from_ne_bytes(passed);
            }
        }
        sum
    }
}

fn load(queues: u16) -> Result<Object, StartError> {
    let fail = |error| StartError::load(&error);
    let mut open = ObjectBuilder::default().name("xdpfwd").map_err(fail)?.open_memory(PROGRAM).map_err(fail)?;
    for mut map in open.maps_mut() {
        if map.name() == "xsks" {
            map.set_max_entries(u32::from(queues)).map_err(fail)?;
        }
    }
    open.load().map_err(fail)
}

/// Whether an attach failed because of the driver (or of an MTU that is too large for its XDP), so that the generic path
/// may do.
fn lacks_native_xdp(error: &io::Error) -> bool {
    const ENOTSUPP: i32 = 524; // the kernel's own, which some drivers let slip out
    const EINVAL: i32 = 22;
    const ERANGE: i32 = 34;
    const EOPNOTSUPP: i32 = 95;
    matches!(error.raw_os_error(), Some(EOPNOTSUPP | ENOTSUPP | EINVAL | ERANGE))
}
