//! Building a test bench.

use std::collections::HashSet;
use std::sync::Arc;

use xdpfwd_wire::MacAddr;
use xdpfwd_xsk::fake_kernel::FakeKernel;
use xdpfwd_xsk::{HugePages, Umem, UmemConfig};

use super::bench::TestBench;
use super::error::{MAX_PORTS, TestBenchError};
use super::plans::{NamedPlan, Plans, build};
use super::stages::IntoStages;
use crate::chain::NamedStage;
use crate::plan::{BuildCx, StagePlan};
use crate::ports::{PortInfo, Ports};
use crate::verdict::PortId;
use crate::worker::Worker;

/// Default number of frames per port: enough for its fill ring, its egress queue and frames that
/// stages hold.
const FRAMES_PER_PORT: u32 = 512;

/// Builds a [`TestBench`].
#[must_use = "call `build`"]
pub struct TestBenchBuilder {
    ports: Vec<PortInfo>,
    umem: Option<UmemConfig>,
    workers: usize,
    paths: Vec<PathSpec>,
}

struct PathSpec {
    from: String,
    to: String,
    stages: PathStages,
}

enum PathStages {
    Built(Vec<NamedStage>),
    Planned(Vec<NamedPlan>),
}

impl TestBench {
    /// Creates a bench with the ports `lan` ([`PortId`] 0) and `wan` ([`PortId`] 1), a path from
    /// `lan` to `wan` with the given stages, and a path back without stages.
    ///
    /// # Panics
    ///
    /// If the process cannot get 2 MiB of packet memory.
    #[track_caller]
    pub fn new(stages: impl IntoStages) -> Self {
        match Self::builder().path("lan", "wan", stages).path("wan", "lan", ()).build() {
            Ok(bench) => bench,
            Err(error) => panic!("{error}"),
        }
    }

    /// Creates a builder for any ports and paths.
    pub fn builder() -> TestBenchBuilder {
        TestBenchBuilder { ports: Vec::new(), umem: None, workers: 1, paths: Vec::new() }
    }
}

impl TestBenchBuilder {
    /// Adds a port with the next number. A bench without ports gets `lan` and `wan`.
    pub fn port(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.ports.push(PortInfo::new(PortId(0), name.clone(), name));
        self
    }

    /// Adds ports with IP addresses, MAC addresses and MTUs. The default MAC address is
    /// 02:00:00:00:00:NN, where NN is the position of the port, from 01, in hexadecimal.
    pub fn ports(mut self, ports: Ports) -> Self {
        self.ports.extend(ports.iter().cloned());
        self
    }

    /// Adds a path between two ports. Its stages are already built, without the ports of the bench;
    /// use [`plans`](Self::plans) for stages that need them.
    pub fn path(self, from: &str, to: &str, stages: impl IntoStages) -> Self {
        self.add(from, to, PathStages::Built(stages.into_stages()))
    }

    /// Adds a path whose stages are built from plans, with the ports of the bench in their
    /// [`BuildCx`]. A [`ResourceOwner`](crate::ResourceOwner) acquires its resources first, and
    /// releases them when the bench is dropped.
    pub fn plans<N: Into<String>>(
        self,
        from: &str,
        to: &str,
        plans: impl IntoIterator<Item = (N, Arc<dyn StagePlan>)>,
    ) -> Self {
        let plans = plans.into_iter().map(|(name, plan)| (name.into(), plan));
        self.add(from, to, PathStages::Planned(plans.collect()))
    }

    fn add(mut self, from: &str, to: &str, stages: PathStages) -> Self {
        self.paths.push(PathSpec { from: from.to_owned(), to: to.to_owned(), stages });
        self
    }

    /// Sets the number of workers in the [`BuildCx`], 1 by default. The bench runs only worker 0.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// Sets the packet memory. The default is 512 frames per port, and at least 1024 frames, of
    /// 2048 bytes each, without reserved huge pages.
    pub fn umem(mut self, config: UmemConfig) -> Self {
        self.umem = Some(config);
        self
    }

    /// Builds the bench.
    ///
    /// # Errors
    ///
    /// If there are too many ports, a port name is unknown or used twice, two paths start from one
    /// port, a stage cannot acquire its resources, or the packet memory cannot be created.
    pub fn build(self) -> Result<TestBench, TestBenchError> {
        let Self { mut ports, umem, workers, paths } = self;
        if ports.is_empty() {
            ports = ["lan", "wan"].map(|name| PortInfo::new(PortId(0), name, name)).into();
        }
        if ports.len() > MAX_PORTS {
            return Err(TestBenchError::TooManyPorts(ports.len()));
        }
        let mut names = HashSet::new();
        if let Some(port) = ports.iter().find(|port| !names.insert(port.name.clone())) {
            return Err(TestBenchError::DuplicatePort(port.name.clone()));
        }
        let with_mac = |(number, port): (u8, PortInfo)| {
            let mac = port.mac.or(Some(MacAddr([2, 0, 0, 0, 0, number])));
            PortInfo { mac, ..port }
        };
        let ports: Ports = (1..=u8::MAX).zip(ports).map(with_mac).collect();
        let port_count = ports.iter().count() as u32;
        let umem = umem.unwrap_or_else(|| UmemConfig {
            frames: FRAMES_PER_PORT * port_count.max(2),
            huge_pages: HugePages::Off,
            ..UmemConfig::default()
        });
        let (umem, mut pool) = Umem::new(&umem)?;
        let (queues, kernels): (Vec<_>, Vec<_>) =
            (0..port_count).map(|index| FakeKernel::port(&umem, &mut pool, index)).unzip();
        let mut builder = Worker::builder(umem, pool);
        for queue in queues {
            builder = builder.port(vec![Box::new(queue)]);
        }
        let port_id = |name: &str| match ports.by_name(name) {
            Some(port) => Ok(port.id),
            None => {
                let (name, known) = (name.to_owned(), ports.names());
                Err(TestBenchError::NoSuchPort { name, known })
            }
        };
        let mut plans = Plans::default();
        let mut path_ports: Vec<(PortId, PortId)> = Vec::new();
        for path in paths {
            let (from, to) = (port_id(&path.from)?, port_id(&path.to)?);
            if path_ports.iter().any(|(other, _)| *other == from) {
                return Err(TestBenchError::TwoPaths(path.from));
            }
            path_ports.push((from, to));
            let stages = match path.stages {
                PathStages::Built(stages) => stages,
                PathStages::Planned(named) => {
                    plans.acquire(from, &named)?;
                    let cx = BuildCx { workers, from, to, ports: &ports, ..BuildCx::default() };
                    build(&named, &cx)
                }
            };
            builder = builder.path(from, to, stages);
        }
        let worker = builder.build()?;
        Ok(TestBench::start(worker, kernels, ports, path_ports, workers, plans))
    }
}
