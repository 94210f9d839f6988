//! `tcp_mss`: lowers the MSS of TCP connections, so that their segments fit the tunnel.

use xdpfwd_wire::{Fragment, Headers, IpProtocol, tcp};

/// Lowers the maximum segment size in a TCP SYN or SYN-ACK to at most `max_mss` (RFC 9293, 3.7.1).
/// Returns whether the segment changed. `headers` are those of the frame, or of a packet in it.
///
/// A SYN without the MSS option stays unchanged: its MSS is the default of 536 or 1220 bytes. Later
/// fragments and segments with malformed options stay unchanged, too.
pub(super) fn clamp(frame: &mut [u8], headers: &Headers, max_mss: u16) -> bool {
    if headers.protocol != Some(IpProtocol::TCP) || headers.fragment == Fragment::Later {
        return false;
    }
    let l4 = usize::from(headers.l4_offset)..usize::from(headers.l3_end);
    let Ok(mut segment) = tcp::Packet::new_checked(frame.get_mut(l4).unwrap_or_default()) else {
        return false;
    };
    segment.flags().contains(tcp::Flags::SYN) && segment.lower_mss(max_mss).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use xdpfwd_wire::{Addresses, ipv4, ipv6};

    const SYN: u8 = 2;

    /// Returns a frame with an MSS of 1460, and the offset of the MSS.
    fn frame(v6: bool, tagged: bool, flags: u8) -> (Vec<u8>, usize) {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        if tagged {
            frame.extend([0x81, 0, 0, 7]);
        }
        frame.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
        let l3 = frame.len();
        if v6 {
            frame.resize(l3 + ipv6::HEADER_LEN, 0);
            let repr = ipv6::Repr {
                next_header: IpProtocol::TCP,
                payload_len: 24,
                ..ipv6::Repr::default()
            };
            repr.emit(&mut frame[l3..]).unwrap();
        } else {
            frame.resize(l3 + ipv4::HEADER_LEN, 0);
            let repr =
                ipv4::Repr { protocol: IpProtocol::TCP, payload_len: 24, ..ipv4::Repr::default() };
            repr.emit(&mut frame[l3..]).unwrap();
        }
        let l4 = frame.len();
        frame.extend([
            0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0x60, flags, 16, 0, 0, 0, 0, 0, 2, 4, 0x05, 0xb4,
        ]);
        let addresses = addresses(&frame);
        tcp::Packet::new_checked(&mut frame[l4..]).unwrap().fill_checksum(addresses);
        frame.extend([0x55; 6]); // Ethernet padding
        (frame, l4 + 22)
    }

    /// Returns [`frame`] of a SYN over IPv4, without a VLAN tag.
    fn ipv4_syn() -> (Vec<u8>, usize) {
        let (v6, tagged) = (false, false);
        frame(v6, tagged, SYN)
    }

    fn addresses(frame: &[u8]) -> Addresses {
        Headers::parse(frame).addresses(frame).unwrap()
    }

    fn is_checksum_valid(frame: &[u8]) -> bool {
        let headers = Headers::parse(frame);
        tcp::Packet::new_checked(headers.l4(frame)).unwrap().verify_checksum(addresses(frame))
    }

    #[test]
    fn clamp_changes_only_syns() {
        for (v6, tagged) in [(false, false), (false, true), (true, false), (true, true)] {
            for flags in 0..=255 {
                let (before, mss_offset) = frame(v6, tagged, flags);
                let mut after = before.clone();
                let headers = Headers::parse(&before);
                let is_syn = flags & SYN != 0;
                assert_eq!(clamp(&mut after, &headers, 1300), is_syn, "{flags:#x}");
                assert!(is_checksum_valid(&after));
                if is_syn {
                    assert_eq!(after[mss_offset..mss_offset + 2], [0x05, 0x14]);
                    after[mss_offset..mss_offset + 2]
                        .copy_from_slice(&before[mss_offset..mss_offset + 2]);
                    after[mss_offset - 6..mss_offset - 4]
                        .copy_from_slice(&before[mss_offset - 6..mss_offset - 4]);
                }
                assert_eq!(after, before);
            }
        }
    }

    #[test]
    fn clamp_lowers_only_mss_above_maximum() {
        let (before, _) = ipv4_syn();
        let mut after = before.clone();
        assert!(!clamp(&mut after, &Headers::parse(&before), 1460));
        assert_eq!(after, before);
        assert!(clamp(&mut after, &Headers::parse(&before), 1459));
    }

    #[test]
    fn clamp_changes_only_first_fragment() {
        let (mut frame, mss_offset) = ipv4_syn();
        for (fragment_field, is_clamped) in [([0x20, 0], true), ([0x20, 1], false), ([0, 1], false)]
        {
            frame[20..22].copy_from_slice(&fragment_field);
            frame[mss_offset..mss_offset + 2].copy_from_slice(&[0x05, 0xb4]);
            let headers = Headers::parse(&frame);
            assert_eq!(clamp(&mut frame, &headers, 1300), is_clamped, "{fragment_field:?}");
        }
    }

    #[test]
    fn clamp_changes_only_tcp() {
        let (mut frame, _) = ipv4_syn();
        frame[23] = 253; // the IPv4 protocol, for experiments
        let headers = Headers::parse(&frame);
        assert!(!clamp(&mut frame, &headers, 1300));
    }

    proptest! {
        /// Replaces the bytes from the data offset field of the TCP header to the frame's end by
        /// random bytes, truncates the frame, and calls `clamp` with the headers of the original
        /// and the changed frame.
        #[test]
        fn clamp_of_random_bytes_returns_whether_it_changed_the_frame(
            tcp_end in prop::collection::vec(any::<u8>(), 0..90),
            v6: bool,
            tagged: bool,
            len in 0usize..200,
            max_mss: u16,
        ) {
            let (mut bytes, mss_offset) = frame(v6, tagged, SYN);
            let headers = Headers::parse(&bytes);
            bytes.splice(mss_offset - 10.., tcp_end);
            bytes.truncate(len);
            for headers in [headers, Headers::parse(&bytes)] {
                let mut after = bytes.clone();
                let is_clamped = clamp(&mut after, &headers, max_mss);
                let changed =
                    bytes.iter().zip(&after).filter(|(before, after)| before != after).count();
                prop_assert_eq!(is_clamped, changed > 0);
                prop_assert_eq!(after.len(), bytes.len());
            }
        }

        #[test]
        fn clamp_does_not_change_whether_checksum_is_valid(
            mss: u16,
            max_mss: u16,
            v6: bool,
            tagged: bool,
            error: u16,
        ) {
            let (mut before, mss_offset) = frame(v6, tagged, SYN);
            before[mss_offset..mss_offset + 2].copy_from_slice(&mss.to_be_bytes());
            let addresses = addresses(&before);
            let end = usize::from(Headers::parse(&before).l3_end);
            let (l4, checksum) = (mss_offset - 22, mss_offset - 6..mss_offset - 4);
            tcp::Packet::new_checked(&mut before[l4..end]).unwrap().fill_checksum(addresses);
            let valid = u16::from_be_bytes(before[checksum.clone()].try_into().unwrap());
            before[checksum].copy_from_slice(&(valid ^ error).to_be_bytes());
            let was_valid = is_checksum_valid(&before);
            let mut after = before.clone();
            prop_assert_eq!(clamp(&mut after, &Headers::parse(&before), max_mss), mss > max_mss);
            prop_assert_eq!(is_checksum_valid(&after), was_valid);
        }
    }
}
