//! How packets get from an interface to the sockets of its port.

use std::io;
use std::sync::Arc;

use xdpfwd_packet::PacketSocket;
use xdpfwd_pipeline::XdpImage;
use xdpfwd_xsk::{AttachMode, XdpLink};

use crate::attach::conflicts;
use crate::attach::native::{EOPNOTSUPP, lacks_native_xdp, why_not_native};
use crate::attach::program::{AddressUpdateError, Successor, XdpCounters, XdpProgram};
use crate::error::StartError;
use crate::host::addresses::OwnAddresses;
use crate::host::interface::Interface;
use crate::plan::{Mode, PortPlan};

/// The attachment of a port's sockets to its interface. Dropping it ends the attachment.
pub(crate) enum Attachment {
    /// An XDP program on the interface.
    Xdp(Box<LoadedProgram>),
    /// Packet sockets, one per queue, with nothing attached to the interface. Each socket receives
    /// only while enabled.
    Packet(Vec<PacketSocket>),
}

/// The XDP program, loaded for and attached to an interface.
pub(crate) struct LoadedProgram {
    link: Option<XdpLink>,
    mode: AttachMode,
    program: XdpProgram,
}

impl Attachment {
    /// Opens the packet sockets of a port, or loads and attaches the XDP program, natively unless
    /// the mode requests otherwise. With [`Mode::Auto`], falls back to generic XDP if the driver
    /// lacks native support, and returns the error that caused the fallback. Sockets receive no
    /// packets yet.
    pub(crate) fn new(
        port: &PortPlan,
        interface: &Interface,
        image: Option<&Arc<XdpImage>>,
        mode: Mode,
    ) -> Result<(Self, Option<io::Error>), StartError> {
        if !port.io.uses_xdp() {
            let sockets =
                PacketSocket::open_queues(interface.index, port.queues).map_err(|source| {
                    StartError::Packet { interface: interface.name.clone(), source }
                })?;
            return Ok((Self::Packet(sockets), None));
        }
        let program = XdpProgram::load(port.queues, &port.keep, image)?;
        let attach = |mode| program.attach(interface.index, mode);
        let (link, attached, fallback) = match mode {
            Mode::Skb => (attach(AttachMode::Skb), AttachMode::Skb, None),
            Mode::ZeroCopy | Mode::Copy => (attach(AttachMode::Native), AttachMode::Native, None),
            Mode::Auto => match attach(AttachMode::Native) {
                Err(error) if lacks_native_xdp(&error) => {
                    (attach(AttachMode::Skb), AttachMode::Skb, Some(error))
                }
                result => (result, AttachMode::Native, None),
            },
        };
        let link = link.map_err(|error| refused(interface, mode, error))?;
        Ok((
            Self::Xdp(Box::new(LoadedProgram { link: Some(link), mode: attached, program })),
            fallback,
        ))
    }

    /// Returns the attach mode of the XDP program, if there is one.
    pub(crate) fn mode(&self) -> Option<AttachMode> {
        match self {
            Self::Xdp(attached) => Some(attached.mode),
            Self::Packet(_) => None,
        }
    }

    /// Returns the socket of a queue, for its worker; `None` if the worker opens its own.
    pub(crate) fn socket(&self, queue: u16) -> Option<PacketSocket> {
        match self {
            Self::Xdp(_) => None,
            Self::Packet(sockets) => sockets.get(usize::from(queue)).cloned(),
        }
    }

    /// Redirects a queue's packets to a socket, given by descriptor. A packet socket receives its
    /// own queue.
    pub(crate) fn redirect(&self, queue: u16, socket: i32) -> Result<(), String> {
        match self {
            Self::Xdp(attached) => {
                attached.program.redirect(queue, socket).map_err(|error| format!("{error:#}"))
            }
            Self::Packet(sockets) => {
                let socket = sockets.get(usize::from(queue)).ok_or("no socket for the queue")?;
                socket.start().map_err(|error| error.to_string())
            }
        }
    }

    /// Stops redirecting packets to sockets.
    pub(crate) fn release(&self, queues: u16) {
        match self {
            Self::Xdp(attached) => attached.program.release(queues),
            Self::Packet(sockets) => {
                for socket in sockets {
                    if let Err(error) = socket.stop() {
                        tracing::warn!(
                            %error,
                            "cannot stop a packet socket from receiving; shutdown takes longer"
                        );
                    }
                }
            }
        }
    }

    /// Returns whether the attachment needs the host's addresses.
    pub(crate) fn needs_addresses(&self) -> bool {
        match self {
            Self::Xdp(attached) => attached.program.needs_addresses(),
            Self::Packet(_) => false,
        }
    }

    /// Sets the host's addresses.
    pub(crate) fn update_addresses(
        &mut self,
        own: &OwnAddresses,
    ) -> Result<(), AddressUpdateError> {
        match self {
            Self::Xdp(attached) => attached.program.update_addresses(own),
            Self::Packet(_) => Ok(()),
        }
    }

    /// Returns the counters of the XDP program; zeros if there is none.
    pub(crate) fn counters(&self) -> XdpCounters {
        match self {
            Self::Xdp(attached) => attached.program.counters(),
            Self::Packet(_) => XdpCounters::default(),
        }
    }

    /// Returns the image of the stage that the XDP program runs, if any.
    pub(crate) fn image(&self) -> Option<&XdpImage> {
        match self {
            Self::Xdp(attached) => attached.program.image(),
            Self::Packet(_) => None,
        }
    }

    /// Returns the row counters of that stage in the XDP program.
    pub(crate) fn row_counters(&self) -> Option<Vec<u64>> {
        match self {
            Self::Xdp(attached) => attached.program.row_counters(),
            Self::Packet(_) => None,
        }
    }

    /// Loads a program with another image, or none, to replace the attached program. Returns `None`
    /// if there is neither a program nor an image.
    pub(crate) fn load_successor(
        &self,
        image: Option<&Arc<XdpImage>>,
    ) -> Result<Option<Successor>, String> {
        match (self, image) {
            (Self::Xdp(attached), _) => match attached.program.load_successor(image) {
                Ok(successor) => Ok(Some(successor)),
                Err(error) => Err(format!("{error:#}")),
            },
            (Self::Packet(_), None) => Ok(None),
            (Self::Packet(_), Some(_)) => Err("the port has no XDP program".to_owned()),
        }
    }

    /// Replaces the program with a successor and returns the predecessor.
    pub(crate) fn replace(&mut self, successor: Successor) -> io::Result<Option<Successor>> {
        let Self::Xdp(attached) = self else { return Ok(None) };
        let Some(link) = &attached.link else { return Ok(None) };
        successor.replace(link)?;
        Ok(Some(attached.program.replace_with(successor)))
    }

    /// Detaches the program from the interface.
    pub(crate) fn detach(&mut self) {
        if let Self::Xdp(attached) = self {
            attached.link = None;
        }
    }
}

/// Returns the error for an attach that the kernel refused.
fn refused(interface: &Interface, mode: Mode, source: io::Error) -> StartError {
    let find_program = || conflicts::find_attached_program(interface).map(Box::new);
    let mtu = interface.mtu();
    let interface = interface.name.clone();
    let native = matches!(mode, Mode::ZeroCopy | Mode::Copy);
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            StartError::Permission { what: format!("{interface}: cannot attach the XDP program") }
        }
        io::ErrorKind::ResourceBusy | io::ErrorKind::AlreadyExists => {
            StartError::AttachedAlready { program: find_program(), interface }
        }
        _ if source.raw_os_error() == Some(EOPNOTSUPP) => {
            // Some drivers return this error if only the MTU is too large.
            let at_mtu = mtu
                .filter(|&mtu| mtu > 1500)
                .map_or(String::new(), |mtu| format!(" with MTU {mtu}"));
            StartError::Unsupported {
                what: format!(
                    "{interface}: mode \"{mode}\" needs native XDP, \
                     which the driver does not support{at_mtu}"
                ),
                fix: "set mode = \"skb\" or \"auto\"".into(),
            }
        }
        _ => match native.then(|| why_not_native(&source)).flatten() {
            Some((why, fix)) => {
                let now = mtu.map_or(String::new(), |mtu| format!(" ({interface} has MTU {mtu})"));
                StartError::NativeRefused {
                    why: format!("{why}{now}"),
                    fix: fix.replace('X', &interface),
                    interface,
                    mode,
                }
            }
            None => StartError::Attach { interface, mode, source },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::native::{EINVAL, ENOSPC, ERANGE};

    fn refused(errno: i32, mode: Mode) -> String {
        let interface = Interface { name: "none-such0".into(), index: 0 };
        super::refused(&interface, mode, io::Error::from_raw_os_error(errno)).to_string()
    }

    #[test]
    fn attach_error_states_cause_and_remedy() {
        for (errno, parts) in [
            (ERANGE, ["MTU is too large", "`ip link set dev none-such0 mtu N`"]),
            (ENOSPC, ["too few queues", "`ethtool -L none-such0 rx N`"]),
            (EINVAL, ["possibly the MTU", "`ip link set dev none-such0 mtu N`"]),
            (EOPNOTSUPP, ["does not support", "set mode = \"skb\""]),
        ] {
            for mode in [Mode::Copy, Mode::ZeroCopy] {
                let text = refused(errno, mode);
                assert!(parts.iter().all(|part| text.contains(part)), "{text}");
                assert!(
                    text.contains(&format!("mode \"{mode}\"")) && text.contains("\"auto\""),
                    "{text}"
                );
            }
            assert!(lacks_native_xdp(&io::Error::from_raw_os_error(errno)));
        }
        // Generic XDP accepts any MTU, so the error has another cause there.
        assert!(refused(EINVAL, Mode::Skb).contains("Invalid argument"));
        assert!(!lacks_native_xdp(&io::Error::from_raw_os_error(16)), "EBUSY");
    }
}
