//! Explicit congestion notification (ECN) in tunnels: the normal mode of RFC 6040, which replaces
//! section 5.1.2 of RFC 4301.

/// Not ECN-capable.
const NOT_ECT: u8 = 0b00;
/// ECN-capable, ECT(1).
const ECT_1: u8 = 0b01;
/// Congestion experienced.
const CE: u8 = 0b11;
/// ECN in a TOS or traffic class byte.
const MASK: u8 = 0b11;

/// Returns the ECN field for the outer header: that of the inner header (RFC 6040, section 4.1).
/// `inner` is its TOS or traffic class byte; all bits except ECN are ignored.
pub const fn outer(inner: u8) -> u8 {
    inner & MASK
}

/// Returns the ECN field after decapsulation (RFC 6040, section 4.2, figure 4), or `None` if the
/// outer header is CE and the inner Not-ECT: drop the packet, because its sender would not react to
/// CE. The parameters are TOS or traffic class bytes; all bits except ECN are ignored.
pub const fn decapsulated(inner: u8, outer: u8) -> Option<u8> {
    match (inner & MASK, outer & MASK) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (CE, _) | (_, CE) => Some(CE),
        (_, ECT_1) => Some(ECT_1),
        (inner, _) => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_and_decapsulated_ecn_match_rfc_6040() {
        const ECT_0: u8 = 0b10;
        let outers = [NOT_ECT, ECT_0, ECT_1, CE];
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE); 4]),
        ];
        for (inner, row) in table {
            assert_eq!(outer(inner), inner);
            for (outer, expected) in outers.into_iter().zip(row) {
                assert_eq!(decapsulated(inner, outer), expected, "{inner:02b} in {outer:02b}");
            }
        }
        assert_eq!(
            decapsulated(0b1111_1110, 0b1111_1100),
            Some(ECT_0),
            "bits above the lower two were not ignored"
        );
    }
}
