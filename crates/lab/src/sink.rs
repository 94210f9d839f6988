//! The sink: counts the arriving frames and optionally verifies them.

use std::net::Ipv4Addr;

use libbpf_rs::{Link, MapHandle, Object};
use nix::net::if_::if_nametoindex;

use crate::{Counters, Error, Histogram, Namespace, bpf, namespace::NamespaceHandle, require_root};

/// An XDP program that counts and drops the generator's frames. Dropping this value detaches it.
#[derive(Debug)]
pub struct Sink {
    counters: MapHandle,
    latency: MapHandle,
    // Field order matters: the link is dropped before the program.
    link: Link,
    _object: Object,
}

/// The counters of a [`Sink`] since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkCounters {
    /// The generator's frames, including corrupt, duplicate and reordered ones; all frames with
    /// [`SinkBuilder::anything`], those of the tunnel with [`SinkBuilder::esp`].
    pub arrived: Counters,
    /// Other frames, such as ARP, which are passed to the kernel.
    pub foreign: u64,
    /// With check on: frames with an invalid magic number, IPv4 length, IPv4 header checksum or
    /// pattern. (A forwarder may rewrite MAC addresses, TTL and IPv4 addresses.)
    pub corrupt: u64,
    /// With check on: frames that arrived after a later frame of their flow. (For the order of all
    /// traffic, use one flow.)
    pub reordered: u64,
    /// With check on: repeated frames, within 262144 sequence numbers.
    pub duplicates: u64,
}

impl SinkCounters {
    /// Returns whether no frame was corrupt, reordered or duplicate, with check on.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.corrupt == 0 && self.reordered == 0 && self.duplicates == 0
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // Closing the link would detach the program some time later, and another sink could not be
        // attached until then. Fails only if the interface is gone.
        let _ = self.link.detach();
    }
}

/// The options of a [`Sink`].
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct SinkBuilder {
    check: bool,
    anything: bool,
    latency: bool,
    esp: Option<[Ipv4Addr; 2]>,
}

impl SinkBuilder {
    /// Checks every frame for corruption, order and duplicates. Takes about 20 ns per frame on the
    /// receiving core, more for long frames: leave it off in speed measurements.
    pub fn check(mut self, on: bool) -> Self {
        self.check = on;
        self
    }

    /// Counts and drops all frames, for a forwarder (a tunnel) that changes them beyond
    /// recognition.
    pub fn anything(mut self, on: bool) -> Self {
        self.anything = on;
        self
    }

    /// Counts and drops ESP over IPv4 from `source` to `destination` instead of the generator's
    /// frames, for a forwarder that encrypts. Such frames have neither contents to check nor a send
    /// time.
    pub fn esp(mut self, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        self.esp = Some([source, destination]);
        self
    }

    /// Records a histogram of latencies ([`Sink::latency`]) from the send time in each frame. Costs
    /// a clock read and a counter update per frame on the receiving core.
    pub fn latency(mut self, on: bool) -> Self {
        self.latency = on;
        self
    }

    /// Attaches the sink to an interface of `namespace`.
    ///
    /// # Errors
    ///
    /// Not root, no such interface, another XDP program is attached, or the error of libbpf.
    pub fn attach(self, namespace: &Namespace, interface: &str) -> Result<Sink, Error> {
        let handle = namespace.handle()?;
        std::thread::scope(|scope| {
            scope
                .spawn(|| self.attach_in(&handle, interface))
                .join()
                .map_err(|_| Error::Panicked("the sink"))?
        })
    }

    /// Attaches the sink in the network namespace of this process.
    ///
    /// # Errors
    ///
    /// As [`Self::attach`].
    pub fn attach_here(self, interface: &str) -> Result<Sink, Error> {
        self.attach_in(&NamespaceHandle::current(), interface)
    }

    fn attach_in(self, handle: &NamespaceHandle, interface: &str) -> Result<Sink, Error> {
        require_root("the sink")?;
        handle.enter()?;
        let ifindex = if_nametoindex(interface)
            .map_err(Error::nix(format!("looking up the sink's interface {interface}")))?;
        // `struct config` of bpf/sink.bpf.c.
        let mut config = Vec::from(u32::from(self.check).to_ne_bytes());
        config.extend(u32::from(self.anything).to_ne_bytes());
        config.extend(u32::from(self.latency).to_ne_bytes());
        config.extend(u32::from(self.esp.is_some()).to_ne_bytes());
        for address in self.esp.unwrap_or([Ipv4Addr::UNSPECIFIED; 2]) {
            config.extend(address.octets());
        }
        let object = bpf::load_sink(&config)?;
        let link = object
            .progs_mut()
            .find(|program| program.name() == "sink")
            .ok_or(Error::Object("program sink"))?
            .attach_xdp(ifindex as i32)
            .map_err(Error::bpf(
                format!("attaching the sink to {interface}"),
                "check with `ip link` whether another XDP program is attached",
            ))?;
        let (counters, latency) =
            (bpf::map_handle(&object, "counters")?, bpf::map_handle(&object, "latency")?);
        Ok(Sink { counters, latency, link, _object: object })
    }
}

impl Sink {
    /// Returns a builder for a sink that only counts.
    pub fn builder() -> SinkBuilder {
        SinkBuilder::default()
    }

    /// Attaches a sink that only counts.
    ///
    /// # Errors
    ///
    /// As [`SinkBuilder::attach`].
    pub fn attach(namespace: &Namespace, interface: &str) -> Result<Self, Error> {
        Self::builder().attach(namespace, interface)
    }

    /// Returns the counters, summed over all cores.
    ///
    /// # Errors
    ///
    /// The program's map cannot be read.
    pub fn seen(&self) -> Result<SinkCounters, Error> {
        let [packets, bytes, foreign, corrupt, reordered, duplicates] =
            bpf::read(&self.counters, "sink")?;
        Ok(SinkCounters {
            arrived: Counters { packets, bytes },
            foreign,
            corrupt,
            reordered,
            duplicates,
        })
    }

    /// Returns the latencies of all cores, from the generator's BPF program to the sink's; empty
    /// without [`SinkBuilder::latency`].
    ///
    /// Reading takes about 1 ms, during which the sink may count further frames.
    ///
    /// # Errors
    ///
    /// The program's map cannot be read.
    pub fn latency(&self) -> Result<Histogram, Error> {
        let mut histogram = Histogram::default();
        for (bucket, count) in (0u32..).zip(histogram.counts_mut()) {
            [*count] = bpf::read_at(&self.latency, bucket, "sink")?;
        }
        Ok(histogram)
    }
}
