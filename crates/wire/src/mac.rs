use core::fmt;
use core::str::FromStr;

/// An IEEE 802 MAC address in network order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// Returns whether this is a group address: bit 0 of the first byte is set (IEEE 802-2014,
    /// clause 8.2.2).
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 0x01 != 0
    }

    /// Returns whether this is the broadcast address.
    #[inline]
    pub const fn is_broadcast(self) -> bool {
        matches!(self, MacAddr::BROADCAST)
    }
}

/// Why a text is not a MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseMacAddrError {
    /// The text has this number of groups instead of 6.
    GroupCount(usize),
    /// This group, counted from 1, is not two hexadecimal digits.
    Group(usize),
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = ParseMacAddrError;

    /// Parses six groups of two hexadecimal digits, separated by `:`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let count = text.split(':').count();
        if count != 6 {
            return Err(ParseMacAddrError::GroupCount(count));
        }
        let mut octets = [0; 6];
        for (index, (octet, group)) in octets.iter_mut().zip(text.split(':')).enumerate() {
            *octet = parse_octet(group).ok_or(ParseMacAddrError::Group(index + 1))?;
        }
        Ok(MacAddr(octets))
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for MacAddr {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MacAddrVisitor;
        impl serde::de::Visitor<'_> for MacAddrVisitor {
            type Value = MacAddr;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a MAC address in quotes, like \"02:00:00:00:00:01\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<MacAddr, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(MacAddrVisitor)
    }
}

impl fmt::Display for ParseMacAddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseMacAddrError::GroupCount(1) => f.write_str("found 1 group")?,
            ParseMacAddrError::GroupCount(count) => write!(f, "found {count} groups")?,
            ParseMacAddrError::Group(number) => {
                write!(f, "group {number} is not two hexadecimal digits")?
            }
        }
        f.write_str(
            "; a MAC address is 6 groups of two hexadecimal digits with ':' between, \
             like 02:00:00:00:00:01",
        )
    }
}

impl core::error::Error for ParseMacAddrError {}

/// Parses two hexadecimal digits. `u8::from_str_radix` alone would accept `+1`.
fn parse_octet(group: &str) -> Option<u8> {
    if group.len() != 2 || !group.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(group, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[cfg(feature = "serde")]
    #[test]
    fn mac_address_is_deserialized_from_text() {
        let deserialize =
            |text: &str| serde_json::from_str::<MacAddr>(text).map_err(|error| error.to_string());
        assert_eq!(deserialize("\"02:00:00:00:00:01\""), Ok(MacAddr([2, 0, 0, 0, 0, 1])));
        assert!(
            deserialize("\"02:00:00:00:00\"")
                .unwrap_err()
                .starts_with("found 5 groups; a MAC address is 6 groups")
        );
        assert!(deserialize("7").unwrap_err().contains("expected a MAC address in quotes"));
    }

    #[test]
    fn parse_error_names_invalid_group() {
        let error = |text: &str| text.parse::<MacAddr>().unwrap_err();
        assert_eq!(error(""), ParseMacAddrError::GroupCount(1));
        assert_eq!(error("02:00:00:00:00"), ParseMacAddrError::GroupCount(5));
        assert_eq!(error("02-00-00-00-00-01"), ParseMacAddrError::GroupCount(1));
        assert_eq!(error("02:00:00:00:00:01:02"), ParseMacAddrError::GroupCount(7));
        assert_eq!(error("02:00:0g:00:00:01"), ParseMacAddrError::Group(3));
        assert_eq!(error("02:00:00:00:00:+1"), ParseMacAddrError::Group(6));
        assert_eq!(error("02:0:00:00:00:01"), ParseMacAddrError::Group(2));
        assert_eq!(
            error("02:0:00:00:00:01").to_string(),
            "group 2 is not two hexadecimal digits; a MAC address is 6 groups of two \
             hexadecimal digits with ':' between, like 02:00:00:00:00:01"
        );
    }

    #[test]
    fn group_addresses_are_recognized_and_uppercase_is_parsed() {
        assert!(MacAddr::BROADCAST.is_multicast() && MacAddr::BROADCAST.is_broadcast());
        let multicast = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
        assert!(multicast.is_multicast() && !multicast.is_broadcast());
        assert!(!MacAddr([0x02, 0, 0, 0, 0, 1]).is_multicast());
        assert_eq!("0A:bC:00:00:00:01".parse(), Ok(MacAddr([0x0a, 0xbc, 0, 0, 0, 1])));
    }

    proptest! {
        #[test]
        fn display_and_parse_roundtrip(octets: [u8; 6]) {
            prop_assert_eq!(MacAddr(octets).to_string().parse(), Ok(MacAddr(octets)));
        }

        #[test]
        fn parse_of_any_text_does_not_panic(text in "\\PC{0,24}") {
            let _ = text.parse::<MacAddr>();
        }
    }
}
