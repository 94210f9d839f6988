//! The flow hash: multiplies the fields that identify a flow, and folds each 128-bit product to 64
//! bits.
//!
//! The hash has no key, so an attacker who chooses addresses and ports can make flows collide:
//! in a hash table that outsiders can fill, limit the slots that a lookup reads. Hash values may
//! change with any release.

use crate::ip::{Addresses, IpProtocol};
use crate::mac::MacAddr;

/// Arbitrary constants: fractional digits of pi, made odd.
const SEEDS: [u64; 5] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
];

/// Hashes a flow. Pass 0 for the ports of a packet without ports, and `None` for an unknown
/// protocol.
#[inline]
pub(super) fn hash(
    addresses: Addresses,
    protocol: Option<IpProtocol>,
    source_port: u16,
    destination_port: u16,
) -> u32 {
    let protocol = protocol.map_or(0, |protocol| protocol.0);
    let protocol_and_ports =
        u64::from(protocol) << 32 | u64::from(source_port) << 16 | u64::from(destination_port);
    match addresses {
        Addresses::V4 { source, destination } => {
            let address_pair = u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits());
            finish(multiply(address_pair ^ SEEDS[0], protocol_and_ports ^ SEEDS[1]))
        }
        Addresses::V6 { source, destination } => {
            let [source_high, source_low] = halves(source.to_bits());
            let [destination_high, destination_low] = halves(destination.to_bits());
            let source = multiply(source_high ^ SEEDS[0], source_low ^ SEEDS[1]);
            let destination = multiply(destination_high ^ SEEDS[2], destination_low ^ SEEDS[3]);
            finish(multiply(source ^ destination.rotate_left(32), protocol_and_ports ^ SEEDS[4]))
        }
    }
}

/// Hashes the MAC addresses of a frame without IP addresses.
#[inline]
pub(super) fn hash_macs(destination: MacAddr, source: MacAddr) -> u32 {
    finish(multiply(widen(destination) ^ SEEDS[0], widen(source) ^ SEEDS[1]))
}

/// Combines both halves of the product, so that each input bit affects high and low bits.
#[inline]
fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
fn finish(value: u64) -> u32 {
    multiply(value, SEEDS[2]) as u32
}

#[inline]
fn halves(bits: u128) -> [u64; 2] {
    [(bits >> 64) as u64, bits as u64]
}

#[inline]
fn widen(MacAddr([a, b, c, d, e, f]): MacAddr) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    fn v4(source: u32, destination: u32) -> Addresses {
        Addresses::V4 { source: Ipv4Addr::from(source), destination: Ipv4Addr::from(destination) }
    }

    fn v6(source: u128, destination: u128) -> Addresses {
        Addresses::V6 { source: Ipv6Addr::from(source), destination: Ipv6Addr::from(destination) }
    }

    /// Asserts that 65536 flows spread over 4096 buckets by the low and the high 12 bits of the
    /// hash. A random hash gives 16 flows per bucket, with a standard deviation of 4, and about 32
    /// in the fullest.
    #[track_caller]
    fn assert_spread(hash_of: impl Fn(u32) -> u32) {
        for shift in [0, 20] {
            let mut buckets = [0u32; 4096];
            for flow in 0..65_536 {
                buckets[(hash_of(flow) >> shift & 4095) as usize] += 1;
            }
            assert!(
                buckets.iter().all(|&flows| flows <= 40),
                "flows in the fullest bucket: {:?}",
                buckets.iter().max()
            );
            let empty = buckets.iter().filter(|&&flows| flows == 0).count();
            assert!(empty <= 4, "{empty} buckets empty");
        }
    }

    #[test]
    fn hash_spreads_flows_that_differ_in_one_field() {
        const UDP: Option<IpProtocol> = Some(IpProtocol::UDP);
        assert_spread(|flow| hash(v4(0x0a000001, 0x0a000002), UDP, flow as u16, 2152));
        assert_spread(|flow| hash(v4(0x0a000001, 0x0a000002), UDP, 2152, flow as u16));
        assert_spread(|flow| hash(v4(0x0a000000 + flow, 0x0a000002), UDP, 1024, 2152));
        assert_spread(|flow| hash(v4(0x0a000001, 0x0a000000 + flow), UDP, 0, 0));
        assert_spread(|flow| {
            hash(v4(0x0a000000 + (flow >> 8), 0x0a010000 + (flow & 255)), UDP, 0, 0)
        });
        let net = 0x2001_0db8_u128 << 96;
        assert_spread(|flow| hash(v6(net | u128::from(flow), net | 2), UDP, 1024, 2152));
        assert_spread(|flow| hash(v6(net | 1, net | u128::from(flow) << 64), UDP, 1024, 2152));
        assert_spread(|flow| hash(v6(net | 1, net | 2), UDP, flow as u16, 2152));
        assert_spread(|flow| {
            let [.., a, b] = flow.to_be_bytes();
            hash_macs(MacAddr([2, 0, 0, 0, a, b]), MacAddr([2, 0, 0, 0, 0, 1]))
        });
    }

    #[test]
    fn hash_differs_by_direction_and_protocol() {
        let forward = hash(v4(1, 2), Some(IpProtocol::UDP), 3, 4);
        assert_ne!(forward, hash(v4(2, 1), Some(IpProtocol::UDP), 4, 3));
        assert_ne!(forward, hash(v4(1, 2), Some(IpProtocol::TCP), 3, 4));
        let v6_forward = hash(v6(1, 2), Some(IpProtocol::UDP), 3, 4);
        assert_ne!(v6_forward, hash(v6(2, 1), Some(IpProtocol::UDP), 3, 4));
    }
}
