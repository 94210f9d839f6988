//! A pretty-printer for frames.

mod gtpu;
mod layer;
mod link;
mod network;
mod transport;

use core::fmt;

use layer::{Layer, Lines};

/// A frame to be printed with [`Display`](fmt::Display), one line for each layer.
///
/// It prints Ethernet, VLAN tags, ARP, IPv4, IPv6 with its extension headers, TCP, UDP, SCTP, ICMP,
/// ICMPv6, ESP and GTP-U. Packets inside GTP-U, IPv4 and IPv6 are indented by their depth, and not
/// printed below [`MAX_DEPTH`](Self::MAX_DEPTH). The last line reports a truncated or malformed
/// layer.
///
/// Only the checksum of IPv4 headers is verified, because a NIC or the kernel may compute the
/// others later. GTP-U and ESP in UDP are recognized by their ports, 2152 and 4500.
///
/// Printing never allocates. The output has at most [`MAX_LEN`](Self::MAX_LEN) bytes and no line
/// break at its end.
///
/// ```
/// use xdpfwd_wire::{EtherType, MacAddr, Pretty, arp, ethernet};
///
/// let sender = MacAddr([2, 0, 0, 0, 0, 1]);
/// let (destination, ethertype) = (MacAddr::BROADCAST, EtherType::ARP);
/// let mut frame = [0; 60];
/// ethernet::Repr { destination, source: sender, ethertype }.emit(&mut frame)?;
/// let request = arp::Repr::request(sender, [10, 0, 0, 1].into(), [10, 0, 0, 2].into());
/// request.emit(&mut frame[14..])?;
///
/// assert_eq!(
///     Pretty::new(&frame).to_string(),
///     "Ethernet: 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff, arp, 60 bytes\n\
///      ARP: who-has 10.0.0.2 tell 10.0.0.1"
/// );
/// # Ok::<(), xdpfwd_wire::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Pretty<'a> {
    first: Layer<'a>,
}

impl<'a> Pretty<'a> {
    /// The maximum depth of printed packets; the outermost has depth 0.
    pub const MAX_DEPTH: usize = 4;

    /// The maximum length of the output.
    pub const MAX_LEN: usize = 8192;

    /// Creates a printer of an Ethernet frame without FCS.
    #[inline]
    pub const fn new(frame: &'a [u8]) -> Pretty<'a> {
        Pretty { first: Layer::Ethernet(frame) }
    }

    /// Creates a printer of an IPv4 or IPv6 packet.
    #[inline]
    pub const fn ip(packet: &'a [u8]) -> Pretty<'a> {
        Pretty { first: Layer::Ip(packet) }
    }
}

impl fmt::Display for Pretty<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Lines::new(f);
        let mut next = self.first;
        loop {
            next = match next {
                Layer::End => return Ok(()),
                Layer::Ethernet(frame) => link::print_ethernet(&mut lines, frame)?,
                Layer::Arp(message) => link::print_arp(&mut lines, message)?,
                Layer::Ip(packet) => network::print_ip(&mut lines, packet)?,
                Layer::Ipv4(packet) => network::print_ipv4(&mut lines, packet)?,
                Layer::Ipv6(packet) => network::print_ipv6(&mut lines, packet)?,
                Layer::Upper(upper) => transport::print_upper(&mut lines, &upper)?,
                Layer::Gtpu(message) => gtpu::print_gtpu(&mut lines, message)?,
                Layer::Inner(packet) => {
                    lines.indent();
                    if lines.depth() > Self::MAX_DEPTH {
                        lines.line(format_args!("Packet: not printed, nested too deeply"))?;
                        return Ok(());
                    }
                    Layer::Ip(packet)
                }
            };
        }
    }
}

#[cfg(test)]
mod tests;
