//! The VLAN tag that the kernel removes before a packet socket receives a packet.

use xdpfwd_xsk::{Frame, NoRoom};

use crate::abi::AuxData;

/// The EtherType of the tag if the kernel does not report it.
const ETH_P_8021Q: u16 = 0x8100;

/// Length of both MAC addresses in bytes.
const ADDRESSES_LEN: usize = 12;

/// Returns the removed tag, if any, as it was on the wire.
#[inline]
pub(crate) fn removed_tag(aux: &AuxData) -> Option<[u8; 4]> {
    tag(aux.tp_status, aux.tp_vlan_tci, aux.tp_vlan_tpid)
}

/// Returns the tag that the fields of a packet's header describe.
#[inline]
pub(crate) fn tag(status: u32, tci: u16, tpid: u16) -> Option<[u8; 4]> {
    if status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let tpid = if status & libc::TP_STATUS_VLAN_TPID_VALID == 0 { ETH_P_8021Q } else { tpid };
    let ([a, b], [c, d]) = (tpid.to_be_bytes(), tci.to_be_bytes());
    Some([a, b, c, d])
}

/// Inserts a tag after the MAC addresses, which move 4 bytes into the headroom.
#[inline]
pub(crate) fn insert_tag(frame: &mut Frame, tag: [u8; 4]) -> Result<(), NoRoom> {
    frame.prepend(tag.len())?;
    let addresses = tag.len()..(tag.len() + ADDRESSES_LEN).min(frame.len());
    frame.copy_within(addresses, 0);
    if let Some(field) = frame.get_mut(ADDRESSES_LEN..ADDRESSES_LEN + tag.len()) {
        field.copy_from_slice(&tag);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use xdpfwd_xsk::{HugePages, Umem, UmemConfig};

    use super::*;

    fn aux(tp_status: u32, tp_vlan_tci: u16, tp_vlan_tpid: u16) -> AuxData {
        AuxData {
            tp_status,
            tp_len: 0,
            tp_snaplen: 0,
            tp_mac: 0,
            tp_net: 0,
            tp_vlan_tci,
            tp_vlan_tpid,
        }
    }

    #[test]
    fn removed_tag_is_read_from_auxdata() {
        let (tci_only, tci_and_tpid) = (
            libc::TP_STATUS_VLAN_VALID,
            libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_VLAN_TPID_VALID,
        );
        assert_eq!(removed_tag(&aux(0, 100, 0x8100)), None);
        assert_eq!(
            removed_tag(&aux(tci_only, 0xe064, 0)),
            Some([0x81, 0x00, 0xe0, 0x64]),
            "priority 7, VLAN 100"
        );
        assert_eq!(removed_tag(&aux(tci_and_tpid, 200, 0x88a8)), Some([0x88, 0xa8, 0x00, 0xc8]));
        assert_eq!(
            removed_tag(&aux(tci_only, 0, 0)),
            Some([0x81, 0x00, 0, 0]),
            "a tag with TCI 0 is still a tag"
        );
    }

    #[test]
    fn insert_tag_writes_after_mac_addresses() {
        let config =
            UmemConfig { frames: 256, huge_pages: HugePages::Off, ..UmemConfig::default() };
        let (_umem, mut pool) = Umem::new(&config).unwrap();
        let mut frame = pool.alloc().unwrap();
        let packet: Vec<u8> = (0..60).collect();
        frame.append(60).unwrap().copy_from_slice(&packet);
        insert_tag(&mut frame, [0x81, 0, 0, 100]).unwrap();
        assert_eq!(frame[..], [&packet[..12], &[0x81, 0, 0, 100], &packet[12..]].concat());
        assert_eq!(frame.headroom(), 252); // 256 before
        pool.free(frame).unwrap();
    }
}
