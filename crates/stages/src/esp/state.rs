//! The content of the ESP state file, and its text. The file prevents a later run from reusing
//! nonces or sequence numbers.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Deserialize;

use xdpfwd_ipsec::Fingerprint;

/// The epoch and the SAs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The latest epoch (upper 32 bits of IVs): a time in seconds since 1970. IVs of this and
    /// earlier epochs may have been used.
    pub epoch: u32,
    /// The entries of all SAs.
    pub sas: Vec<SaState>,
}

/// The entry of an SA in the state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaState {
    /// The security parameters index.
    pub spi: u32,
    /// Fingerprint of the key.
    pub fingerprint: Fingerprint,
    /// The sequence numbers used or received.
    pub sequence: SequenceState,
}

/// The sequence numbers that an SA has used or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceState {
    /// Outbound.
    Out {
        /// All used numbers are below this one.
        next: u64,
        /// All inner bytes encapsulated so far.
        bytes: u64,
    },
    /// Inbound.
    In {
        /// The highest number of a valid packet; 0 before the first.
        highest: u64,
    },
}

/// The direction of an SA's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Direction {
    /// Outbound: encapsulates packets.
    Out,
    /// Inbound: decapsulates packets.
    In,
}

/// Why the text of a state file is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The text is too long.
    #[error("{0} bytes exceed the maximum of {max}", max = State::MAX_LEN)]
    TooLarge(usize),
    /// The last line is missing.
    #[error("the last line, {END:?}, is missing")]
    CutOff,
    /// The header of a file of version 2 was changed.
    #[error("its header is damaged")]
    Header,
    /// The length of a file of version 2 does not fit a header and two slots (copies of the state).
    #[error("its length, {0} bytes, is invalid")]
    Length(usize),
    /// Neither slot of a file of version 2 has a valid checksum.
    #[error("both copies of the state are damaged")]
    Damaged,
    /// The text is not UTF-8 at this byte, counted from 1.
    #[error("byte {0} is not UTF-8")]
    NotText(usize),
    /// The text is not TOML, or has unknown keys.
    #[error("{0}")]
    Toml(String),
    /// The format version is not 1.
    #[error("version = {0}: this xdpfwd reads version 1")]
    Version(i64),
    /// There are too many SAs.
    #[error("{0} SAs exceed the maximum of {max}", max = State::MAX_SAS)]
    TooManySas(usize),
    /// An SA is invalid.
    #[error("[[sa]] number {number}: {cause}")]
    Sa {
        /// Number of the SA, from 1.
        number: usize,
        /// The cause.
        cause: &'static str,
    },
}

/// The last line; without it, the file is truncated.
const END: &str = "# end";

const TITLE: &str = "# Written by xdpfwd. Do not edit or copy: two processes that continue from \
    one state repeat nonces.";

/// The format version, which is read before the other keys.
#[derive(Deserialize)]
struct Versioned {
    version: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "version")]
    _version: Option<i64>,
    epoch: u32,
    #[serde(default)]
    sa: Vec<Sa>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sa {
    direction: Direction,
    spi: u32,
    fingerprint: Fingerprint,
    next: Option<u64>,
    bytes: Option<u64>,
    highest: Option<u64>,
}

impl State {
    /// Maximum text length in bytes; enough for [`Self::MAX_SAS`] SAs.
    pub const MAX_LEN: usize = 16 << 20;
    /// Maximum length of an SA's text, in bytes.
    pub(super) const MAX_SA_LEN: usize = 160;
    /// Maximum number of SAs.
    pub const MAX_SAS: usize = 65_536;
    /// The largest number in a file, because integers in TOML are signed. No SA reaches it.
    pub const MAX_NUMBER: u64 = i64::MAX as u64;
    /// Smaller values are reserved (RFC 4303, 2.1).
    const MIN_SPI: u32 = 256;

    /// Parses the text that [`State::to_text`] returns: a state file of version 1.
    pub fn parse(text: &[u8]) -> Result<Self, StateError> {
        if text.len() > Self::MAX_LEN {
            return Err(StateError::TooLarge(text.len()));
        }
        let text = std::str::from_utf8(text)
            .map_err(|error| StateError::NotText(error.valid_up_to() + 1))?;
        let before_end = text.strip_suffix('\n').and_then(|text| text.strip_suffix(END));
        if !before_end.is_some_and(|text| text.ends_with('\n')) {
            return Err(StateError::CutOff);
        }
        // Other versions may have other keys, and the error must name the version.
        let Versioned { version } = toml::from_str(text).map_err(toml_error)?;
        if version != 1 {
            return Err(StateError::Version(version));
        }
        Self::parse_body(text)
    }

    /// Parses the text that [`State::body`] returns.
    pub(super) fn parse_body(text: &str) -> Result<Self, StateError> {
        let File { epoch, sa, .. } = toml::from_str(text).map_err(toml_error)?;
        if sa.len() > Self::MAX_SAS {
            return Err(StateError::TooManySas(sa.len()));
        }
        let mut seen = BTreeSet::new();
        let sas = sa.into_iter().zip(1..).map(|(sa, number)| {
            let sa = SaState::try_from(sa).map_err(|cause| StateError::Sa { number, cause })?;
            if seen.insert((sa.direction(), sa.spi, sa.fingerprint)) {
                Ok(sa)
            } else {
                Err(StateError::Sa {
                    number,
                    cause: "same direction, SPI and fingerprint as an earlier SA",
                })
            }
        });
        Ok(Self { epoch, sas: sas.collect::<Result<_, _>>()? })
    }

    /// Returns the text of a state file of version 1. Numbers above [`Self::MAX_NUMBER`] become
    /// that number.
    pub fn to_text(&self) -> String {
        format!("{TITLE}\nversion = 1\n{}{END}\n", self.body())
    }

    /// Returns the text of the epoch and the SAs, without version and last line.
    pub(super) fn body(&self) -> String {
        let mut text = format!("epoch = {}\n", self.epoch);
        let storable = |number: u64| number.min(Self::MAX_NUMBER);
        for sa in &self.sas {
            let (direction, spi, fingerprint) = (sa.direction(), sa.spi, sa.fingerprint);
            let sequence = match sa.sequence {
                SequenceState::Out { next, bytes } => {
                    format!("next = {}\nbytes = {}", storable(next), storable(bytes))
                }
                SequenceState::In { highest } => format!("highest = {}", storable(highest)),
            };
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "\n[[sa]]\ndirection = \"{direction}\"\nspi = {spi}\n\
                 fingerprint = \"{fingerprint}\"\n{sequence}"
            );
        }
        text
    }
}

fn toml_error(error: toml::de::Error) -> StateError {
    StateError::Toml(error.to_string().trim_end().to_owned())
}

impl SaState {
    /// Returns the direction of the SA.
    pub fn direction(&self) -> Direction {
        match self.sequence {
            SequenceState::Out { .. } => Direction::Out,
            SequenceState::In { .. } => Direction::In,
        }
    }
}

impl TryFrom<Sa> for SaState {
    type Error = &'static str;

    fn try_from(sa: Sa) -> Result<Self, &'static str> {
        if sa.spi < State::MIN_SPI {
            return Err("spi: must be at least 256");
        }
        let too_large =
            |number: Option<u64>| number.is_some_and(|number| number > State::MAX_NUMBER);
        if too_large(sa.next) || too_large(sa.bytes) || too_large(sa.highest) {
            return Err("next, bytes, highest: must be at most 9223372036854775807");
        }
        let sequence = match (sa.direction, sa.next, sa.bytes, sa.highest) {
            (Direction::Out, Some(0), ..) => return Err("next: must be at least 1"),
            (Direction::Out, Some(next), Some(bytes), None) => SequenceState::Out { next, bytes },
            (Direction::Out, ..) => {
                return Err("direction \"out\": must have next and bytes, not highest");
            }
            (Direction::In, None, None, Some(highest)) => SequenceState::In { highest },
            (Direction::In, ..) => {
                return Err("direction \"in\": must have highest, not next or bytes");
            }
        };
        Ok(Self { spi: sa.spi, fingerprint: sa.fingerprint, sequence })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str =
        "# Written by xdpfwd. Do not edit or copy: two processes that continue from \
one state repeat nonces.
version = 1
epoch = 1795305087

[[sa]]
direction = \"out\"
spi = 4097
fingerprint = \"9f86d081884c7d65\"
next = 1048577
bytes = 123456

[[sa]]
direction = \"in\"
spi = 8193
fingerprint = \"60303ae22b998861\"
highest = 4711
# end
";

    fn example() -> State {
        let outbound = SaState {
            spi: 4097,
            fingerprint: "9f86d081884c7d65".parse().unwrap(),
            sequence: SequenceState::Out { next: 1_048_577, bytes: 123_456 },
        };
        let inbound = SaState {
            spi: 8193,
            fingerprint: "60303ae22b998861".parse().unwrap(),
            sequence: SequenceState::In { highest: 4711 },
        };
        State { epoch: 1_795_305_087, sas: vec![outbound, inbound] }
    }

    fn parse_error(text: &str) -> String {
        State::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn to_text_returns_documented_text_that_parse_reads() {
        assert_eq!(example().to_text(), TEXT);
        assert_eq!(State::parse(TEXT.as_bytes()), Ok(example()));
        let empty = State { epoch: 7, sas: Vec::new() };
        assert_eq!(State::parse(empty.to_text().as_bytes()), Ok(empty));
    }

    #[test]
    fn parse_rejects_truncated_text() {
        for end in 0..TEXT.len() {
            assert!(State::parse(&TEXT.as_bytes()[..end]).is_err(), "{}", &TEXT[..end]);
        }
        assert_eq!(parse_error(&TEXT[..TEXT.len() - 1]), "the last line, \"# end\", is missing");
        assert_eq!(
            parse_error("version = 1\nepoch = 5 # end\n"),
            "the last line, \"# end\", is missing"
        );
    }

    #[test]
    fn parse_error_names_invalid_key_or_value() {
        let error_with = |from: &str, to: &str| {
            assert!(TEXT.contains(from));
            parse_error(&TEXT.replacen(from, to, 1))
        };
        assert_eq!(
            error_with("version = 1", "version = 2\nmore = true"),
            "version = 2: this xdpfwd reads version 1"
        );
        assert!(error_with("version = 1\n", "").contains("missing field `version`"));
        assert!(error_with("epoch = 1795305087\n", "").contains("missing field `epoch`"));
        assert!(error_with("epoch = 1795305087", "epoch = 4294967296").contains("4294967296"));
        assert!(error_with("epoch", "other = 1\nepoch").contains("unknown field `other`"));
        assert!(error_with("bytes", "bites").contains("unknown field `bites`"));
        assert!(error_with("\"out\"", "\"up\"").contains("unknown variant `up`"));
        assert!(
            error_with("9f86d081884c7d65", "9F86d081884c7d65")
                .contains("16 lowercase hexadecimal digits")
        );
        assert!(error_with("next = 1048577", "next = -1").contains("-1"));
        assert_eq!(
            error_with("next = 1048577", "next = 0"),
            "[[sa]] number 1: next: must be at least 1"
        );
        assert_eq!(
            error_with("spi = 8193", "spi = 255"),
            "[[sa]] number 2: spi: must be at least 256"
        );
        assert_eq!(
            error_with("highest = 4711", "next = 4711"),
            "[[sa]] number 2: direction \"in\": must have highest, not next or bytes"
        );
        assert_eq!(
            error_with("bytes = 123456\n", ""),
            "[[sa]] number 1: direction \"out\": must have next and bytes, not highest"
        );
        let (_, end) = TEXT.split_once("4711\n").unwrap();
        let with_sa_twice = TEXT.replace(end, &TEXT[TEXT.rfind("\n[[sa]]").unwrap()..]);
        assert_eq!(
            parse_error(&with_sa_twice),
            "[[sa]] number 3: same direction, SPI and fingerprint as an earlier SA"
        );
        assert_eq!(State::parse(b"version = 1\nepoch = \xff\n"), Err(StateError::NotText(21)));
        let large = vec![b'#'; State::MAX_LEN + 1];
        assert_eq!(State::parse(&large), Err(StateError::TooLarge(State::MAX_LEN + 1)));
    }

    #[test]
    fn parse_rejects_more_than_maximum_number_of_sas() {
        let sa = |spi| SaState {
            spi,
            fingerprint: "ffffffffffffffff".parse().unwrap(),
            sequence: SequenceState::Out { next: u64::MAX, bytes: u64::MAX },
        };
        let max = State::MAX_SAS as u32;
        let mut state =
            State { epoch: u32::MAX, sas: (0..max).map(|index| sa(u32::MAX - index)).collect() };
        let parsed = State::parse(state.to_text().as_bytes()).unwrap();
        assert_eq!(parsed.sas.len(), State::MAX_SAS);
        let largest = State::MAX_NUMBER;
        assert_eq!(parsed.sas[0].sequence, SequenceState::Out { next: largest, bytes: largest });
        state.sas.push(sa(300));
        assert_eq!(
            State::parse(state.to_text().as_bytes()),
            Err(StateError::TooManySas(State::MAX_SAS + 1))
        );
    }

    fn states() -> impl Strategy<Value = State> {
        let next = prop_oneof![1_u64..5, Just(State::MAX_NUMBER), 1..State::MAX_NUMBER];
        let sequence = (any::<bool>(), next, 0..State::MAX_NUMBER).prop_map(
            |(is_outbound, next, bytes_or_highest)| {
                if is_outbound {
                    SequenceState::Out { next, bytes: bytes_or_highest }
                } else {
                    SequenceState::In { highest: bytes_or_highest }
                }
            },
        );
        let sas = prop::collection::btree_map(256_u32.., (any::<u64>(), sequence), 0..8);
        (any::<u32>(), sas).prop_map(|(epoch, sas)| {
            let sa = |(spi, (fingerprint, sequence)): (u32, (u64, SequenceState))| SaState {
                spi,
                fingerprint: format!("{fingerprint:016x}").parse().unwrap(),
                sequence,
            };
            State { epoch, sas: sas.into_iter().map(sa).collect() }
        })
    }

    proptest! {
        #[test]
        fn parse_of_to_text_returns_same_state(state in states()) {
            prop_assert_eq!(State::parse(state.to_text().as_bytes()), Ok(state));
        }

        #[test]
        fn parse_of_random_text_does_not_panic(text in "(version = 1\n)?(epoch = [0-9]{1,12}\n)?([\\[\\]a-z =\"0-9]{0,30}\n){0,5}# end\n") {
            let _ = State::parse(text.as_bytes());
        }
    }
}
