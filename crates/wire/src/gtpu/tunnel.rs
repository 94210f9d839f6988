//! The headers of a GTP-U tunnel.

use super::packet::PORT;
use super::repr::{Extension, Repr};
use crate::stack::Header;
use crate::{ethernet, ipv4, udp};

/// Returns the headers of a GTP-U tunnel over IPv4, outermost first: Ethernet, IPv4, UDP without
/// checksum, and a G-PDU.
///
/// ```
/// use xdpfwd_wire::gtpu::{self, PduSessionContainer};
/// use xdpfwd_wire::{HeaderStack, MacAddr, Pretty, ethernet, ipv4};
///
/// let ethernet = ethernet::Repr::new(MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
/// let ip = ipv4::Repr::new([172, 16, 0, 1].into(), [172, 16, 0, 2].into());
/// let extensions = [PduSessionContainer::downlink(9).into()];
/// let frame = HeaderStack(&gtpu::tunnel(ethernet, ip, 7, &extensions)).packet(b"")?;
/// assert!(Pretty::new(&frame).to_string().ends_with("G-PDU, teid 0x00000007, downlink, qfi 9"));
/// # Ok::<(), xdpfwd_wire::Error>(())
/// ```
#[inline]
pub fn tunnel<'a>(
    ethernet: ethernet::Repr,
    ip: ipv4::Repr,
    teid: u32,
    extensions: &'a [Extension<'a>],
) -> [Header<'a>; 4] {
    [
        ethernet.into(),
        ip.into(),
        Header::UdpWithoutChecksum(udp::Repr::new(PORT, PORT)),
        Repr::g_pdu(teid, extensions).into(),
    ]
}
