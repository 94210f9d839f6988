//! The far end: counts what arrives, and looks into it if asked.

use libbpf_rs::{Link, MapHandle, Object};
use nix::net::if_::if_nametoindex;

use crate::{Counters, Error, Histogram, Namespace, bpf, namespace::NamespaceHandle, require_root};

/// An XDP program on an interface that counts and drops. Dropped, it is detached.
#[derive(Debug)]
pub struct Sink {
    counters: MapHandle,
    latency: MapHandle,
    // In this order: the link goes before the program.
    _link: Link,
    _object: Object,
}

/// What a [`Sink`] has seen since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The generator's frames (damaged ones, duplicates and late ones included).
    pub arrived: Counters,
    /// Frames that are not the generator's, such as ARP: passed to the kernel, not in `arrived`.
    pub foreign: u64,
    /// With check on: frames whose magic, IPv4 length, IPv4 header checksum or pattern is wrong. (A
    /// forwarder may rewrite MAC addresses, TTL and IPv4 addresses; the time of sending is not
    /// checked.)
    pub corrupt: u64,
    /// With check on: frames that came after a later one of their flow. (Between flows no order is
    /// promised: give all traffic one flow to check that, too.)
    pub reordered: u64,
    /// With check on: frames that had come before, at most 262144 sequence numbers ago.
    pub duplicates: u64,
}

impl Seen {
    /// Whether nothing was wrong with what arrived. Only says something with check on.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.corrupt == 0 && self.reordered == 0 && self.duplicates == 0
    }
}

/// How a [`Sink`] is to look at frames.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct SinkBuilder {
    check: bool,
    anything: bool,
    latency: bool,
}

impl SinkBuilder {
    /// Looks into every frame of the generator: damage, order, duplicates. Costs the core that
    /// receives some 20 ns a frame, and more for long ones: leave it off where speed is measured.
    pub fn check(mut self, on: bool) -> Self {
        self.check = on;
        self
    }

    /// Counts and drops whatever arrives, for a forwarder whose frames are not the generator's any
    /// more (a tunnel).
    pub fn anything(mut self, on: bool) -> Self {
        self.anything = on;
        self
    }

    /// Keeps a histogram of how long frames of the generator were on their way, by the time that
    /// each carries ([`Sink::latency`]). Costs the core that receives a look at the clock and a
    /// counter for each frame.
    pub fn latency(mut self, on: bool) -> Self {
        self.latency = on;
        self
    }

    /// Attaches it to `interface` in `namespace`.
    ///
    /// # Errors
    ///
    /// Not root, no such interface, another XDP program there, or what libbpf says.
    pub fn attach(self, namespace: &Namespace, interface: &str) -> Result<Sink, Error> {
        let handle = namespace.handle()?;
        std::thread::scope(|scope| {
            scope
                .spawn(|| self.attach_in(&handle, interface))
                .join()
                .map_err(|_| Error::Panicked("the sink"))?
        })
    }

    /// Attaches it to `interface` in the network namespace this process is in.
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
        let object = bpf::load_sink(&config)?;
        let link = object
            .progs_mut()
            .find(|program| program.name() == "sink")
            .ok_or(Error::Object("program sink"))?
            .attach_xdp(ifindex as i32)
            .map_err(Error::bpf(
                format!("attaching the sink to {interface}"),
                "is another XDP program there?",
            ))?;
        let (counters, latency) = (bpf::map(&object, "counters")?, bpf::map(&object, "latency")?);
        Ok(Sink { counters, latency, _link: link, _object: object })
    }
}

impl Sink {
    /// A sink that only counts.
    pub fn builder() -> SinkBuilder {
        SinkBuilder::default()
    }

    /// A sink that only counts, on `interface` in `namespace`.
    ///
    /// # Errors
    ///
    /// As [`SinkBuilder::attach`].
    pub fn attach(namespace: &Namespace, interface: &str) -> Result<Self, Error> {
        Self::builder().attach(namespace, interface)
    }

    /// What was seen so far, over all cores.
    ///
    /// # Errors
    ///
    /// The program's map can't be read.
    pub fn seen(&self) -> Result<Seen, Error> {
        let [packets, bytes, foreign, corrupt, reordered, duplicates] =
            bpf::read(&self.counters, "sink")?;
        Ok(Seen { arrived: Counters { packets, bytes }, foreign, corrupt, reordered, duplicates })
    }

    /// How long the frames so far were on their way, from the generator's program to this one, over
    /// all cores. Nothing unless it was built with [`SinkBuilder::latency`].
    ///
    /// Reading takes about a millisecond, in which frames go on arriving.
    ///
    /// # Errors
    ///
    /// The program's map can't be read.
    pub fn latency(&self) -> Result<Histogram, Error> {
        let mut histogram = Histogram::default();
        for (bucket, count) in (0u32..).zip(histogram.counts_mut()) {
            [*count] = bpf::read_at(&self.latency, bucket, "sink")?;
        }
        Ok(histogram)
    }
}
