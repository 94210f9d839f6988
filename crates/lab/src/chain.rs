//! The three connected namespaces of a lab.

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Error, Namespace,
    namespace::{self, kept_name, sweep},
    require_root,
    veth::{self, End, MAX_MTU, mac},
};

/// The address of `gen0`, and the source of the generator's frames.
pub const GEN_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The address of `sink0`, and the destination of the generator's frames.
pub const SINK_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

const LABELS: [&str; 3] = ["gen", "fwd", "sink"];
const CARRIER_DEADLINE: Duration = Duration::from_secs(10);

/// The namespaces gen, fwd and sink, connected by the veth pairs `gen0 ═ fwd0` and `fwd1 ═ sink0`.
/// (Not a chain of stages.)
///
/// All ends are up, with GRO and therefore NAPI on; checksum and segmentation offload are off. The
/// MAC addresses are `02:00:00:00:00:01` (gen0) to `…:04` (sink0). IPv6 is off by default, so that
/// only the generator's frames are on the wires. Dropping the chain removes the namespaces, except
/// after [`ChainBuilder::keep_as`].
#[derive(Debug)]
pub struct Chain {
    generator: Namespace,
    forwarder: Namespace,
    sink: Namespace,
}

impl Chain {
    /// Returns a builder with one queue, MTU 1500 and no addresses.
    pub fn builder() -> ChainBuilder {
        ChainBuilder { queues: 1, mtu: 1500, addresses: false, ipv6: false, keep: None }
    }

    /// Returns the namespace of `gen0`. (`gen` is a keyword.)
    #[must_use]
    pub fn gen_(&self) -> &Namespace {
        &self.generator
    }

    /// Returns the namespace of `fwd0` and `fwd1`.
    #[must_use]
    pub fn fwd(&self) -> &Namespace {
        &self.forwarder
    }

    /// Returns the namespace of `sink0`.
    #[must_use]
    pub fn sink(&self) -> &Namespace {
        &self.sink
    }
}

/// The options of a [`Chain`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ChainBuilder {
    queues: u16,
    mtu: u16,
    addresses: bool,
    ipv6: bool,
    keep: Option<String>,
}

impl ChainBuilder {
    /// Sets the number of queues of each end, 1–64.
    ///
    /// veth puts a redirected frame into receive queue *core of the sender* mod *queues*, so one
    /// generator feeds only one queue.
    pub fn queues(mut self, queues: u16) -> Self {
        self.queues = queues;
        self
    }

    /// Sets the MTU in bytes, 576–[`MAX_MTU`]. The largest frame is 14 bytes longer.
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = mtu;
        self
    }

    /// Assigns 10.77.0.1/24 to gen0 and 10.77.0.2/24 to sink0, for ping or iperf3 through a
    /// forwarder. The kernel then also sends ARP packets.
    pub fn addresses(mut self, on: bool) -> Self {
        self.addresses = on;
        self
    }

    /// Enables IPv6 and assigns fd77::1/64 to gen0 and fd77::2/64 to sink0. The kernel then also
    /// sends multicast packets.
    pub fn ipv6(mut self, on: bool) -> Self {
        self.ipv6 = on;
        self
    }

    /// Names the namespaces `xdpfwd-<name>-gen`, `-fwd` and `-sink`, and keeps them until
    /// [`take_down`].
    pub fn keep_as(mut self, name: impl Into<String>) -> Self {
        self.keep = Some(name.into());
        self
    }

    /// Removes the namespaces of killed labs, builds the chain, and waits until all ends have a
    /// carrier.
    ///
    /// # Errors
    ///
    /// Not root, a value out of range, or the error of `ip` or `ethtool`.
    pub fn build(self) -> Result<Chain, Error> {
        require_root("building a lab")?;
        if !(1..=64).contains(&self.queues) {
            return Err(Error::Value {
                parameter: "number of queues",
                value: self.queues.to_string(),
                accepted: "use 1–64".into(),
            });
        }
        if !(576..=MAX_MTU).contains(&self.mtu) {
            return Err(Error::Value {
                parameter: "MTU",
                value: self.mtu.to_string(),
                accepted: format!("use 576–{MAX_MTU}, the range of a veth with native XDP"),
            });
        }
        sweep()?;
        let create = |label| match &self.keep {
            Some(name) => Namespace::create_kept(name, label),
            None => Namespace::create(label),
        };
        let chain = Chain {
            generator: create(LABELS[0])?,
            forwarder: create(LABELS[1])?,
            sink: create(LABELS[2])?,
        };
        let built = self.configure(&chain);
        if let (Err(_), Some(name)) = (&built, &self.keep) {
            // The error in `built` has the cause, so ignore errors of the removal.
            let _ = take_down(name);
        }
        built.map(|()| chain)
    }

    fn configure(&self, chain: &Chain) -> Result<(), Error> {
        for namespace in [&chain.generator, &chain.forwarder, &chain.sink] {
            if !self.ipv6 {
                namespace.sysctl("ipv6/conf/all/disable_ipv6", "1")?;
                namespace.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
            }
            namespace.ip(&["link", "set", "lo", "up"])?;
        }
        let ends = [
            End { namespace: &chain.generator, name: "gen0", mac: mac(1) },
            End { namespace: &chain.forwarder, name: "fwd0", mac: mac(2) },
            End { namespace: &chain.forwarder, name: "fwd1", mac: mac(3) },
            End { namespace: &chain.sink, name: "sink0", mac: mac(4) },
        ];
        veth::create(&ends[0], &ends[1], self.queues, self.mtu)?;
        veth::create(&ends[2], &ends[3], self.queues, self.mtu)?;
        if self.addresses {
            chain.generator.ip(&["address", "add", &format!("{GEN_ADDRESS}/24"), "dev", "gen0"])?;
            chain.sink.ip(&["address", "add", &format!("{SINK_ADDRESS}/24"), "dev", "sink0"])?;
        }
        if self.ipv6 {
            // Without duplicate address detection (nodad), the addresses are usable at once.
            chain.generator.ip(&["address", "add", "fd77::1/64", "dev", "gen0", "nodad"])?;
            chain.sink.ip(&["address", "add", "fd77::2/64", "dev", "sink0", "nodad"])?;
        }
        ends.iter().try_for_each(wait_for_carrier)
    }
}

fn wait_for_carrier(end: &End<'_>) -> Result<(), Error> {
    let start = Instant::now();
    while veth::link(end.namespace, end.name)?["operstate"] != "UP" {
        if start.elapsed() > CARRIER_DEADLINE {
            return Err(Error::Timeout {
                event: format!("carrier on {} in {}", end.name, end.namespace.name()),
                seconds: CARRIER_DEADLINE.as_secs_f64(),
                hint: format!("check `ip -n {} link`", end.namespace.name()),
            });
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Removes the chain kept as `name`, and ends the processes inside. Returns the removed namespaces.
///
/// # Errors
///
/// Not root, no such lab, or the error of `ip netns`.
pub fn take_down(name: &str) -> Result<Vec<String>, Error> {
    require_root("removing network namespaces")?;
    let mut removed = Vec::new();
    let mut first_error = None;
    for label in LABELS {
        let namespace_name = kept_name(name, label)?;
        match namespace::remove(&namespace_name) {
            Ok(()) => removed.push(namespace_name),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    match first_error {
        Some(error) if removed.is_empty() => Err(error),
        _ => Ok(removed),
    }
}
