//! The options of `nic`.

use std::{net::Ipv4Addr, path::PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum, value_parser};
use xdpfwd_lab::MAX_FLOWS;

use super::ports::parse_mac;
use crate::common::GeneratorName;

/// Bytes of the frame check sequence, which is on the wire but not in memory.
const FCS: u16 = 4;

/// The longest window or trial, in seconds.
const LONGEST: f64 = 3600.0;

#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Interface of the generator, cabled to the forwarder's input
    #[arg(long, value_name = "IF")]
    pub(super) tx: String,
    /// Interface of the sink, cabled to the forwarder's output
    #[arg(long, value_name = "IF")]
    pub(super) rx: String,
    /// What forwards: xdpfwd between --fwd-in and --fwd-out of this machine, or something else
    /// (`none`), such as another machine
    #[arg(long, value_enum, value_name = "FORWARDER", default_value_t = ForwarderName::Xdpfwd)]
    pub(super) forwarder: ForwarderName,
    /// Input of xdpfwd
    #[arg(long, value_name = "IF", required_if_eq("forwarder", "xdpfwd"))]
    pub(super) fwd_in: Option<String>,
    /// Output of xdpfwd
    #[arg(long, value_name = "IF", required_if_eq("forwarder", "xdpfwd"))]
    pub(super) fwd_out: Option<String>,
    /// Packet paths of xdpfwd, as in `paths`
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_values = ["packet", "af_xdp-copy", "af_xdp-zero-copy"]
    )]
    pub(super) paths: Vec<String>,
    /// Security processing of xdpfwd
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_values = ["none", "filter-1k-user", "aes-128-gcm"]
    )]
    pub(super) columns: Vec<String>,
    /// Name of the forwarder in the results, with --forwarder none
    #[arg(long, value_name = "NAME", default_value = "external")]
    pub(super) name: String,
    /// Frame lengths on the wire, in bytes with FCS
    #[arg(
        long,
        value_name = "BYTES",
        value_delimiter = ',',
        default_values_t = [64, 128, 256, 512, 1024, 1280, 1518]
    )]
    pub(super) wire_sizes: Vec<u16>,
    /// Frame lengths in memory, in bytes without FCS (4 less than on the wire)
    #[arg(long, value_name = "BYTES", value_delimiter = ',', conflicts_with = "wire_sizes")]
    pub(super) sizes: Vec<u16>,
    /// Rounds; each runs every cell once
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = value_parser!(u32).range(1..)
    )]
    pub(super) rounds: u32,
    /// Seconds measured in each run, and at each load of the latency
    #[arg(long, default_value_t = 3.0, value_parser = parse_seconds)]
    pub(super) seconds: f64,
    /// Seconds of traffic before each run's measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, value_parser = parse_warmup)]
    pub(super) warmup: f64,
    /// Number of flows (UDP source ports)
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1000,
        value_parser = value_parser!(u32).range(1..=i64::from(MAX_FLOWS))
    )]
    pub(super) flows: u32,
    /// What sends the packets; pktgen measures no latency
    #[arg(long, value_enum, value_name = "GENERATOR", default_value_t = GeneratorName::Live)]
    pub(super) generator: GeneratorName,
    /// How often pktgen repeats a packet before it makes the next (`clone_skb`)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) clones: u32,
    /// Cores of the generator
    #[arg(long, value_name = "CORES", value_delimiter = ',', default_values_t = [0])]
    pub(super) generator_cores: Vec<usize>,
    /// Cores of xdpfwd; each serves one queue of both interfaces
    #[arg(long, value_name = "CORES", value_delimiter = ',', default_values_t = [1])]
    pub(super) cores: Vec<usize>,
    /// Speed of the links, if the drivers do not report it
    #[arg(long, value_name = "GBIT/S", value_parser = parse_link)]
    pub(super) link_gbps: Option<f64>,
    /// Destination MAC address of the packets [default: that of --rx]
    #[arg(long, value_name = "MAC", value_parser = parse_mac)]
    pub(super) destination_mac: Option<[u8; 6]>,
    /// Source address of the packets, for a forwarder that routes
    #[arg(long, value_name = "IPV4", requires = "destination_ip")]
    pub(super) source_ip: Option<Ipv4Addr>,
    /// Destination address of the packets
    #[arg(long, value_name = "IPV4", requires = "source_ip")]
    pub(super) destination_ip: Option<Ipv4Addr>,
    /// Count all frames at the sink, also those that it does not recognise (tunnels)
    #[arg(long)]
    pub(super) anything: bool,
    /// Skip the search for the rates without loss and with little loss, and the latency
    #[arg(long)]
    pub(super) no_rates: bool,
    /// Shares of packets that may be lost at the rates that are searched for
    #[arg(
        long,
        value_name = "SHARES",
        value_delimiter = ',',
        default_values_t = [0.0, 0.005],
        value_parser = parse_loss
    )]
    pub(super) allowed_loss: Vec<f64>,
    /// Seconds of the trials that decide about a rate (RFC 2544 asks for 60)
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = parse_seconds)]
    pub(super) trial_seconds: f64,
    /// Distance between the rate that is found and the lowest that fails, as a share of the latter
    #[arg(long, value_name = "SHARE", default_value_t = 0.02, value_parser = parse_precision)]
    pub(super) precision: f64,
    /// Loads of the latency, in percent of the rate with the smallest allowed loss
    #[arg(
        long,
        value_name = "PERCENT",
        value_delimiter = ',',
        default_values_t = [10, 50, 90],
        value_parser = value_parser!(u32).range(1..=100)
    )]
    pub(super) loads: Vec<u32>,
    /// Only check the preparations of the machine
    #[arg(long)]
    pub(super) check: bool,
    /// Measure although preparations are missing (the results list them), and on interfaces with an
    /// address
    #[arg(long)]
    pub(super) force: bool,
    /// The xdpfwd binary [default: in the folder of this program]
    #[arg(long, value_name = "PATH")]
    pub(super) xdpfwd: Option<PathBuf>,
    /// Write results to DIR/<date>-<host>/nic (then nic-2, nic-3, …)
    #[arg(long, default_value = "benches/results", value_name = "DIR")]
    pub(super) results: PathBuf,
}

/// The values of `--forwarder`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ForwarderName {
    Xdpfwd,
    None,
}

impl ForwarderName {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Xdpfwd => "xdpfwd",
            Self::None => "none",
        }
    }
}

impl Arguments {
    /// Fails if two threads of generator and forwarder would share a core.
    pub(super) fn check_cores(&self) -> Result<()> {
        let mut cores = self.generator_cores.clone();
        if self.forwarder == ForwarderName::Xdpfwd {
            cores.extend(&self.cores);
        }
        cores.sort_unstable();
        if let Some(twice) = cores.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!(
                "core {} is given twice in --cores and --generator-cores: each thread needs its \
                 own core",
                twice[0]
            );
        }
        Ok(())
    }

    /// Returns the frame lengths in memory.
    pub(super) fn memory_sizes(&self) -> Vec<u16> {
        match self.sizes.is_empty() {
            true => self.wire_sizes.iter().map(|size| size.saturating_sub(FCS)).collect(),
            false => self.sizes.clone(),
        }
    }
}

/// Parses a number that `is_valid` accepts; `limits` describes these numbers.
fn parse(text: &str, is_valid: impl Fn(f64) -> bool, limits: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number| is_valid(*number)).ok_or_else(|| format!("use {limits}"))
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    parse(text, |seconds| (0.01..=LONGEST).contains(&seconds), "0.01 to 3600 seconds")
}

fn parse_warmup(text: &str) -> Result<f64, String> {
    parse(text, |seconds| (0.0..=LONGEST).contains(&seconds), "0 to 3600 seconds")
}

fn parse_loss(text: &str) -> Result<f64, String> {
    parse(text, |share| (0.0..1.0).contains(&share), "a share from 0 to less than 1")
}

fn parse_precision(text: &str) -> Result<f64, String> {
    parse(text, |share| (0.001..=0.5).contains(&share), "a share from 0.001 to 0.5")
}

fn parse_link(text: &str) -> Result<f64, String> {
    parse(text, |gbps| (0.001..=10_000.0).contains(&gbps), "0.001 to 10000 Gbit/s")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(options: &[&str]) -> Result<Arguments, String> {
        let ports = ["nic", "--tx", "a", "--rx", "b", "--fwd-in", "c", "--fwd-out", "d"];
        let cli = Cli::try_parse_from(ports.iter().chain(options));
        cli.map(|cli| cli.arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn invalid_numbers_are_rejected_with_their_option() {
        for (option, values) in [
            ("--rounds", &["0"][..]),
            ("--seconds", &["NaN", "0", "inf", "x"]),
            ("--warmup", &["NaN", "inf"]),
            ("--trial-seconds", &["0", "3601"]),
            ("--precision", &["0", "1", "NaN"]),
            ("--allowed-loss", &["0,1", "NaN"]),
            ("--link-gbps", &["0", "NaN"]),
            ("--loads", &["0", "101"]),
            ("--flows", &["0"]),
        ] {
            for value in values {
                let error = parse(&[option, value]).unwrap_err();
                assert!(error.contains(option), "{option} {value}: {error}");
            }
        }
        let arguments = parse(&["--warmup", "0", "--allowed-loss", "0,0.005"]).unwrap();
        assert_eq!((arguments.warmup, arguments.rounds), (0.0, 3));
    }

    #[test]
    fn core_of_two_threads_is_rejected() {
        let check = |cores, generator| {
            let arguments = parse(&["--cores", cores, "--generator-cores", generator]).unwrap();
            arguments.check_cores().map_err(|error| error.to_string())
        };
        assert_eq!(check("2,3", "0,1"), Ok(()));
        assert!(check("1,2", "0,2").unwrap_err().contains("core 2"));
        assert!(check("1,1", "0").unwrap_err().contains("core 1"));
        let external = ["--forwarder", "none", "--cores", "1", "--generator-cores", "0,1"];
        assert!(parse(&external).unwrap().check_cores().is_ok());
    }
}
