//! The kernel's packet generator, pktgen, as an alternative to live frames.

mod control;
mod report;
mod run;

use std::net::Ipv4Addr;

use crate::{
    DESTINATION_PORT, Error, FIRST_FLOW_PORT, GEN_ADDRESS, MAX_FLOWS, MIN_SIZE, Namespace,
    SINK_ADDRESS, mac, namespace::NamespaceHandle, require_root, veth::mac_text,
};
pub use report::PktgenDevice;
pub use run::PktgenRun;

/// Maximum frame length, without FCS: that of pktgen's buffers for one page.
const MAX_SIZE: u16 = 9000 + 14;

/// Traffic that the kernel's pktgen sends: UDP frames of one size, in some flows, from one or more
/// of pktgen's threads.
///
/// Frames have the addresses and ports of [`crate::Traffic`], so a [`crate::Sink`] counts them.
/// Their contents are those of pktgen (magic number 0xbe9be955): a sink with
/// [`check`](crate::SinkBuilder::check) reports them as corrupt, and they carry no send time.
///
/// pktgen makes a socket buffer for each frame, which costs the sending core more than
/// [`crate::Traffic`]. Other than that, it sends through every driver, also through those that do
/// not support XDP.
#[derive(Clone, Debug)]
#[must_use]
pub struct Pktgen {
    size: u16,
    flows: u32,
    random_flows: bool,
    rate: Option<u64>,
    count: Option<u64>,
    cores: Vec<usize>,
    queues: Option<u16>,
    clones: u32,
    destination_mac: [u8; 6],
    source_mac: [u8; 6],
    source: Ipv4Addr,
    destination: Ipv4Addr,
}

impl Default for Pktgen {
    fn default() -> Self {
        Self::new()
    }
}

impl Pktgen {
    /// Creates traffic of 60-byte frames in one flow from core 0, as fast as possible, from gen0
    /// to sink0.
    pub fn new() -> Self {
        Self {
            size: MIN_SIZE,
            flows: 1,
            random_flows: false,
            rate: None,
            count: None,
            cores: vec![0],
            queues: None,
            clones: 0,
            destination_mac: mac(4),
            source_mac: mac(1),
            source: GEN_ADDRESS,
            destination: SINK_ADDRESS,
        }
    }

    /// Sets the frame length in bytes, without FCS.
    pub fn size(mut self, bytes: u16) -> Self {
        self.size = bytes;
        self
    }

    /// Sets the number of flows, which differ in the UDP source port (1024 + flow). Each thread
    /// sends all flows, in turn.
    pub fn flows(mut self, flows: u32) -> Self {
        self.flows = flows;
        self
    }

    /// Draws the flow of each frame at random (pktgen's flag `UDPSRC_RND`) instead of in turn.
    pub fn random_flows(mut self, on: bool) -> Self {
        self.random_flows = on;
        self
    }

    /// Sets the packets per second of all threads together. pktgen rounds the time between two
    /// frames of a thread down to nanoseconds.
    pub fn rate(mut self, pps: u64) -> Self {
        self.rate = Some(pps);
        self
    }

    /// Limits the number of frames of all threads together, for [`PktgenRun::finish`]. Each thread
    /// sends its share, rounded up.
    pub fn count(mut self, packets: u64) -> Self {
        self.count = Some(packets);
        self
    }

    /// Sets the cores whose pktgen threads send.
    pub fn cores(mut self, cores: &[usize]) -> Self {
        self.cores = cores.to_vec();
        self
    }

    /// Sets the number of transmit queues; thread number n sends to queue n mod `queues`
    /// (`queue_map_min` and `queue_map_max`). Without this, the driver chooses the queue by the
    /// sending core.
    pub fn queues(mut self, queues: u16) -> Self {
        self.queues = Some(queues);
        self
    }

    /// Sends each frame 1 + `clones` times before pktgen makes the next (`clone_skb`), which is
    /// faster. Only drivers of hardware support this; veth does not. All clones are of one flow.
    pub fn clones(mut self, clones: u32) -> Self {
        self.clones = clones;
        self
    }

    /// Sets the destination MAC address.
    pub fn destination_mac(mut self, mac: [u8; 6]) -> Self {
        self.destination_mac = mac;
        self
    }

    /// Sets the source MAC address.
    pub fn source_mac(mut self, mac: [u8; 6]) -> Self {
        self.source_mac = mac;
        self
    }

    /// Sets the IPv4 source and destination.
    pub fn addresses(mut self, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        self.source = source;
        self.destination = destination;
        self
    }

    /// Checks whether this kernel has pktgen, and loads its module if necessary.
    ///
    /// # Errors
    ///
    /// The kernel has no pktgen; the message contains the missing option and module.
    pub fn check_available() -> Result<(), Error> {
        control::check_available()
    }

    /// Starts sending out of `interface` in `namespace`.
    ///
    /// # Errors
    ///
    /// Not root, a value out of range, no pktgen in this kernel, other devices in pktgen's
    /// configuration, or an error of pktgen.
    pub fn start(&self, namespace: &Namespace, interface: &str) -> Result<PktgenRun, Error> {
        self.start_in(namespace.handle()?, interface)
    }

    /// Starts sending in the network namespace of this process.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_here(&self, interface: &str) -> Result<PktgenRun, Error> {
        self.start_in(NamespaceHandle::current(), interface)
    }

    pub(crate) fn start_in(
        &self,
        handle: NamespaceHandle,
        interface: &str,
    ) -> Result<PktgenRun, Error> {
        require_root("pktgen")?;
        self.check()?;
        control::check_available()?;
        let settings = (0..self.cores.len()).map(|index| self.settings(index));
        let threads = self.cores.iter().copied().zip(settings).collect();
        PktgenRun::start(handle, interface, threads, self.size, self.count)
    }

    pub(crate) fn unsupported(feature: &str) -> Error {
        run::unsupported(feature)
    }

    fn check(&self) -> Result<(), Error> {
        let invalid = |parameter, value: String, accepted: String| {
            Err(Error::Value { parameter, value, accepted })
        };
        if !(MIN_SIZE..=MAX_SIZE).contains(&self.size) {
            let accepted = format!("use {MIN_SIZE}–{MAX_SIZE} bytes, without FCS");
            return invalid("frame size for pktgen", self.size.to_string(), accepted);
        }
        if !(1..MAX_FLOWS).contains(&self.flows) {
            let accepted = format!("use 1–{}", MAX_FLOWS - 1);
            return invalid("number of flows for pktgen", self.flows.to_string(), accepted);
        }
        let mut cores = self.cores.clone();
        cores.sort_unstable();
        cores.dedup();
        if cores.is_empty() || cores.len() != self.cores.len() {
            let accepted = "use one or more different cores".to_owned();
            return invalid("cores for pktgen", format!("{:?}", self.cores), accepted);
        }
        let threads = self.cores.len() as u64;
        if self.rate.is_some_and(|rate| !(threads..=1_000_000_000).contains(&rate)) {
            return invalid(
                "rate for pktgen",
                self.rate.unwrap_or(0).to_string(),
                format!("use {threads}–1000000000 packets per second, or no rate"),
            );
        }
        if self.queues == Some(0) {
            return invalid("number of queues for pktgen", "0".into(), "use 1 or more".into());
        }
        Ok(())
    }

    /// Returns the lines that configure the device of a thread. `index` is the thread's index.
    fn settings(&self, index: usize) -> Vec<String> {
        let threads = self.cores.len() as u64;
        let last_port = u32::from(FIRST_FLOW_PORT) + self.flows;
        let mut settings = vec![
            // A count of 0 is unlimited.
            format!("count {}", self.count.map_or(0, |count| count.div_ceil(threads))),
            format!("pkt_size {}", self.size),
            // Without time stamps, which no sink reads.
            "flag NO_TIMESTAMP".to_owned(),
            format!("src_mac {}", mac_text(self.source_mac)),
            format!("dst_mac {}", mac_text(self.destination_mac)),
            format!("src_min {}", self.source),
            format!("src_max {}", self.source),
            format!("dst_min {}", self.destination),
            format!("dst_max {}", self.destination),
            format!("udp_dst_min {DESTINATION_PORT}"),
            format!("udp_dst_max {DESTINATION_PORT}"),
            format!("udp_src_min {FIRST_FLOW_PORT}"),
            // The maximum is exclusive if it differs from the minimum.
            format!(
                "udp_src_max {}",
                if self.flows == 1 { u32::from(FIRST_FLOW_PORT) } else { last_port }
            ),
        ];
        settings.push(match self.rate {
            Some(rate) => format!("ratep {}", rate / threads),
            None => "delay 0".to_owned(),
        });
        if self.random_flows {
            settings.push("flag UDPSRC_RND".to_owned());
        }
        if let Some(queues) = self.queues {
            let queue = index % usize::from(queues);
            settings.push(format!("queue_map_min {queue}"));
            settings.push(format!("queue_map_max {queue}"));
        }
        if self.clones > 0 {
            settings.push(format!("clone_skb {}", self.clones));
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pktgen_settings_divide_rate_and_count_among_threads() {
        let pktgen = Pktgen::new().cores(&[1, 3]).queues(2).rate(1001).count(5).flows(16);
        let second = pktgen.settings(1);
        for setting in ["ratep 500", "count 3", "queue_map_min 1", "queue_map_max 1"] {
            assert!(second.iter().any(|line| line == setting), "{setting}: {second:?}");
        }
        assert!(second.contains(&"udp_src_max 1040".to_owned()), "{second:?}");
        assert!(!second.iter().any(|line| line.starts_with("clone_skb")), "{second:?}");
    }

    #[test]
    fn pktgen_check_rejects_values_out_of_range() {
        for pktgen in [
            Pktgen::new().size(59),
            Pktgen::new().flows(0),
            Pktgen::new().flows(MAX_FLOWS),
            Pktgen::new().cores(&[]),
            Pktgen::new().cores(&[1, 1]),
            Pktgen::new().cores(&[0, 1]).rate(1),
            Pktgen::new().queues(0),
        ] {
            assert!(matches!(pktgen.check(), Err(Error::Value { .. })), "{pktgen:?}");
        }
        assert!(Pktgen::new().flows(MAX_FLOWS - 1).rate(1).check().is_ok());
    }
}
