//! Deserialization of configuration values that name an enum variant.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Deserializer, Error, Unexpected, Visitor};
use strum::VariantNames;

/// Reads the name of a variant. The error for another value lists all names.
pub(crate) fn one_of<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr + VariantNames,
    D: Deserializer<'de>,
{
    deserializer.deserialize_str(OneOfVisitor(PhantomData))
}

struct OneOfVisitor<T>(PhantomData<T>);

impl<T: FromStr + VariantNames> Visitor<'_> for OneOfVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((last, others)) = T::VARIANTS.split_last() else { return f.write_str("nothing") };
        for (index, name) in others.iter().enumerate() {
            write!(f, "{}\"{name}\"", if index == 0 { "" } else { ", " })?;
        }
        write!(f, "{}\"{last}\"", if others.is_empty() { "" } else { " or " })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Implements `Deserialize` for enums by calling [`one_of`].
macro_rules! deserialize_one_of {
    ($($type:ty),+) => {
        $(impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::enum_names::one_of(deserializer)
            }
        })+
    };
}

pub(crate) use deserialize_one_of;

#[cfg(test)]
mod tests {
    use serde::de::IntoDeserializer as _;
    use serde::de::value::{Error, StrDeserializer};

    use super::*;

    #[derive(Debug, PartialEq, strum::EnumString, strum::VariantNames)]
    #[strum(serialize_all = "kebab-case")]
    enum Fruit {
        Apple,
        RedCherry,
        Pear,
    }

    fn parse(text: &str) -> Result<Fruit, String> {
        let deserializer: StrDeserializer<'_, Error> = text.into_deserializer();
        one_of(deserializer).map_err(|error| error.to_string())
    }

    #[test]
    fn one_of_reads_name_of_variant() {
        assert_eq!(parse("apple"), Ok(Fruit::Apple));
        assert_eq!(parse("red-cherry"), Ok(Fruit::RedCherry));
    }

    #[test]
    fn one_of_error_lists_accepted_names() {
        let error = parse("plum").unwrap_err();
        assert_eq!(
            error,
            r#"invalid value: string "plum", expected "apple", "red-cherry" or "pear""#
        );
    }
}
