//! The content of the PDU session container (3GPP TS 38.415, clause 5.5.2).

use crate::error::Error;

/// The content of a PDU session container, a GTP-U extension header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PduSessionContainer {
    /// DL PDU session information, PDU type 0: towards the access network.
    Downlink(DownlinkInformation),
    /// UL PDU session information, PDU type 1: towards the UPF.
    Uplink(UplinkInformation),
}

/// DL PDU session information (TS 38.415, clause 5.5.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DownlinkInformation {
    /// QoS flow identifier, 0 to 63.
    pub qfi: u8,
    /// Reflective QoS indicator.
    pub reflective_qos: bool,
    /// Paging policy indicator, 0 to 7. `Some` with the flag PPP.
    pub paging_policy: Option<u8>,
    /// DL sending time stamp, in NTP's 64-bit format. `Some` with the flag QMP.
    pub sending_timestamp: Option<u64>,
    /// DL QFI sequence number, 24 bits. `Some` with the flag SNP.
    pub sequence_number: Option<u32>,
    /// DL MBS QFI sequence number, 32 bits. `Some` with the flag MSNP.
    pub mbs_sequence_number: Option<u32>,
}

/// UL PDU session information (TS 38.415, clause 5.5.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct UplinkInformation {
    /// QoS flow identifier, 0 to 63.
    pub qfi: u8,
    /// Time stamps of QoS monitoring. `Some` with the flag QMP.
    pub timestamps: Option<UplinkTimestamps>,
    /// DL delay result.
    pub downlink_delay: Option<u32>,
    /// UL delay result.
    pub uplink_delay: Option<u32>,
    /// UL QFI sequence number, 24 bits. `Some` with the flag SNP.
    pub sequence_number: Option<u32>,
    /// N3/N9 delay result.
    pub n3_n9_delay: Option<u32>,
    /// Whether the UL delay result includes the UE's PDCP delay. `Some` with New IE Flag 0.
    pub includes_pdcp_delay: Option<bool>,
    /// UL congestion information. `Some` with New IE Flag 1.
    pub uplink_congestion: Option<u16>,
    /// DL congestion information. `Some` with New IE Flag 2.
    pub downlink_congestion: Option<u16>,
}

/// Time stamps of QoS monitoring in an uplink packet, in NTP's 64-bit format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct UplinkTimestamps {
    /// DL sending time stamp, repeated from the downlink packet.
    pub downlink_sending: u64,
    /// DL received time stamp.
    pub downlink_received: u64,
    /// UL sending time stamp.
    pub uplink_sending: u64,
}

/// PDU types, in the upper four bits of the first byte.
const DOWNLINK: u8 = 0;
const UPLINK: u8 = 1;
/// "QoS monitoring packet", in the first byte.
const QMP: u8 = 0x08;

/// Flags in the first byte: SNP, MSNP. In the second: PPP, RQI.
mod downlink {
    pub(super) const SNP: u8 = 0x04;
    pub(super) const MSNP: u8 = 0x02;
    pub(super) const PPP: u8 = 0x80;
    pub(super) const RQI: u8 = 0x40;
}

/// Flags: DL_DELAY, UL_DELAY and SNP are in the first byte, N3_N9_DELAY and NEW_IE in the second.
mod uplink {
    pub(super) const DL_DELAY: u8 = 0x04;
    pub(super) const UL_DELAY: u8 = 0x02;
    pub(super) const SNP: u8 = 0x01;
    pub(super) const N3_N9_DELAY: u8 = 0x80;
    pub(super) const NEW_IE: u8 = 0x40;
    // New IE flags, in a separate byte if NEW_IE is set.
    pub(super) const PDCP_DELAY: u8 = 0x01;
    pub(super) const UL_CONGESTION: u8 = 0x02;
    pub(super) const DL_CONGESTION: u8 = 0x04;
}

/// The QoS flow identifier in the second byte.
const QFI_MASK: u8 = 0x3f;

impl PduSessionContainer {
    /// Creates DL PDU session information with this QFI, 0 to 63, without optional fields.
    #[inline]
    pub fn downlink(qfi: u8) -> Self {
        Self::Downlink(DownlinkInformation { qfi, ..DownlinkInformation::default() })
    }

    /// Creates UL PDU session information with this QFI, 0 to 63, without optional fields.
    #[inline]
    pub fn uplink(qfi: u8) -> Self {
        Self::Uplink(UplinkInformation { qfi, ..UplinkInformation::default() })
    }

    /// The maximum length of the content with padding.
    pub const MAX_CONTENT_LEN: usize = 50;

    /// Parses the content of the extension header. Ignores spare bits, padding and fields of later
    /// releases.
    ///
    /// Returns [`Error::Truncated`] if `content` ends within a field whose flag is set, and
    /// [`Error::Malformed`] if the PDU type is neither 0 nor 1.
    pub fn parse(content: &[u8]) -> Result<PduSessionContainer, Error> {
        let mut reader = Reader { rest: content };
        let [first_byte, second_byte] = reader.take()?;
        match first_byte >> 4 {
            DOWNLINK => {
                DownlinkInformation::parse(first_byte, second_byte, reader).map(Self::Downlink)
            }
            UPLINK => UplinkInformation::parse(first_byte, second_byte, reader).map(Self::Uplink),
            _ => Err(Error::Malformed),
        }
    }

    /// Returns the QoS flow identifier, 0 to 63.
    #[inline]
    pub const fn qfi(&self) -> u8 {
        match self {
            Self::Downlink(information) => information.qfi,
            Self::Uplink(information) => information.qfi,
        }
    }

    /// Returns the length with padding: two less than a multiple of 4 (TS 38.415, clause 5.5.3).
    #[inline]
    pub const fn content_len(&self) -> usize {
        let len = match self {
            Self::Downlink(information) => information.len(),
            Self::Uplink(information) => information.len(),
        };
        (len + 2).next_multiple_of(4) - 2
    }

    /// Writes the content, [`content_len`](Self::content_len) bytes, to the front of `buffer`.
    ///
    /// Bits above the width of a field are ignored. Returns [`Error::Truncated`] if `buffer` is too
    /// short.
    pub fn emit_content(&self, buffer: &mut [u8]) -> Result<(), Error> {
        let content = buffer.get_mut(..self.content_len()).ok_or(Error::Truncated)?;
        let mut writer = Writer { rest: content };
        match self {
            Self::Downlink(information) => information.emit(&mut writer)?,
            Self::Uplink(information) => information.emit(&mut writer)?,
        }
        writer.rest.fill(0);
        Ok(())
    }
}

impl DownlinkInformation {
    fn parse(
        first_byte: u8,
        second_byte: u8,
        mut reader: Reader<'_>,
    ) -> Result<DownlinkInformation, Error> {
        Ok(DownlinkInformation {
            qfi: second_byte & QFI_MASK,
            reflective_qos: second_byte & downlink::RQI != 0,
            paging_policy: reader
                .take_if(second_byte & downlink::PPP)?
                .map(|[byte]: [u8; 1]| byte >> 5),
            sending_timestamp: reader.take_if(first_byte & QMP)?.map(u64::from_be_bytes),
            sequence_number: reader.take_if(first_byte & downlink::SNP)?.map(from_24_bits),
            mbs_sequence_number: reader
                .take_if(first_byte & downlink::MSNP)?
                .map(u32::from_be_bytes),
        })
    }

    /// Returns the length without padding.
    const fn len(&self) -> usize {
        2 + if self.paging_policy.is_some() { 1 } else { 0 }
            + if self.sending_timestamp.is_some() { 8 } else { 0 }
            + if self.sequence_number.is_some() { 3 } else { 0 }
            + if self.mbs_sequence_number.is_some() { 4 } else { 0 }
    }

    fn emit(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
        let first_byte = DOWNLINK << 4
            | flag(self.sending_timestamp.is_some(), QMP)
            | flag(self.sequence_number.is_some(), downlink::SNP)
            | flag(self.mbs_sequence_number.is_some(), downlink::MSNP);
        let second_byte = self.qfi & QFI_MASK
            | flag(self.paging_policy.is_some(), downlink::PPP)
            | flag(self.reflective_qos, downlink::RQI);
        writer.put([first_byte, second_byte])?;
        writer.put_if(self.paging_policy.map(|policy| [policy << 5]))?;
        writer.put_if(self.sending_timestamp.map(u64::to_be_bytes))?;
        writer.put_if(self.sequence_number.map(to_24_bits))?;
        writer.put_if(self.mbs_sequence_number.map(u32::to_be_bytes))
    }
}

impl UplinkInformation {
    fn parse(
        first_byte: u8,
        second_byte: u8,
        mut reader: Reader<'_>,
    ) -> Result<UplinkInformation, Error> {
        let timestamps = match first_byte & QMP {
            0 => None,
            _ => Some(UplinkTimestamps {
                downlink_sending: u64::from_be_bytes(reader.take()?),
                downlink_received: u64::from_be_bytes(reader.take()?),
                uplink_sending: u64::from_be_bytes(reader.take()?),
            }),
        };
        let downlink_delay = reader.take_if(first_byte & uplink::DL_DELAY)?.map(u32::from_be_bytes);
        let uplink_delay = reader.take_if(first_byte & uplink::UL_DELAY)?.map(u32::from_be_bytes);
        let sequence_number = reader.take_if(first_byte & uplink::SNP)?.map(from_24_bits);
        let n3_n9_delay =
            reader.take_if(second_byte & uplink::N3_N9_DELAY)?.map(u32::from_be_bytes);
        let new_ie_flags =
            reader.take_if(second_byte & uplink::NEW_IE)?.map_or(0, |[flags]: [u8; 1]| flags);
        let pdcp_delay = reader.take_if(new_ie_flags & uplink::PDCP_DELAY)?;
        Ok(UplinkInformation {
            qfi: second_byte & QFI_MASK,
            timestamps,
            downlink_delay,
            uplink_delay,
            sequence_number,
            n3_n9_delay,
            includes_pdcp_delay: pdcp_delay.map(|[byte]: [u8; 1]| byte & 1 != 0),
            uplink_congestion: reader
                .take_if(new_ie_flags & uplink::UL_CONGESTION)?
                .map(u16::from_be_bytes),
            downlink_congestion: reader
                .take_if(new_ie_flags & uplink::DL_CONGESTION)?
                .map(u16::from_be_bytes),
        })
    }

    const fn new_ie_flags(&self) -> u8 {
        flag(self.includes_pdcp_delay.is_some(), uplink::PDCP_DELAY)
            | flag(self.uplink_congestion.is_some(), uplink::UL_CONGESTION)
            | flag(self.downlink_congestion.is_some(), uplink::DL_CONGESTION)
    }

    /// Returns the length without padding.
    const fn len(&self) -> usize {
        2 + if self.timestamps.is_some() { 24 } else { 0 }
            + if self.downlink_delay.is_some() { 4 } else { 0 }
            + if self.uplink_delay.is_some() { 4 } else { 0 }
            + if self.sequence_number.is_some() { 3 } else { 0 }
            + if self.n3_n9_delay.is_some() { 4 } else { 0 }
            + if self.new_ie_flags() != 0 { 1 } else { 0 }
            + if self.includes_pdcp_delay.is_some() { 1 } else { 0 }
            + if self.uplink_congestion.is_some() { 2 } else { 0 }
            + if self.downlink_congestion.is_some() { 2 } else { 0 }
    }

    fn emit(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
        let new_ie_flags = self.new_ie_flags();
        let first_byte = UPLINK << 4
            | flag(self.timestamps.is_some(), QMP)
            | flag(self.downlink_delay.is_some(), uplink::DL_DELAY)
            | flag(self.uplink_delay.is_some(), uplink::UL_DELAY)
            | flag(self.sequence_number.is_some(), uplink::SNP);
        let second_byte = self.qfi & QFI_MASK
            | flag(self.n3_n9_delay.is_some(), uplink::N3_N9_DELAY)
            | flag(new_ie_flags != 0, uplink::NEW_IE);
        writer.put([first_byte, second_byte])?;
        if let Some(timestamps) = self.timestamps {
            writer.put(timestamps.downlink_sending.to_be_bytes())?;
            writer.put(timestamps.downlink_received.to_be_bytes())?;
            writer.put(timestamps.uplink_sending.to_be_bytes())?;
        }
        writer.put_if(self.downlink_delay.map(u32::to_be_bytes))?;
        writer.put_if(self.uplink_delay.map(u32::to_be_bytes))?;
        writer.put_if(self.sequence_number.map(to_24_bits))?;
        writer.put_if(self.n3_n9_delay.map(u32::to_be_bytes))?;
        writer.put_if((new_ie_flags != 0).then_some([new_ie_flags]))?;
        writer.put_if(self.includes_pdcp_delay.map(|includes| [u8::from(includes)]))?;
        writer.put_if(self.uplink_congestion.map(u16::to_be_bytes))?;
        writer.put_if(self.downlink_congestion.map(u16::to_be_bytes))
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (field, rest) = self.rest.split_first_chunk().ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(*field)
    }

    fn take_if<const N: usize>(&mut self, flag: u8) -> Result<Option<[u8; N]>, Error> {
        if flag == 0 { Ok(None) } else { self.take().map(Some) }
    }
}

struct Writer<'a> {
    rest: &'a mut [u8],
}

impl Writer<'_> {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Result<(), Error> {
        let rest = core::mem::take(&mut self.rest);
        let (field, rest) = rest.split_first_chunk_mut().ok_or(Error::Truncated)?;
        *field = bytes;
        self.rest = rest;
        Ok(())
    }

    fn put_if<const N: usize>(&mut self, bytes: Option<[u8; N]>) -> Result<(), Error> {
        bytes.map_or(Ok(()), |bytes| self.put(bytes))
    }
}

const fn flag(is_set: bool, flag: u8) -> u8 {
    if is_set { flag } else { 0 }
}

fn from_24_bits([a, b, c]: [u8; 3]) -> u32 {
    u32::from_be_bytes([0, a, b, c])
}

fn to_24_bits(number: u32) -> [u8; 3] {
    let [_, bytes @ ..] = number.to_be_bytes();
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn emitted(container: PduSessionContainer) -> Vec<u8> {
        let mut content = vec![0xee; container.content_len()];
        container.emit_content(&mut content).unwrap();
        let shorter = content.len() - 1;
        assert_eq!(container.emit_content(&mut vec![0; shorter]), Err(Error::Truncated));
        content
    }

    #[test]
    fn downlink_fields_are_emitted_in_specified_order() {
        let information = DownlinkInformation { qfi: 9, ..DownlinkInformation::default() };
        assert_eq!(emitted(PduSessionContainer::Downlink(information)), [0x00, 0x09]);
        let information = DownlinkInformation {
            qfi: 5,
            reflective_qos: true,
            paging_policy: Some(3),
            sending_timestamp: Some(0x0102_0304_0506_0708),
            sequence_number: Some(0x0a_0b0c),
            mbs_sequence_number: Some(0x1122_3344),
        };
        assert_eq!(
            emitted(PduSessionContainer::Downlink(information)),
            [0x0e, 0xc5, 0x60, 1, 2, 3, 4, 5, 6, 7, 8, 0x0a, 0x0b, 0x0c, 0x11, 0x22, 0x33, 0x44]
        );
    }

    #[test]
    fn uplink_fields_are_emitted_in_specified_order() {
        let information = UplinkInformation { qfi: 63, ..UplinkInformation::default() };
        assert_eq!(emitted(PduSessionContainer::Uplink(information)), [0x10, 0x3f]);
        let information = UplinkInformation {
            qfi: 7,
            timestamps: Some(UplinkTimestamps {
                downlink_sending: 1,
                downlink_received: 2,
                uplink_sending: 3,
            }),
            downlink_delay: Some(4),
            uplink_delay: Some(5),
            sequence_number: Some(6),
            n3_n9_delay: Some(7),
            includes_pdcp_delay: Some(true),
            uplink_congestion: Some(9574),
            downlink_congestion: Some(1000),
        };
        let container = PduSessionContainer::Uplink(information);
        assert_eq!(container.content_len(), PduSessionContainer::MAX_CONTENT_LEN);
        let content = emitted(container);
        assert_eq!(content[..10], [0x1f, 0xc7, 0, 0, 0, 0, 0, 0, 0, 1]);
        let delays = [0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 6, 0, 0, 0, 7];
        assert_eq!(content[26..41], delays);
        assert_eq!(content[41..], [7, 1, 0x25, 0x66, 0x03, 0xe8, 0, 0, 0]);
    }

    #[test]
    fn content_shorter_than_its_fields_is_truncated() {
        assert_eq!(PduSessionContainer::parse(&[0x00]), Err(Error::Truncated));
        assert_eq!(PduSessionContainer::parse(&[0x08, 9, 0, 0, 0, 0]), Err(Error::Truncated));
        assert_eq!(PduSessionContainer::parse(&[0x10, 0x49]), Err(Error::Truncated));
    }

    #[test]
    fn unknown_pdu_type_is_malformed() {
        assert_eq!(PduSessionContainer::parse(&[0x20, 9]), Err(Error::Malformed));
    }

    #[test]
    fn spare_bits_and_padding_are_ignored() {
        let information = DownlinkInformation {
            qfi: 9,
            paging_policy: Some(7),
            ..DownlinkInformation::default()
        };
        let container = PduSessionContainer::parse(&[0x01, 0x89, 0xff, 0xee, 0xee, 0xee]);
        assert_eq!(container, Ok(PduSessionContainer::Downlink(information)));
    }

    /// Generates any container with valid values.
    pub(in crate::gtpu) fn container() -> impl Strategy<Value = PduSessionContainer> {
        let sequence_number = || option::of(0u32..1 << 24);
        let timestamps = any::<(u64, u64, u64)>().prop_map(|(a, b, c)| UplinkTimestamps {
            downlink_sending: a,
            downlink_received: b,
            uplink_sending: c,
        });
        let downlink = (
            (0u8..64, any::<bool>(), option::of(0u8..8)),
            (any::<Option<u64>>(), sequence_number(), any::<Option<u32>>()),
        )
            .prop_map(
                |((qfi, reflective_qos, policy), (timestamp, sequence_number, mbs_number))| {
                    PduSessionContainer::Downlink(DownlinkInformation {
                        qfi,
                        reflective_qos,
                        paging_policy: policy,
                        sending_timestamp: timestamp,
                        sequence_number,
                        mbs_sequence_number: mbs_number,
                    })
                },
            );
        let uplink = (
            (0u8..64, option::of(timestamps), sequence_number()),
            any::<(Option<u32>, Option<u32>, Option<u32>)>(),
            any::<(Option<bool>, Option<u16>, Option<u16>)>(),
        )
            .prop_map(|((qfi, timestamps, sequence_number), delays, new_fields)| {
                PduSessionContainer::Uplink(UplinkInformation {
                    qfi,
                    timestamps,
                    downlink_delay: delays.0,
                    uplink_delay: delays.1,
                    sequence_number,
                    n3_n9_delay: delays.2,
                    includes_pdcp_delay: new_fields.0,
                    uplink_congestion: new_fields.1,
                    downlink_congestion: new_fields.2,
                })
            });
        prop_oneof![downlink, uplink]
    }

    proptest! {
        #[test]
        fn parsed_container_equals_emitted(container in container()) {
            let content = emitted(container);
            prop_assert_eq!((content.len() + 2) % 4, 0);
            prop_assert!(content.len() <= PduSessionContainer::MAX_CONTENT_LEN);
            prop_assert_eq!(PduSessionContainer::parse(&content), Ok(container));
        }

        #[test]
        fn container_of_any_bytes_does_not_panic(content in prop::collection::vec(any::<u8>(), 0..60), pdu_type in 0u8..3) {
            let mut content = content;
            if let Some(byte) = content.first_mut() {
                *byte = pdu_type << 4 | *byte & 0x0f;
            }
            if let Ok(container) = PduSessionContainer::parse(&content) {
                prop_assert_eq!(PduSessionContainer::parse(&emitted(container)), Ok(container));
            }
        }
    }
}
