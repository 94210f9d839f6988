//! Attachment of a port to its interface.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;

use xdpfwd_packet::{PacketSocket, SocketConfig};
use xdpfwd_perf::RunTime;
use xdpfwd_pipeline::XdpImage;
use xdpfwd_xsk::{AttachMode, XdpLink};

use crate::attach::conflicts;
use crate::attach::native::{EOPNOTSUPP, is_native_xdp_refusal, why_not_native};
use crate::attach::program::{AddressUpdateError, LoadedObject, XdpCounters, XdpProgram};
use crate::error::StartError;
use crate::host::addresses::OwnAddresses;
use crate::host::interface::Interface;
use crate::host::link::Link;
use crate::plan::{Io, Mode, PortPlan};

/// Connects an interface with the sockets of its port. Dropping it detaches the XDP program, or
/// drops its references to the packet sockets, which workers share.
pub(crate) enum Attachment {
    Xdp(Box<LinkedProgram>),
    /// One socket per queue. It receives only between `start_delivery` and `stop_delivery`.
    Packet(Vec<PacketSocket>),
}

pub(crate) struct LinkedProgram {
    /// `None` after [`Attachment::detach`].
    link: Option<XdpLink>,
    /// The kernel's number of the attached program; `None` if it could not be read.
    program_id: Option<u32>,
    mode: AttachMode,
    program: XdpProgram,
}

impl Attachment {
    /// Opens a port's packet sockets, or loads and attaches its XDP program. Receives no packets
    /// yet.
    ///
    /// Attaches generically with [`Mode::Skb`], otherwise natively. With [`Mode::Auto`], falls back
    /// to generic XDP if the driver refuses native XDP, and returns that error.
    pub(crate) fn new(
        port: &PortPlan,
        interface: &Interface,
        image: Option<&Arc<XdpImage>>,
        mode: Mode,
        frame_size: u32,
    ) -> Result<(Self, Option<io::Error>), StartError> {
        if !port.io.uses_xdp() {
            return Ok((Self::Packet(open_packet_sockets(port, interface, frame_size)?), None));
        }
        let program = XdpProgram::load(port.queues, &port.keep, image)?;
        let attach = |mode| program.attach(interface.index, mode);
        let (link, attach_mode, fallback) = match mode {
            Mode::Skb => (attach(AttachMode::Skb), AttachMode::Skb, None),
            Mode::ZeroCopy | Mode::Copy => (attach(AttachMode::Native), AttachMode::Native, None),
            Mode::Auto => match attach(AttachMode::Native) {
                Err(error) if is_native_xdp_refusal(&error) => {
                    (attach(AttachMode::Skb), AttachMode::Skb, Some(error))
                }
                result => (result, AttachMode::Native, None),
            },
        };
        let link = link.map_err(|error| attach_error(interface, mode, error))?;
        let program_id = attached_to(&link).map(|(_, id)| id);
        let linked = LinkedProgram { link: Some(link), program_id, mode: attach_mode, program };
        Ok((Self::Xdp(Box::new(linked)), fallback))
    }

    pub(crate) fn mode(&self) -> Option<AttachMode> {
        match self {
            Self::Xdp(linked) => Some(linked.mode),
            Self::Packet(_) => None,
        }
    }

    /// Returns the packet socket of a queue; `None` for an AF_XDP port, whose sockets workers open.
    pub(crate) fn socket(&self, queue: u16) -> Option<PacketSocket> {
        match self {
            Self::Xdp(_) => None,
            Self::Packet(sockets) => sockets.get(usize::from(queue)).cloned(),
        }
    }

    /// Delivers a queue's packets to the AF_XDP socket `socket_fd`, or to its packet socket.
    pub(crate) fn start_delivery(&self, queue: u16, socket_fd: i32) -> Result<(), String> {
        match self {
            Self::Xdp(linked) => {
                linked.program.redirect(queue, socket_fd).map_err(|error| format!("{error:#}"))
            }
            Self::Packet(sockets) => {
                let socket =
                    sockets.get(usize::from(queue)).ok_or("the queue has no packet socket")?;
                socket.start().map_err(|error| error.to_string())
            }
        }
    }

    pub(crate) fn stop_delivery(&self, queue_count: u16) {
        match self {
            Self::Xdp(linked) => linked.program.stop_redirecting(queue_count),
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

    pub(crate) fn needs_addresses(&self) -> bool {
        match self {
            Self::Xdp(linked) => linked.program.needs_addresses(),
            Self::Packet(_) => false,
        }
    }

    pub(crate) fn update_addresses(
        &mut self,
        addresses: &OwnAddresses,
    ) -> Result<(), AddressUpdateError> {
        match self {
            Self::Xdp(linked) => linked.program.update_addresses(addresses),
            Self::Packet(_) => Ok(()),
        }
    }

    pub(crate) fn counters(&self) -> XdpCounters {
        match self {
            Self::Xdp(linked) => linked.program.counters(),
            Self::Packet(_) => XdpCounters::default(),
        }
    }

    pub(crate) fn image(&self) -> Option<&XdpImage> {
        match self {
            Self::Xdp(linked) => linked.program.image(),
            Self::Packet(_) => None,
        }
    }

    pub(crate) fn row_counters(&self) -> Option<Vec<u64>> {
        match self {
            Self::Xdp(linked) => linked.program.row_counters(),
            Self::Packet(_) => None,
        }
    }

    /// Returns the run time of the XDP program, as far as the kernel measured it.
    pub(crate) fn run_time(&self) -> Option<RunTime> {
        match self {
            Self::Xdp(linked) => linked.program.run_time(),
            Self::Packet(_) => None,
        }
    }

    /// Loads the program that will replace the attached one. For packet sockets, returns `None`, or
    /// an error if `image` requests a stage in the kernel.
    pub(crate) fn load_successor(
        &self,
        image: Option<&Arc<XdpImage>>,
    ) -> Result<Option<LoadedObject>, String> {
        match (self, image) {
            (Self::Xdp(linked), _) => match linked.program.load_successor(image) {
                Ok(successor) => Ok(Some(successor)),
                Err(error) => Err(format!("{error:#}")),
            },
            (Self::Packet(_), None) => Ok(None),
            (Self::Packet(_), Some(_)) => Err("the port has no XDP program".to_owned()),
        }
    }

    /// Attaches `successor` in place of the program, and returns that program. If no program is
    /// attached because the port is down, `successor` is attached when the port is up again.
    pub(crate) fn replace(&mut self, successor: LoadedObject) -> io::Result<Option<LoadedObject>> {
        let Self::Xdp(linked) = self else { return Ok(None) };
        if let Some(link) = &linked.link {
            successor.attach_in_place(link)?;
            linked.program_id = attached_to(link).map(|(_, id)| id);
        }
        Ok(Some(linked.program.set_current(successor)))
    }

    /// Returns what another program has done to the attached XDP program, if anything.
    pub(crate) fn interference(&self) -> Option<&'static str> {
        let Self::Xdp(linked) = self else { return None };
        let (interface, id) = attached_to(linked.link.as_ref()?)?;
        match linked.program_id {
            _ if interface == 0 => Some("another program has detached the XDP program"),
            Some(own) if own != id => Some("another program has replaced the XDP program"),
            _ => None,
        }
    }

    /// Detaches the XDP program, which stays loaded, or closes the packet sockets that no worker
    /// uses. The maps of the program stay readable.
    pub(crate) fn detach(&mut self) {
        match self {
            Self::Xdp(linked) => linked.link = None,
            Self::Packet(sockets) => sockets.clear(),
        }
    }

    /// Attaches the XDP program to an interface in the same mode as before, or opens new packet
    /// sockets. Receives no packets yet. Call [`detach`](Self::detach) first.
    pub(crate) fn attach_again(
        &mut self,
        port: &PortPlan,
        interface: &Interface,
        mode: Mode,
        frame_size: u32,
    ) -> Result<(), StartError> {
        match self {
            Self::Xdp(linked) => {
                let link = linked.program.attach(interface.index, linked.mode);
                let link = link.map_err(|error| attach_error(interface, mode, error))?;
                linked.program_id = attached_to(&link).map(|(_, id)| id);
                linked.link = Some(link);
            }
            Self::Packet(sockets) => *sockets = open_packet_sockets(port, interface, frame_size)?,
        }
        Ok(())
    }
}

/// Returns the index of the interface to which a link attaches its program (0 for none), and the
/// number of the program; `None` if /proc does not show them.
fn attached_to(link: &XdpLink) -> Option<(u32, u32)> {
    let path = format!("/proc/self/fdinfo/{}", link.as_fd().as_raw_fd());
    let text = fs::read_to_string(path).ok()?;
    let field = |name: &str| {
        let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        values.map(str::trim).next()?.parse().ok()
    };
    Some((field("ifindex")?, field("prog_id")?))
}

fn open_packet_sockets(
    port: &PortPlan,
    interface: &Interface,
    frame_size: u32,
) -> Result<Vec<PacketSocket>, StartError> {
    let rings = (port.io == Io::PacketMmap).then_some(frame_size);
    let config = SocketConfig { qdisc: port.qdisc, rings };
    PacketSocket::open_queues(interface.index, port.queues, &config)
        .map_err(|source| StartError::Packet { interface: interface.name.clone(), source })
}

fn attach_error(interface: &Interface, mode: Mode, source: io::Error) -> StartError {
    let find_program = || conflicts::find_attached_program(interface).map(Box::new);
    let mtu = Link::read(interface.index).ok().and_then(|link| link.mtu);
    let interface = interface.name.clone();
    let requires_native = matches!(mode, Mode::ZeroCopy | Mode::Copy);
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            StartError::Permission { what: format!("{interface}: cannot attach the XDP program") }
        }
        io::ErrorKind::ResourceBusy | io::ErrorKind::AlreadyExists => {
            StartError::AttachedAlready { program: find_program(), interface }
        }
        _ if requires_native && source.raw_os_error() == Some(EOPNOTSUPP) => {
            // Some drivers return this error if the MTU is too large for native XDP.
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
        _ => match requires_native.then(|| why_not_native(&source, &interface)).flatten() {
            Some((why, fix)) => {
                let mtu_note =
                    mtu.map_or(String::new(), |mtu| format!(" ({interface} has MTU {mtu})"));
                StartError::NativeRefused { why: format!("{why}{mtu_note}"), fix, interface, mode }
            }
            None => StartError::Attach { interface, mode, source },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::native::{EINVAL, ENOSPC, ERANGE};

    fn error_text(errno: i32, mode: Mode) -> String {
        let interface =
            Interface { name: "none-such0".into(), link_name: "none-such0".into(), index: 0 };
        attach_error(&interface, mode, io::Error::from_raw_os_error(errno)).to_string()
    }

    #[test]
    fn refusal_of_native_xdp_is_reported_with_cause_and_remedy() {
        for (errno, parts) in [
            (ERANGE, ["MTU is too large", "`ip link set dev none-such0 mtu N`"]),
            (ENOSPC, ["too few queues", "`ethtool -L none-such0 rx N`"]),
            (EINVAL, ["possibly the MTU", "`ip link set dev none-such0 mtu N`"]),
            (EOPNOTSUPP, ["does not support", "set mode = \"skb\""]),
        ] {
            for mode in [Mode::Copy, Mode::ZeroCopy] {
                let text = error_text(errno, mode);
                assert!(parts.iter().all(|part| text.contains(part)), "{text}");
                assert!(
                    text.contains(&format!("mode \"{mode}\"")) && text.contains("\"auto\""),
                    "{text}"
                );
            }
            assert!(is_native_xdp_refusal(&io::Error::from_raw_os_error(errno)));
        }
        // In these modes the error is from generic XDP, which accepts any MTU with every driver.
        for mode in [Mode::Skb, Mode::Auto] {
            assert!(error_text(EINVAL, mode).contains("Invalid argument"));
            let text = error_text(EOPNOTSUPP, mode);
            assert!(!text.contains("native") && text.contains("not supported"), "{text}");
        }
        assert!(
            !is_native_xdp_refusal(&io::Error::from_raw_os_error(16)),
            "EBUSY was taken for a refusal of native XDP"
        );
    }
}
