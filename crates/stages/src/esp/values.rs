//! Values in the configuration of the ESP stages. Their errors state the accepted values.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Unexpected, Visitor};
use serde_spanned::Spanned;
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::enum_names::deserialize_one_of;

/// An integer from `MIN` to `MAX`, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounded<const MIN: u64, const MAX: u64>(pub(super) u64);

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Bounded<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BoundedVisitor<const MIN: u64, const MAX: u64>;

        impl<const MIN: u64, const MAX: u64> Visitor<'_> for BoundedVisitor<MIN, MAX> {
            type Value = Bounded<MIN, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match MAX {
                    // Every positive TOML integer is accepted, so state no maximum.
                    u64::MAX => write!(f, "an integer from {MIN}"),
                    _ => write!(f, "an integer from {MIN} to {MAX}"),
                }
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                let bounded =
                    u64::try_from(number).ok().filter(|number| (MIN..=MAX).contains(number));
                bounded
                    .map(Bounded)
                    .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
            }
        }

        deserializer.deserialize_i64(BoundedVisitor::<MIN, MAX>)
    }
}

/// A number of packets or bytes, at least 1.
pub(super) type Amount = Bounded<1, { u64::MAX }>;

/// Tunnel or transport mode (RFC 4301, 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum Mode {
    #[default]
    Tunnel,
    Transport,
}

/// The don't-fragment bit of an outer IPv4 header. `Copy` copies the inner bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum Df {
    #[default]
    Copy,
    Set,
    Clear,
}

/// The cryptography library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum Backend {
    #[default]
    AwsLc,
    #[strum(serialize = "rustcrypto")]
    RustCrypto,
    IpsecMb,
}

/// Traffic that passes unchanged if configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum Bypassed {
    Arp,
    Nd,
    Ike,
    NotIp,
    Unmatched,
}

deserialize_one_of!(Mode, Df, Backend, Bypassed);

/// The DSCP of the outer header. `Copy` copies the inner DSCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Dscp {
    #[default]
    Copy,
    Fixed(u8),
}

impl<'de> Deserialize<'de> for Dscp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DscpVisitor;

        impl Visitor<'_> for DscpVisitor {
            type Value = Dscp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"copy\" or an integer from 0 to 63")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Dscp, E> {
                if text == "copy" {
                    Ok(Dscp::Copy)
                } else {
                    Err(E::invalid_value(Unexpected::Str(text), &self))
                }
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Dscp, E> {
                let dscp = u8::try_from(number).ok().filter(|number| *number <= 63);
                dscp.map(Dscp::Fixed)
                    .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
            }
        }

        deserializer.deserialize_any(DscpVisitor)
    }
}

/// An IP address in quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address(pub(super) IpAddr);

/// An IP prefix in quotes. A single address needs no length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix(pub(super) IpNet);

/// A file name, not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileName(pub(super) String);

impl<'de> Deserialize<'de> for FileName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| {
            if text.is_empty() { Err(String::new()) } else { Ok(Self(text.to_owned())) }
        };
        let expected = "the name of a file in quotes";
        deserializer.deserialize_str(QuotedVisitor { expected, parse })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List<T>(pub(super) Vec<T>);

pub(super) trait Element {
    /// Describes the list, for the error about any other value.
    const LIST: &'static str;
}

impl Element for Bypassed {
    const LIST: &'static str =
        "a list in brackets, each element \"arp\", \"nd\", \"ike\", \"not-ip\" or \"unmatched\"";
}

impl Element for Spanned<Address> {
    const LIST: &'static str =
        "a list in brackets of up to one IPv4 and one IPv6 address in quotes";
}

impl Element for Prefix {
    const LIST: &'static str = "a list in brackets of prefixes in quotes";
}

impl Element for Bounded<1, { u16::MAX as u64 }> {
    const LIST: &'static str = "a list in brackets of two ports, source and destination";
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de> + Element> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de> + Element> Visitor<'de> for ListVisitor<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::LIST)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<List<T>, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = sequence.next_element()? {
                    elements.push(element);
                }
                Ok(List(elements))
            }
        }

        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

struct QuotedVisitor<T> {
    expected: &'static str,
    /// Parses the value, or returns an error message. If the message is empty, the error states
    /// `expected`.
    parse: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for QuotedVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(|message| {
            if message.is_empty() {
                E::invalid_value(Unexpected::Str(text), &self)
            } else {
                E::custom(message)
            }
        })
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| text.parse().map(Address).map_err(|_| String::new());
        let expected = "an IP address in quotes, like \"192.0.2.1\" or \"2001:db8::1\"";
        deserializer.deserialize_str(QuotedVisitor { expected, parse })
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fn parse(text: &str) -> Result<Prefix, String> {
            let net: IpNet = match text.contains('/') {
                true => text.parse().map_err(|_| String::new())?,
                false => text.parse::<IpAddr>().map_err(|_| String::new())?.into(),
            };
            if net.trunc() == net {
                return Ok(Prefix(net));
            }
            Err(format!("prefix `{net}` has bits set beyond its length: use {}", net.trunc()))
        }
        let expected = "a prefix in quotes, like \"192.0.2.0/24\" or \"2001:db8::/32\"";
        deserializer.deserialize_str(QuotedVisitor { expected, parse })
    }
}
