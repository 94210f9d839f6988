//! Command-line options that several commands share.

use std::time::Duration;

use clap::Args;
use xdpfwd_lab::Traffic;

/// Options of the generator.
#[derive(Args, Clone)]
pub(super) struct TrafficArguments {
    /// Frame length in memory without FCS, 60 to MTU + 14
    #[arg(long, default_value_t = 60, value_name = "BYTES")]
    pub(super) size: u16,
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
        let traffic = Traffic::new().size(self.size).flows(self.flows).core(self.core);
        match self.rate {
            Some(rate) => traffic.rate(rate),
            None => traffic,
        }
    }

    /// Returns the smallest MTU of at least 1500 bytes that fits these frames.
    pub(super) fn mtu(&self) -> u16 {
        self.size.saturating_sub(14).max(1500)
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
