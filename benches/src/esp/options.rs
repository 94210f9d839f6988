//! The options of `esp`. A variant is a backend with a payload length.

use clap::{Args, ValueEnum};
use serde::Serialize;
use strum::{Display, EnumIter, IntoStaticStr};
use xdpfwd_ipsec::Transform;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Payload lengths in bytes
    #[arg(
        long,
        value_name = "BYTES",
        value_delimiter = ',',
        default_values_t = [64, 256, 512, 1400]
    )]
    pub(super) sizes: Vec<usize>,
    /// ESP transform: aes-128-gcm, aes-256-gcm or chacha20-poly1305
    #[arg(long, value_enum, hide_possible_values = true, default_value_t = Cipher::Aes128Gcm)]
    pub(super) transform: Cipher,
    /// Cryptographic backends
    #[arg(
        long,
        value_name = "NAMES",
        value_enum,
        hide_possible_values = true,
        value_delimiter = ',',
        default_values_t = [Backend::AwsLc, Backend::Rustcrypto, Backend::IpsecMb]
    )]
    pub(super) backends: Vec<Backend>,
    /// Rounds; each runs every variant
    #[arg(long, value_name = "N", default_value_t = 9)]
    pub(super) rounds: usize,
    /// Passes of each variant in a round
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) passes: usize,
    /// Packets in a pass (a multiple of 64); also the pool size of dpdk-test-crypto-perf, which
    /// needs at least 1024
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(super) frames: usize,
    /// Packets per size and round for dpdk-test-crypto-perf. It reports a mean, which
    /// interrupts distort in long runs
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(super) dpdk_packets: usize,
    /// Core of the measurement; the main thread of dpdk-test-crypto-perf, which only waits, runs on
    /// another core
    #[arg(long, default_value_t = 1)]
    pub(super) core: usize,
    /// Print one line of JSON for each row of the table
    #[arg(long)]
    pub(super) json: bool,
}

/// A transform that every backend and dpdk-test-crypto-perf support.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cipher {
    #[value(name = "aes-128-gcm")]
    Aes128Gcm,
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl Cipher {
    pub(super) fn transform(self) -> Transform {
        match self {
            Self::Aes128Gcm => Transform::Aes128Gcm,
            Self::Aes256Gcm => Transform::Aes256Gcm,
            Self::ChaCha20Poly1305 => Transform::ChaCha20Poly1305,
        }
    }
}

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Display, IntoStaticStr, Serialize, ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum Backend {
    /// AWS-LC
    AwsLc,
    /// RustCrypto's crates
    Rustcrypto,
    /// libipsec-mb
    IpsecMb,
}

#[derive(Clone, Copy, Debug, Display, EnumIter, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub(super) enum Direction {
    Seal,
    Open,
}

/// Nanoseconds per packet.
#[derive(Clone, Copy)]
pub(super) struct Timing {
    /// The AEAD alone.
    pub(super) alone: f64,
    /// ESP with this AEAD.
    pub(super) esp: f64,
}
