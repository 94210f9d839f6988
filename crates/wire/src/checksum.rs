//! The internet checksum (RFC 1071), its pseudo headers, and its incremental update (RFC 1624).

use crate::ip::{Addresses, IpProtocol};

/// Returns the internet checksum of `data` (RFC 1071). An odd last byte is padded with zero.
///
/// To compute a checksum, first set its field in `data` to zero. To verify one, leave the field:
/// the result is 0 if the checksum is valid.
///
/// ```
/// let mut header = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
/// let checksum = xdpfwd_wire::checksum::internet(&header);
/// header[10..12].copy_from_slice(&checksum.to_be_bytes());
/// assert_eq!(checksum, 0x66cf);
/// assert_eq!(xdpfwd_wire::checksum::internet(&header), 0);
/// ```
#[inline]
pub fn internet(data: &[u8]) -> u16 {
    Sum::new().with(data).checksum()
}

/// A ones' complement sum of 16-bit words (RFC 1071).
///
/// ```
/// use xdpfwd_wire::checksum::Sum;
///
/// // The example of RFC 1071, section 3.
/// assert_eq!(Sum::new().with(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).folded(), 0xddf2);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Creates an empty sum.
    #[inline]
    pub const fn new() -> Sum {
        Sum(0)
    }

    /// Creates the sum of the pseudo header of IPv4 (RFC 768; RFC 9293, section 3.1) or IPv6 (RFC
    /// 8200, section 8.1) for an upper-layer packet of `len` bytes with its header.
    ///
    /// `len` is added as 32 bits. The length field of IPv4 has 16 bits; the sum is the same,
    /// because no IPv4 payload exceeds 65535 bytes.
    #[inline]
    pub fn pseudo_header(addresses: Addresses, protocol: IpProtocol, len: u32) -> Sum {
        let sum = match addresses {
            Addresses::V4 { source, destination } => {
                Sum::new().with(&source.octets()).with(&destination.octets())
            }
            Addresses::V6 { source, destination } => {
                Sum::new().with(&source.octets()).with(&destination.octets())
            }
        };
        sum.add_u64(u64::from(protocol.0)).add_u64(u64::from(len))
    }

    /// Adds `data` as 16-bit words in network byte order. An odd last byte is padded with zero (RFC
    /// 1071, section 1), so only the last data added may have an odd length.
    #[inline]
    #[must_use]
    pub fn with(self, data: &[u8]) -> Sum {
        let (words, tail) = data.as_chunks::<8>();
        let mut sum = self;
        for word in words {
            sum = sum.add_u64(u64::from_be_bytes(*word));
        }
        // 2^16 is 1 modulo 2^16 - 1, so a word may be added at any 16-bit position of the sum.
        let (pairs, odd) = tail.as_chunks::<2>();
        for pair in pairs {
            sum = sum.add_u64(u64::from(u16::from_be_bytes(*pair)));
        }
        match odd {
            [last] => sum.add_u64(u64::from(*last) << 8),
            _ => sum,
        }
    }

    /// Returns the sum folded to 16 bits: 0xffff if the data contains a valid checksum.
    #[inline]
    pub const fn folded(self) -> u16 {
        let sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        let sum = (sum >> 32) + (sum & 0xffff_ffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        sum as u16
    }

    /// Returns the checksum: the complement of the folded sum.
    #[inline]
    pub const fn checksum(self) -> u16 {
        !self.folded()
    }

    /// Adds a word with end-around carry. The folded sum stays correct, because 2^64 - 1 is a
    /// multiple of 2^16 - 1.
    #[inline]
    #[must_use]
    pub(super) const fn add_u64(self, word: u64) -> Sum {
        let (sum, carry) = self.0.overflowing_add(word);
        Sum(sum + carry as u64)
    }
}

/// Returns the new value of `checksum` when a 16-bit word of the covered data changes from `old` to
/// `new` (RFC 1624, equation 3: HC' = ~(~HC + ~m + m')).
///
/// The result equals a recomputed checksum unless all covered data is zero, which an IP header or
/// pseudo header never is. An invalid checksum stays invalid.
///
/// For UDP over IPv4, do not update a checksum of 0, which means "no checksum" (RFC 768). For UDP,
/// write a result of 0 as 0xffff (RFC 768; RFC 8200, section 8.1).
#[inline]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = !checksum as u32 + !old as u32 + new as u32;
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !(sum as u16)
}

/// Returns the new value of `checksum` when `N` bytes of the covered data, starting at an even
/// offset, change from `old` to `new` (RFC 1624, equation 3). An odd last byte is padded with zero.
///
/// For example, pass the octets of an old and a new address. The notes at [`update`] apply.
///
/// ```
/// use xdpfwd_wire::checksum;
///
/// let (before, after) = ([10, 0, 0, 1], [192, 0, 2, 1]);
/// let updated = checksum::update_bytes(checksum::internet(&before), &before, &after);
/// assert_eq!(updated, checksum::internet(&after));
/// ```
#[inline]
pub fn update_bytes<const N: usize>(checksum: u16, old: &[u8; N], new: &[u8; N]) -> u16 {
    // m and m' of equation 3 are folded sums: the complement of a folded sum is the folded sum of
    // the complements.
    let (old, new) = (Sum::new().with(old), Sum::new().with(new));
    update(checksum, old.folded(), new.folded())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The algorithm of RFC 1071, section 4.1.
    fn reference_sum(data: &[u8]) -> u16 {
        let mut sum = 0u64;
        for pair in data.chunks(2) {
            sum += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u64::from(low));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn update_matches_example_of_rfc_1624() {
        // Section 4: HC = 0xdd2f, m = 0x5555, m' = 0x3285; equation 2 would give 0xffff.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    /// Edge values, because random words rarely need the second fold of `update`.
    #[test]
    fn update_of_edge_values_equals_recomputation() {
        const EDGES: [u16; 8] = [0, 1, 2, 0x7fff, 0x8000, 0xfffd, 0xfffe, 0xffff];
        let checksum_of = |words: [u16; 2]| {
            Sum::new().with(&[0, 1]).with(&words.map(u16::to_be_bytes).concat()).checksum()
        };
        for other in EDGES {
            for old in EDGES {
                for new in EDGES {
                    assert_eq!(
                        update(checksum_of([other, old]), old, new),
                        checksum_of([other, new]),
                        "{other:#x} {old:#x} {new:#x}"
                    );
                }
            }
        }
    }

    #[test]
    fn sum_of_all_ones_loses_no_carry() {
        assert_eq!(Sum::new().with(&[0xff; 65_535]).folded(), reference_sum(&[0xff; 65_535]));
        assert_eq!(Sum(u64::MAX).with(&[0xff; 16]).folded(), 0xffff);
        assert_eq!(Sum::new().checksum(), 0xffff);
    }

    #[test]
    fn pseudo_header_checksum_matches_scapy() {
        // bytes(IP(src="10.0.0.1", dst="10.0.0.2")/UDP(sport=1, dport=2)/b"x")[26:28]
        let v4 = Addresses::V4 { source: [10, 0, 0, 1].into(), destination: [10, 0, 0, 2].into() };
        let udp = [0, 1, 0, 2, 0, 9, 0, 0, b'x'];
        assert_eq!(Sum::pseudo_header(v4, IpProtocol::UDP, 9).with(&udp).checksum(), 0x73d6);
        // bytes(IPv6(src="2001:db8::1", dst="2001:db8::2")/UDP(sport=1, dport=2)/b"x")[46:48]
        let source = "2001:db8::1".parse().unwrap();
        let v6 = Addresses::V6 { source, destination: "2001:db8::2".parse().unwrap() };
        assert_eq!(Sum::pseudo_header(v6, IpProtocol::UDP, 9).with(&udp).checksum(), 0x2c64);
    }

    proptest! {
        #[test]
        fn update_of_address_equals_recomputation(
            before: [u8; 40],
            new in prop_oneof![Just([0; 16]), Just([0xff; 16]), any::<[u8; 16]>()],
            at in 0usize..12,
        ) {
            let mut after = before;
            after[39] |= 1; // keeps the data from being all zero
            let before = after;
            let old = before[2 * at..].first_chunk::<16>().unwrap();
            after[2 * at..2 * at + 16].copy_from_slice(&new);
            prop_assert_eq!(update_bytes(internet(&before), old, &new), internet(&after));
        }

        #[test]
        fn update_of_odd_tail_equals_recomputation(before: [u8; 9], new: [u8; 3]) {
            let mut after = before;
            after[0] |= 1;
            let before = after;
            let old = before.last_chunk::<3>().unwrap();
            after[6..].copy_from_slice(&new);
            prop_assert_eq!(update_bytes(internet(&before), old, &new), internet(&after));
        }

        #[test]
        fn sum_equals_reference_sum(data in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Sum::new().with(&data).folded(), reference_sum(&data));
        }

        #[test]
        fn sum_split_at_even_offset_equals_reference_sum(data in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..100) {
            let (front, back) = data.split_at((at * 2).min(data.len() & !1));
            prop_assert_eq!(Sum::new().with(front).with(back).folded(), reference_sum(&data));
        }

        #[test]
        fn update_equals_recomputation(
            mut data in prop::collection::vec(any::<u8>(), 2..60),
            at in any::<prop::sample::Index>(),
            new in prop_oneof![Just(0u16), Just(0xffff), any::<u16>()],
        ) {
            data.push(1); // keeps the data from being all zero
            data.push(0);
            let at = at.index(data.len() / 2 - 1) * 2;
            let old = u16::from_be_bytes([data[at], data[at + 1]]);
            prop_assume!(data.len() % 2 == 0);
            let before = Sum::new().with(&data).checksum();
            data[at..at + 2].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update(before, old, new), Sum::new().with(&data).checksum());
        }
    }
}
