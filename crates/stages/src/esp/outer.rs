//! The outer header of a tunnel (RFC 4301, 5.1.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::values::{Df, Dscp};
use xdpfwd_wire::{EtherType, IpProtocol, ipv4, ipv6};

#[derive(Clone, Debug)]
pub(super) struct OuterHeader {
    addresses: TunnelAddresses,
    pub(super) dscp: Dscp,
    pub(super) ttl: u8,
    pub(super) df: Df,
}

/// Source and destination, of the same IP version.
#[derive(Clone, Copy, Debug)]
enum TunnelAddresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

/// The inner header's fields that the outer header may copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct InnerFields {
    /// DSCP and ECN.
    pub(super) traffic_class: u8,
    /// Don't fragment; always set for IPv6.
    pub(super) df: bool,
}

impl OuterHeader {
    /// Returns `None` if the IP versions of the addresses differ.
    pub(super) fn new(
        source: IpAddr,
        destination: IpAddr,
        dscp: Dscp,
        ttl: u8,
        df: Df,
    ) -> Option<Self> {
        let addresses = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                TunnelAddresses::V4(source, destination)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                TunnelAddresses::V6(source, destination)
            }
            _ => return None,
        };
        Some(Self { addresses, dscp, ttl, df })
    }

    pub(super) fn source(&self) -> IpAddr {
        match self.addresses {
            TunnelAddresses::V4(source, _) => source.into(),
            TunnelAddresses::V6(source, _) => source.into(),
        }
    }

    pub(super) fn destination(&self) -> IpAddr {
        match self.addresses {
            TunnelAddresses::V4(_, destination) => destination.into(),
            TunnelAddresses::V6(_, destination) => destination.into(),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        match self.addresses {
            TunnelAddresses::V4(..) => ipv4::HEADER_LEN,
            TunnelAddresses::V6(..) => ipv6::HEADER_LEN,
        }
    }

    #[inline]
    pub(super) fn ethertype(&self) -> EtherType {
        match self.addresses {
            TunnelAddresses::V4(..) => EtherType::IPV4,
            TunnelAddresses::V6(..) => EtherType::IPV6,
        }
    }

    /// Writes the header to the front of `buffer`, with identification 0. Returns whether routers
    /// may fragment the packet: then the caller must set the identification (RFC 6864, 4.1).
    #[inline]
    pub(super) fn write(
        &self,
        buffer: &mut [u8],
        inner: InnerFields,
        protocol: IpProtocol,
        payload_len: u16,
    ) -> bool {
        let mut may_be_fragmented = false;
        let dscp = match self.dscp {
            Dscp::Copy => inner.traffic_class >> 2,
            Dscp::Fixed(dscp) => dscp,
        };
        let ecn = xdpfwd_ipsec::ecn::outer(inner.traffic_class & 0b11);
        let result = match self.addresses {
            TunnelAddresses::V4(source, destination) => {
                let dont_fragment = match self.df {
                    Df::Copy => inner.df,
                    Df::Set => true,
                    Df::Clear => false,
                };
                may_be_fragmented = !dont_fragment;
                let ttl = self.ttl;
                let repr = ipv4::Repr {
                    dscp,
                    ecn,
                    ident: 0,
                    dont_fragment,
                    ttl,
                    protocol,
                    source,
                    destination,
                    payload_len,
                };
                repr.emit(buffer)
            }
            TunnelAddresses::V6(source, destination) => ipv6::Repr {
                traffic_class: dscp << 2 | ecn,
                flow_label: 0,
                next_header: protocol,
                hop_limit: self.ttl,
                source,
                destination,
                payload_len,
            }
            .emit(buffer),
        };
        // Cannot fail: the caller made room for the header, and the packet is within the MTU.
        debug_assert!(result.is_ok());
        may_be_fragmented
    }
}
