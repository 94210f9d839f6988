//! VLAN tags (IEEE 802.1Q-2018, clauses 9.3 to 9.6): customer tags (802.1Q) and service tags
//! (802.1ad, "QinQ").

use core::fmt;
use core::num::NonZeroU16;

use crate::error::Error;
use crate::ethernet::EtherType;
use crate::field::{read_u16, write_u16};

/// Length of a tag: tag control information, and the EtherType of the data after it.
pub const TAG_LEN: usize = field::ETHERTYPE.end;

pub use crate::limits::MAX_TAGS;

/// The 12-bit VLAN identifier of a tag, 0 to 4095.
///
/// 0 marks a priority tag (no VLAN) and 4095 is reserved; both are accepted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VlanId(NonZeroU16);

/// A view of a tag, which begins *after* the EtherType that announces it (see
/// [`EtherType::is_vlan`]), as the payload of a tagged [`ethernet::Frame`](super::ethernet::Frame)
/// does.
#[derive(Debug, Clone, Copy)]
pub struct Tag<T> {
    buffer: T,
}

/// A tag to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Repr {
    /// VLAN identifier.
    pub id: VlanId,
    /// Priority code point, 0 to 7.
    pub priority: u8,
    /// Drop eligible indicator.
    pub drop_eligible: bool,
    /// Type of the payload or of the next tag.
    pub ethertype: EtherType,
}

/// The tags that [`walk`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tags {
    /// VLAN of the first tag.
    pub outer: Option<VlanId>,
    /// VLAN of the second tag.
    pub inner: Option<VlanId>,
    /// Type of the data after the tags. Never a VLAN EtherType.
    pub ethertype: EtherType,
    /// Length of all tags in bytes: 0, 4 or 8.
    pub len: usize,
}

/// Parses the tags at the front of `payload`. `ethertype` is the field before them.
///
/// Returns [`Error::Truncated`] if `payload` ends within a tag, and [`Error::TooManyVlanTags`] for
/// more than [`MAX_TAGS`] tags.
#[inline]
pub fn walk(ethertype: EtherType, payload: &[u8]) -> Result<Tags, Error> {
    let mut ids = [None; MAX_TAGS];
    let mut tags = Tags { outer: None, inner: None, ethertype, len: 0 };
    let mut rest = payload;
    for id in &mut ids {
        if !tags.ethertype.is_vlan() {
            break;
        }
        let tag = Tag::new_checked(rest)?;
        *id = Some(tag.id());
        tags.ethertype = tag.ethertype();
        tags.len += TAG_LEN;
        rest = tag.into_payload();
    }
    if tags.ethertype.is_vlan() {
        return Err(Error::TooManyVlanTags);
    }
    [tags.outer, tags.inner] = ids;
    Ok(tags)
}

impl VlanId {
    /// A bit of every `VlanId`, which is thus never zero: `Option<VlanId>` has only two bytes.
    const PRESENT: u16 = 0x8000;
    const MASK: u16 = 0x0fff;

    /// Returns `None` if `id` exceeds 4095.
    #[inline]
    pub const fn new(id: u16) -> Option<VlanId> {
        if id > Self::MASK { None } else { Some(Self::from_control(id)) }
    }

    /// Returns the number, 0 to 4095.
    #[inline]
    pub const fn get(self) -> u16 {
        self.0.get() & Self::MASK
    }

    /// Returns the identifier in the tag control information. The upper four bits of `control` are
    /// priority and drop eligibility.
    #[inline]
    const fn from_control(control: u16) -> VlanId {
        // `unwrap` would compile to a panic branch.
        match NonZeroU16::new(control & Self::MASK | Self::PRESENT) {
            Some(id) => VlanId(id),
            None => VlanId(NonZeroU16::MIN),
        }
    }
}

impl<T: AsRef<[u8]>> Tag<T> {
    /// Creates a view of `buffer`. Returns [`Error::Truncated`] if `buffer` is shorter than a tag.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self, Error> {
        if buffer.as_ref().len() < TAG_LEN {
            return Err(Error::Truncated);
        }
        Ok(Tag { buffer })
    }

    /// Returns the buffer.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Returns the VLAN identifier.
    #[inline]
    pub fn id(&self) -> VlanId {
        VlanId::from_control(self.control())
    }

    /// Returns the priority code point, 0 to 7.
    #[inline]
    pub fn priority(&self) -> u8 {
        self.buffer.as_ref()[field::PRIORITY] >> 5
    }

    /// Returns the drop eligible indicator.
    #[inline]
    pub fn drop_eligible(&self) -> bool {
        self.buffer.as_ref()[field::PRIORITY] & 0x10 != 0
    }

    /// Returns the type of the data after the tag.
    #[inline]
    pub fn ethertype(&self) -> EtherType {
        EtherType(read_u16(self.buffer.as_ref(), field::ETHERTYPE))
    }

    #[inline]
    fn control(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::CONTROL)
    }
}

impl<'a> Tag<&'a [u8]> {
    /// Returns the bytes after the tag with the buffer's lifetime.
    #[inline]
    pub fn into_payload(self) -> &'a [u8] {
        &self.buffer[TAG_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Tag<T> {
    /// Sets the VLAN identifier.
    #[inline]
    pub fn set_id(&mut self, id: VlanId) {
        let control = self.control() & !VlanId::MASK | id.get();
        write_u16(self.buffer.as_mut(), field::CONTROL, control);
    }

    /// Sets the priority code point to the lower three bits of `priority`.
    #[inline]
    pub fn set_priority(&mut self, priority: u8) {
        let control = self.control() & 0x1fff | u16::from(priority & 0x07) << 13;
        write_u16(self.buffer.as_mut(), field::CONTROL, control);
    }

    /// Sets the drop eligible indicator.
    #[inline]
    pub fn set_drop_eligible(&mut self, drop_eligible: bool) {
        let control = self.control() & 0xefff | u16::from(drop_eligible) << 12;
        write_u16(self.buffer.as_mut(), field::CONTROL, control);
    }

    /// Sets the type of the data after the tag.
    #[inline]
    pub fn set_ethertype(&mut self, ethertype: EtherType) {
        write_u16(self.buffer.as_mut(), field::ETHERTYPE, ethertype.0);
    }
}

impl Repr {
    /// Returns the fields of a tag.
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(tag: &Tag<T>) -> Repr {
        Repr {
            id: tag.id(),
            priority: tag.priority(),
            drop_eligible: tag.drop_eligible(),
            ethertype: tag.ethertype(),
        }
    }

    /// Returns [`TAG_LEN`].
    #[inline]
    pub const fn header_len(&self) -> usize {
        TAG_LEN
    }

    /// Writes the 4 bytes of the tag to the front of `buffer`. In a frame, they follow the
    /// EtherType that announces the tag ([`EtherType::VLAN`] or [`EtherType::SERVICE_VLAN`]).
    ///
    /// Bits of the priority above the lower three are ignored. Returns [`Error::Truncated`] if
    /// `buffer` is too short.
    #[inline]
    pub fn emit(&self, buffer: &mut [u8]) -> Result<(), Error> {
        let mut tag = Tag::new_checked(buffer)?;
        tag.set_id(self.id);
        tag.set_priority(self.priority);
        tag.set_drop_eligible(self.drop_eligible);
        tag.set_ethertype(self.ethertype);
        Ok(())
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl fmt::Debug for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VlanId({})", self.get())
    }
}

mod field {
    use crate::field::Field;

    pub(super) const PRIORITY: usize = 0;
    pub(super) const CONTROL: Field = 0..2;
    pub(super) const ETHERTYPE: Field = 2..4;
}

const _: () = assert!(size_of::<Option<VlanId>>() == 2);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // bytes(Dot1AD(vlan=4095, prio=5, id=1)/Dot1Q(vlan=0, type=0x0800)/b"\xaa")
    const TAGS: [u8; 9] = [0xbf, 0xff, 0x81, 0x00, 0x00, 0x00, 0x08, 0x00, 0xaa];

    fn some_id(id: u16) -> Option<VlanId> {
        Some(VlanId::new(id).unwrap())
    }

    #[test]
    fn tag_accessors_return_fields() {
        let tag = Tag::new_checked(&TAGS[..]).unwrap();
        assert_eq!((tag.id().get(), tag.priority(), tag.drop_eligible()), (4095, 5, true));
        assert_eq!(tag.ethertype(), EtherType::VLAN);
        assert_eq!(tag.into_payload(), &TAGS[4..]);
    }

    #[test]
    fn walk_returns_up_to_two_tags_and_rejects_three() {
        let untagged = walk(EtherType::IPV4, &TAGS).unwrap();
        assert_eq!(untagged, Tags { outer: None, inner: None, ethertype: EtherType::IPV4, len: 0 });
        let single_tagged = walk(EtherType::VLAN, &TAGS[4..]).unwrap();
        assert_eq!(
            single_tagged,
            Tags { outer: some_id(0), inner: None, ethertype: EtherType::IPV4, len: 4 }
        );
        let double_tagged = walk(EtherType::SERVICE_VLAN, &TAGS).unwrap();
        assert_eq!(
            double_tagged,
            Tags { outer: some_id(4095), inner: some_id(0), ethertype: EtherType::IPV4, len: 8 }
        );
        let three_tags = [0, 1, 0x81, 0x00, 0, 2, 0x88, 0xa8, 0, 3, 0x08, 0x00];
        assert_eq!(walk(EtherType::VLAN, &three_tags), Err(Error::TooManyVlanTags));
    }

    #[test]
    fn walk_of_incomplete_tag_returns_truncated() {
        for len in 0..8 {
            assert_eq!(
                walk(EtherType::SERVICE_VLAN, &TAGS[..len]),
                Err(Error::Truncated),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn vlan_id_new_accepts_at_most_4095() {
        assert_eq!(VlanId::new(4096), None);
        assert_eq!(some_id(4095).unwrap().to_string(), "4095");
    }

    proptest! {
        #[test]
        fn walk_of_any_bytes_returns_at_most_their_length(ethertype: u16, bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Ok(tags) = walk(EtherType(ethertype), &bytes) {
                prop_assert!(tags.len <= bytes.len());
                prop_assert!(!tags.ethertype.is_vlan());
                prop_assert_eq!(tags.len, TAG_LEN * (tags.outer.iter().count() + tags.inner.iter().count()));
            }
        }

        #[test]
        fn emit_writes_the_parsed_tag(bytes: [u8; TAG_LEN]) {
            let repr = Repr::parse(&Tag::new_checked(bytes).unwrap());
            let mut emitted = vec![0xee; repr.header_len()];
            repr.emit(&mut emitted).unwrap();
            prop_assert_eq!(&emitted[..], &bytes[..]);
            prop_assert_eq!(Repr::parse(&Tag::new_checked(emitted).unwrap()), repr);
            prop_assert_eq!(repr.emit(&mut [0; TAG_LEN - 1]), Err(Error::Truncated));
        }

        #[test]
        fn setters_and_getters_agree(before: [u8; 4], vid in 0u16..4096, priority in 0u8..8, ethertype: u16) {
            let mut tag = Tag::new_checked(before).unwrap();
            let drop_eligible = tag.drop_eligible();
            tag.set_id(VlanId::new(vid).unwrap());
            tag.set_priority(priority);
            tag.set_ethertype(EtherType(ethertype));
            prop_assert_eq!(tag.id().get(), vid);
            prop_assert_eq!(tag.priority(), priority);
            prop_assert_eq!(tag.ethertype(), EtherType(ethertype));
            prop_assert_eq!(tag.drop_eligible(), drop_eligible);
        }
    }
}
