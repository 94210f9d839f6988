//! The options of `nic`.

use std::{net::Ipv4Addr, path::PathBuf};

use clap::{Args, ValueEnum};

use super::ports::parse_mac;
use crate::common::{GeneratorName, parse_seconds};

/// Bytes of the frame check sequence, which is on the wire but not in memory.
const FCS: u16 = 4;

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
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(super) rounds: u32,
    /// Seconds measured in each run, and at each load of the latency
    #[arg(long, default_value_t = 3.0, value_parser = parse_seconds)]
    pub(super) seconds: f64,
    /// Seconds of traffic before each run's measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, value_parser = parse_seconds)]
    pub(super) warmup: f64,
    /// Number of flows (UDP source ports)
    #[arg(long, value_name = "N", default_value_t = 1000)]
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
    #[arg(long, value_name = "GBIT/S")]
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
    #[arg(long, value_name = "SHARES", value_delimiter = ',', default_values_t = [0.0, 0.005])]
    pub(super) allowed_loss: Vec<f64>,
    /// Seconds of the trials that decide about a rate (RFC 2544 asks for 60)
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = parse_seconds)]
    pub(super) trial_seconds: f64,
    /// Distance between the rate that is found and the lowest that fails, as a share of the latter
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    pub(super) precision: f64,
    /// Loads of the latency, in percent of the rate with the smallest allowed loss
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', default_values_t = [10, 50, 90])]
    pub(super) loads: Vec<u32>,
    /// Only check the preparations of the machine
    #[arg(long)]
    pub(super) check: bool,
    /// Measure although preparations are missing; the results list them
    #[arg(long)]
    pub(super) force: bool,
    /// The xdpfwd binary [default: in the folder of this program]
    #[arg(long, value_name = "PATH")]
    pub(super) xdpfwd: Option<PathBuf>,
    /// Write results to DIR/<date>-<host>/nic
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
    /// Returns the frame lengths in memory.
    pub(super) fn memory_sizes(&self) -> Vec<u16> {
        match self.sizes.is_empty() {
            true => self.wire_sizes.iter().map(|size| size.saturating_sub(FCS)).collect(),
            false => self.sizes.clone(),
        }
    }
}
