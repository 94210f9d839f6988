//! Command-line options that several commands share.

use std::{fmt, str::FromStr, time::Duration};

use clap::Args;
use serde_json::{Value, json};
use xdpfwd_lab::Traffic;

/// Options of the generator.
#[derive(Args, Clone)]
pub(super) struct TrafficArguments {
    /// Frame length in memory without FCS, 60 to MTU + 14; or `imix`: of twelve frames, seven have
    /// 60 bytes, four 590 and one 1514
    #[arg(long, default_value = "60", value_name = "BYTES")]
    pub(super) size: FrameSize,
    /// Number of flows (UDP source ports from 1024), 1-64512
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub(super) flows: u32,
    /// Packets per second [default: as fast as possible]
    #[arg(long, value_name = "PPS")]
    pub(super) rate: Option<u64>,
    /// Core of the generator
    #[arg(long, default_value_t = 0, value_name = "CORE")]
    pub(super) core: usize,
}

impl TrafficArguments {
    pub(super) fn traffic(&self) -> Traffic {
        let traffic = self.size.traffic().flows(self.flows).core(self.core);
        match self.rate {
            Some(rate) => traffic.rate(rate),
            None => traffic,
        }
    }

    /// Returns the smallest MTU of at least 1500 bytes that fits these frames.
    pub(super) fn mtu(&self) -> u16 {
        self.size.traffic().largest_size().saturating_sub(14).max(1500)
    }
}

/// The value of `--size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameSize {
    Bytes(u16),
    Imix,
}

impl FrameSize {
    fn traffic(self) -> Traffic {
        match self {
            Self::Bytes(bytes) => Traffic::new().size(bytes),
            Self::Imix => Traffic::imix(),
        }
    }

    /// Returns the value for JSON output: a number, or `"imix"`.
    pub(super) fn json(self) -> Value {
        match self {
            Self::Bytes(bytes) => json!(bytes),
            Self::Imix => json!("imix"),
        }
    }
}

impl FromStr for FrameSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "imix" => Ok(Self::Imix),
            _ => text
                .parse()
                .map(Self::Bytes)
                .map_err(|_| "use a number of bytes, such as 60, or imix".into()),
        }
    }
}

impl fmt::Display for FrameSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
            Self::Imix => f.write_str("IMIX"),
        }
    }
}

/// Parses a duration in seconds, with an optional fraction.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && (0.0..=86_400.0).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err("use a number of seconds from 0 to 86400, such as 0.5".into()),
    }
}
