//! How packets get from an interface to the sockets of its port.

use std::io;
use std::sync::Arc;

use packet::PacketSocket;
use pipeline::Matched;
use pipeline::stages::filter::KernelFilter;
use xsk::{AttachMode, XdpLink};

use crate::error::{StartError, lacks_native_xdp};
use crate::host::OwnAddresses;
use crate::interface::Interface;
use crate::plan::{Mode, PortPlan};
use crate::program::{FollowError, Successor, XdpCounters, XdpProgram};

/// What directs a port's packets to its sockets. Dropping it ends that.
pub(crate) enum Attachment {
    /// An XDP program on the interface.
    Xdp(Box<AttachedProgram>),
    /// Nothing on the interface: packet sockets, one for each queue, that take part or do not.
    Packet(Vec<PacketSocket>),
}

/// The XDP program, loaded for an interface and attached to it.
pub(crate) struct AttachedProgram {
    link: Option<XdpLink>,
    mode: AttachMode,
    program: XdpProgram,
}

impl Attachment {
    /// Opens the packet sockets of a port, or loads and attaches the XDP program: natively if the mode does not say
    /// otherwise. With [`Mode::Auto`], what the driver cannot do natively is done in the generic path; the error that decided
    /// is returned beside. No packet comes to a socket yet.
    pub(crate) fn new(
        port: &PortPlan,
        interface: &Interface,
        filter: Option<&Arc<KernelFilter>>,
        mode: Mode,
    ) -> Result<(Self, Option<io::Error>), StartError> {
        if !port.io.takes_by_xdp() {
            let sockets = PacketSocket::open_queues(interface.index, port.queues)
                .map_err(|source| StartError::Packet { interface: interface.name.clone(), source })?;
            return Ok((Self::Packet(sockets), None));
        }
        let program = XdpProgram::load(port.queues, &port.keep, filter)?;
        let attach = |mode| program.attach(interface.index, mode);
        let (link, attached, fallback) = match mode {
            Mode::Skb => (attach(AttachMode::Skb), AttachMode::Skb, None),
            Mode::ZeroCopy | Mode::Copy => (attach(AttachMode::Native), AttachMode::Native, None),
            Mode::Auto => match attach(AttachMode::Native) {
                Err(error) if lacks_native_xdp(&error) => (attach(AttachMode::Skb), AttachMode::Skb, Some(error)),
                result => (result, AttachMode::Native, None),
            },
        };
        let link = link.map_err(|error| StartError::attach(interface, mode, error))?;
        Ok((Self::Xdp(Box::new(AttachedProgram { link: Some(link), mode: attached, program })), fallback))
    }

    /// Where the XDP program runs, if there is one.
    pub(crate) fn mode(&self) -> Option<AttachMode> {
        match self {
            Self::Xdp(attached) => Some(attached.mode),
            Self::Packet(_) => None,
        }
    }

    /// The socket of a queue, for the worker that serves it; `None` if the worker opens its own.
    pub(crate) fn socket(&self, queue: u16) -> Option<PacketSocket> {
        match self {
            Self::Xdp(_) => None,
            Self::Packet(sockets) => sockets.get(usize::from(queue)).cloned(),
        }
    }

    /// Sends a queue's packets to a socket, by number: with packet sockets, to its own.
    pub(crate) fn direct(&self, queue: u16, socket: i32) -> Result<(), String> {
        match self {
            Self::Xdp(attached) => attached.program.direct(queue, socket).map_err(|error| format!("{error:#}")),
            Self::Packet(sockets) => {
                let socket = sockets.get(usize::from(queue)).ok_or("no socket for the queue")?;
                socket.start().map_err(|error| error.to_string())
            }
        }
    }

    /// Sends no packets of any queue to a socket any more.
    pub(crate) fn release(&self, queues: u16) {
        match self {
            Self::Xdp(attached) => attached.program.release(queues),
            Self::Packet(sockets) => {
                for socket in sockets {
                    if let Err(error) = socket.stop() {
                        tracing::warn!(%error, "a packet socket goes on receiving: stopping takes longer");
                    }
                }
            }
        }
    }

    /// Whether it has to follow the host's addresses.
    pub(crate) fn follows(&self) -> bool {
        match self {
            Self::Xdp(attached) => attached.program.follows(),
            Self::Packet(_) => false,
        }
    }

    /// Makes these the addresses by which frames are for this host.
    pub(crate) fn follow(&mut self, own: &OwnAddresses) -> Result<(), FollowError> {
        match self {
            Self::Xdp(attached) => attached.program.follow(own),
            Self::Packet(_) => Ok(()),
        }
    }

    /// What the XDP program did so far; zeros if there is none.
    pub(crate) fn counters(&self) -> XdpCounters {
        match self {
            Self::Xdp(attached) => attached.program.counters(),
            Self::Packet(_) => XdpCounters::default(),
        }
    }

    /// What its XDP program filters by, if it does.
    pub(crate) fn filter(&self) -> Option<&KernelFilter> {
        match self {
            Self::Xdp(attached) => attached.program.filter(),
            Self::Packet(_) => None,
        }
    }

    /// What the rules of its filter have matched, if it has one.
    pub(crate) fn matched(&self) -> Option<Matched> {
        match self {
            Self::Xdp(attached) => attached.program.matched(),
            Self::Packet(_) => None,
        }
    }

    /// Loads a program with another filter, or none, to take the place of the one that is attached. `None` if there is no
    /// program, and no filter either.
    pub(crate) fn successor(&self, filter: Option<&Arc<KernelFilter>>) -> Result<Option<Successor>, String> {
        match (self, filter) {
            (Self::Xdp(attached), _) => match attached.program.successor(filter) {
                Ok(successor) => Ok(Some(successor)),
                Err(error) => Err(format!("{error:#}")),
            },
            (Self::Packet(_), None) => Ok(None),
            (Self::Packet(_), Some(_)) => Err("there is no XDP program to filter".to_owned()),
        }
    }

    /// Exchanges the program for a successor, and returns the predecessor.
    pub(crate) fn replace(&mut self, successor: Successor) -> io::Result<Option<Successor>> {
        let Self::Xdp(attached) = self else { return Ok(None) };
        let Some(link) = &attached.link else { return Ok(None) };
        successor.replace(link)?;
        Ok(Some(attached.program.succeed(successor)))
    }

    /// Takes the program off the interface.
    pub(crate) fn detach(&mut self) {
        if let Self::Xdp(attached) = self {
            attached.link = None;
        }
    }
}
