//! Selectors: the addresses of the packets that an SA applies to.

use std::net::IpAddr;

use ipnet::IpNet;

use xdpfwd_wire::Addresses;

/// The prefixes of an SA, as network addresses and masks. Without prefixes, every address matches.
/// With prefixes of one IP version, no address of the other matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

/// Which packet address to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

impl Selector {
    pub(super) fn new(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        let mut selector = Self::default();
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => {
                    selector.v4.push((net.network().to_bits(), net.netmask().to_bits()))
                }
                IpNet::V6(net) => {
                    selector.v6.push((net.network().to_bits(), net.netmask().to_bits()))
                }
            }
        }
        selector
    }

    pub(super) fn union<'s>(selectors: impl Iterator<Item = &'s Self>) -> Self {
        let mut union = Self::default();
        for selector in selectors {
            union.v4.extend(&selector.v4);
            union.v6.extend(&selector.v6);
        }
        union.v4.sort_unstable();
        union.v4.dedup();
        union.v6.sort_unstable();
        union.v6.dedup();
        union
    }

    #[inline]
    pub(super) fn is_all(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Returns whether a prefix contains the address that `end` selects; true without prefixes.
    #[inline]
    pub(super) fn contains(&self, addresses: Addresses, end: End) -> bool {
        if self.is_all() {
            return true;
        }
        self.contains_address(match end {
            End::Source => addresses.source(),
            End::Destination => addresses.destination(),
        })
    }

    /// Returns whether a prefix contains the address; unlike `contains`, false without prefixes.
    pub(super) fn contains_address(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => {
                self.v4.iter().any(|(net, mask)| address.to_bits() & mask == *net)
            }
            IpAddr::V6(address) => {
                self.v6.iter().any(|(net, mask)| address.to_bits() & mask == *net)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selector_matches_prefixes_of_same_ip_version() {
        let selector = Selector::new(
            ["10.0.0.0/8", "0.0.0.0/32", "2001:db8::/32"].map(|net| net.parse().unwrap()),
        );
        let v4 = |destination: &str| Addresses::V4 {
            source: [192, 0, 2, 1].into(),
            destination: destination.parse().unwrap(),
        };
        let v6 = |destination: &str| Addresses::V6 {
            source: "2001:db8::1".parse().unwrap(),
            destination: destination.parse().unwrap(),
        };
        for (addresses, is_contained) in [
            (v4("10.255.0.1"), true),
            (v4("11.0.0.1"), false),
            (v4("0.0.0.0"), true),
            (v4("0.0.0.1"), false),
            (v6("2001:db8:1::"), true),
            (v6("2001:db9::"), false),
            (v6("::"), false),
        ] {
            assert_eq!(
                selector.contains(addresses, End::Destination),
                is_contained,
                "{addresses:?}"
            );
            assert!(Selector::default().contains(addresses, End::Destination));
        }
        assert!(!selector.contains(v4("10.0.0.1"), End::Source));
        assert!(selector.contains(v6("fe80::1"), End::Source));
        assert!(
            Selector::new(["0.0.0.0/0".parse().unwrap()]).contains(v4("1.2.3.4"), End::Destination)
        );
        assert!(
            !Selector::new(["0.0.0.0/0".parse().unwrap()]).contains(v6("::1"), End::Destination)
        );
    }
}
