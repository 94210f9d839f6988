//! Test cases, and a random number generator.

use core::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};
use xdpfwd_wire::{Addresses, MacAddr};

/// Bytes, and the layers that scapy must read in them.
pub(super) struct Case {
    pub(super) bytes: Vec<u8>,
    pub(super) layers: Vec<Value>,
}

impl Case {
    pub(super) fn raw(bytes: Vec<u8>) -> Case {
        let layers = match bytes.is_empty() {
            true => Vec::new(),
            false => vec![json!({ "layer": "Raw", "load": hex(&bytes) })],
        };
        Case { bytes, layers }
    }

    /// Prepends a header, which scapy must read as a layer with these fields.
    pub(super) fn with_header(self, header: Vec<u8>, fields: Value) -> Case {
        let mut layers = vec![fields];
        layers.extend(self.layers);
        Case { bytes: [header, self.bytes].concat(), layers }
    }
}

/// The random number generator SplitMix64. The field is its state.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns 0 to `limit - 1`.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(super) fn bool(&mut self) -> bool {
        self.below(2) == 0
    }

    pub(super) fn u8(&mut self) -> u8 {
        self.next() as u8
    }

    pub(super) fn u16(&mut self) -> u16 {
        self.next() as u16
    }

    pub(super) fn u32(&mut self) -> u32 {
        self.next() as u32
    }

    /// Returns `None` or a value, with equal probability.
    pub(super) fn option<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.bool().then(|| value(self))
    }

    /// Returns 0 to 39 bytes.
    pub(super) fn data(&mut self) -> Vec<u8> {
        (0..self.below(40)).map(|_| self.u8()).collect()
    }

    /// Returns a port from 40000 to 40999, for which scapy has no application protocol.
    pub(super) fn port(&mut self) -> u16 {
        40_000 + self.below(1000) as u16
    }

    pub(super) fn mac(&mut self) -> MacAddr {
        MacAddr([2, self.u8(), self.u8(), self.u8(), self.u8(), self.u8()])
    }

    pub(super) fn v4(&mut self) -> Ipv4Addr {
        self.u32().into()
    }

    pub(super) fn v6(&mut self) -> Ipv6Addr {
        (u128::from(self.next()) << 64 | u128::from(self.next())).into()
    }

    pub(super) fn addresses(&mut self) -> Addresses {
        if self.bool() {
            Addresses::V4 { source: self.v4(), destination: self.v4() }
        } else {
            Addresses::V6 { source: self.v6(), destination: self.v6() }
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
