//! `tcp_mss`: lowers the MSS of TCP connections so that their segments fit the tunnel.

use xdpfwd_wire::{Fragment, Headers, IpProtocol, tcp};

/// Lowers the maximum segment size in a TCP SYN or SYN-ACK to `max_mss` (RFC 9293, 3.7.1), and
/// returns whether it changed. Does not change a SYN without an MSS (the default is 536 or 1220
/// bytes), other segments, later fragments, and segments with malformed options.
///
/// `headers` are those of the frame, or of a packet inside it.
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

    /// Returns a frame with a segment with these flags and an MSS of 1460, and the offset of the
    /// MSS.
    fn frame(v6: bool, tag: bool, flags: u8) -> (Vec<u8>, usize) {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        if tag {
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
        frame.extend([0x55; 6]); // padding
        (frame, l4 + 22)
    }

    fn addresses(frame: &[u8]) -> Addresses {
        Headers::parse(frame).addresses(frame).unwrap()
    }

    fn checksum_is_right(frame: &[u8]) -> bool {
        let headers = Headers::parse(frame);
        tcp::Packet::new_checked(headers.l4(frame)).unwrap().verify_checksum(addresses(frame))
    }

    #[test]
    fn clamp_changes_only_syns() {
        for (v6, tag) in [(false, false), (false, true), (true, false), (true, true)] {
            for flags in 0..=255 {
                let (before, at) = frame(v6, tag, flags);
                let mut after = before.clone();
                let headers = Headers::parse(&before);
                let is_syn = flags & 2 != 0;
                assert_eq!(clamp(&mut after, &headers, 1300), is_syn, "{flags:#x}");
                assert!(checksum_is_right(&after));
                if is_syn {
                    assert_eq!(after[at..at + 2], [0x05, 0x14]);
                    after[at..at + 2].copy_from_slice(&before[at..at + 2]);
                    after[at - 6..at - 4].copy_from_slice(&before[at - 6..at - 4]);
                }
                assert_eq!(after, before);
            }
        }
    }

    #[test]
    fn clamp_keeps_smaller_mss() {
        let (before, _) = frame(false, false, 2);
        let mut after = before.clone();
        assert!(!clamp(&mut after, &Headers::parse(&before), 1460));
        assert_eq!(after, before);
        assert!(clamp(&mut after, &Headers::parse(&before), 1459));
    }

    #[test]
    fn clamp_changes_only_first_fragment() {
        let (mut frame, at) = frame(false, false, 2);
        for (field, clamped) in [([0x20, 0], true), ([0x20, 1], false), ([0, 1], false)] {
            frame[20..22].copy_from_slice(&field);
            frame[at..at + 2].copy_from_slice(&[0x05, 0xb4]);
            let headers = Headers::parse(&frame);
            assert_eq!(clamp(&mut frame, &headers, 1300), clamped, "{field:?}");
        }
    }

    #[test]
    fn clamp_changes_only_tcp() {
        let (mut frame, _) = frame(false, false, 2);
        frame[23] = 253;
        let headers = Headers::parse(&frame);
        assert!(!clamp(&mut frame, &headers, 1300));
    }

    proptest! {
        /// Random bytes after the ports, and headers of the truncated or the whole frame: no panic,
        /// and the result reports changes correctly.
        #[test]
        fn clamp_of_random_bytes_does_not_panic(
            l4 in prop::collection::vec(any::<u8>(), 0..90),
            shape: [bool; 2],
            cut in 0usize..200,
            max_mss: u16,
        ) {
            let (mut bytes, at) = frame(shape[0], shape[1], 2);
            let headers = Headers::parse(&bytes);
            bytes.splice(at - 10.., l4);
            bytes.truncate(cut);
            for headers in [headers, Headers::parse(&bytes)] {
                let mut after = bytes.clone();
                let clamped = clamp(&mut after, &headers, max_mss);
                let changed =
                    bytes.iter().zip(&after).filter(|(before, after)| before != after).count();
                prop_assert_eq!(clamped, changed > 0);
                prop_assert_eq!(after.len(), bytes.len());
            }
        }

        #[test]
        fn clamp_keeps_checksum_as_valid_as_it_was(
            mss: u16,
            max_mss: u16,
            shape: [bool; 2],
            error: u16,
        ) {
            let (mut before, at) = frame(shape[0], shape[1], 2);
            before[at..at + 2].copy_from_slice(&mss.to_be_bytes());
            let addresses = addresses(&before);
            let end = usize::from(Headers::parse(&before).l3_end);
            tcp::Packet::new_checked(&mut before[at - 22..end]).unwrap().fill_checksum(addresses);
            let right = u16::from_be_bytes([before[at - 6], before[at - 5]]);
            before[at - 6..at - 4].copy_from_slice(&(right ^ error).to_be_bytes());
            let was_right = checksum_is_right(&before);
            let mut after = before.clone();
            prop_assert_eq!(clamp(&mut after, &Headers::parse(&before), max_mss), mss > max_mss);
            prop_assert_eq!(checksum_is_right(&after), was_right);
        }
    }
}
