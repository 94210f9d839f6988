//! Measures the stages `esp-seal` and `esp-open` in a worker.
//!
//! The path has both stages, so packets leave it unchanged and circulate.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::mem;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::RawFd;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use xdpfwd_ipsec::Transform;
use xdpfwd_pipeline::{BuildCx, Cx, NamedStage, PlanCx, PortId, Stage, StageConfig, View, Worker};
use xdpfwd_stages::esp::key_file;
use xdpfwd_stages::esp::state_file::StateFile;
use xdpfwd_xsk::{
    Batch, Counters, EgressQueue, Frame, HugePages, KernelCounters, Pool, Port, PortFrameCounts,
    Quarantine, Umem, UmemConfig,
};

use super::options::Backend;

/// A worker that circulates packets of one length.
pub(crate) struct StageBench {
    worker: Worker<Vec<NamedStage>>,
    frames: Frames,
    count: usize,
    /// For sealing and opening.
    samples: [Samples; 2],
    /// Whether the core does other work before each batch of a stage.
    has_other_work: Rc<Cell<bool>>,
    _folder: TempDir,
}

/// Nanoseconds per packet, one value per batch.
type Samples = Rc<RefCell<Vec<f64>>>;

/// Frames that wait to be received.
type Frames = Rc<RefCell<Vec<Frame>>>;

impl StageBench {
    pub(crate) fn new(
        backend: Backend,
        transform: Transform,
        count: usize,
        size: usize,
    ) -> Result<Self> {
        let folder = tempfile::tempdir().context("creating a folder for keys and state files")?;
        key_file::create(&folder.path().join("key"), transform)?;
        for name in ["seal", "open"] {
            StateFile::create(&folder.path().join(name))?;
        }
        let transform = transform.name();
        let common = |state: &str| {
            format!("lab = true\nstate_file = \"{state}\"\nbackend = \"{backend}\"\n")
        };
        let sa = format!(
            "[[sa]]\nspi = 0x1001\ntransform = \"{transform}\"\nkey_file = \"key\"\n\
             destination = \"192.0.2.2\"\n"
        );
        let seal = format!("mtu = 9216\n{}{sa}source = \"192.0.2.1\"\n", common("seal"));
        let open = format!("{}{sa}", common("open"));
        let samples = [Samples::default(), Samples::default()];
        let has_other_work = Rc::new(Cell::new(false));
        let stages = [
            build::<xdpfwd_stages::EspSealConfig>(&seal, folder.path())?,
            build::<xdpfwd_stages::EspOpenConfig>(&open, folder.path())?,
        ];
        let mut chain = Vec::new();
        for ((stage, samples), name) in stages.into_iter().zip(&samples).zip(["out", "in"]) {
            let stage = TimedStage {
                stage,
                samples: Rc::clone(samples),
                has_other_work: Rc::clone(&has_other_work),
                other_work: OtherWork::new()?,
            };
            chain.push(NamedStage::new(name, stage));
        }

        let frames = u32::try_from(count.max(4096)).unwrap_or(u32::MAX);
        let config = UmemConfig { frames, huge_pages: HugePages::Off, ..UmemConfig::default() };
        let (umem, mut pool) = Umem::new(&config)?;
        let frames = Frames::default();
        for _ in 0..count {
            let mut frame = pool.alloc().with_context(|| {
                format!("invalid --frames {count}: use at most {}", config.frames)
            })?;
            let packet = packet(size);
            frame.append(packet.len())?.copy_from_slice(&packet);
            frames.borrow_mut().push(frame);
        }
        let port = || -> Box<dyn Port> {
            Box::new(LoopbackPort { umem: umem.clone(), frames: Rc::clone(&frames) })
        };
        let worker = Worker::builder(umem.clone(), pool)
            .port(vec![port()])
            .port(vec![port()])
            .path(PortId(0), PortId(1), chain)
            .ledger(false)
            .build()?;
        Ok(Self { worker, frames, count, samples, has_other_work, _folder: folder })
    }

    /// Processes all packets `passes` times. Returns the batches' median time per packet in
    /// nanoseconds, for sealing and opening.
    pub(crate) fn round(&mut self, passes: usize) -> Result<[f64; 2]> {
        self.round_with(passes, median, |_| Ok(()))
    }

    /// Like [`Self::round`], but with caches as in the lab, and with the mean, as in the ledger.
    /// Another core writes all packets before each pass, as a receiving core does; this thread
    /// moves between the two cores. Before each batch, this core reads other memory and runs the
    /// kernel's network stack, as in the transmit path.
    pub(crate) fn round_of_other_core(
        &mut self,
        passes: usize,
        core: usize,
        other: usize,
    ) -> Result<[f64; 2]> {
        self.has_other_work.set(true);
        self.round_with(passes, mean, |frames| {
            move_to(other)?;
            for frame in frames.iter_mut() {
                let packet = black_box(frame.to_vec());
                frame.copy_from_slice(&packet);
            }
            move_to(core)
        })
    }

    /// Calls `prepare` before each pass, and `summarize` with the times of the batches.
    fn round_with(
        &mut self,
        passes: usize,
        summarize: fn(Vec<f64>) -> f64,
        prepare: impl Fn(&mut Vec<Frame>) -> Result<()>,
    ) -> Result<[f64; 2]> {
        // The first pass warms up.
        for pass in 0..=passes {
            if pass == 1 {
                self.samples.iter().for_each(|samples| samples.borrow_mut().clear());
            }
            prepare(&mut self.frames.borrow_mut())?;
            let batches = self.count / xdpfwd_ipsec::BATCH;
            let wanted_samples = self.samples[0].borrow().len() + batches;
            while self.samples[0].borrow().len() < wanted_samples {
                self.worker.poll_once();
            }
            let frames_left = self.frames.borrow().len();
            if frames_left != self.count {
                let drops = self.worker.report().drops;
                let drops: String = drops
                    .iter()
                    .map(|(reason, count)| format!(" {}: {count}", reason.name()))
                    .collect();
                bail!("only {frames_left} of {} packets passed; dropped:{drops}", self.count);
            }
        }
        Ok(self.samples.each_ref().map(|samples| summarize(mem::take(&mut *samples.borrow_mut()))))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn mean(values: Vec<f64>) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Moves this thread to a core.
fn move_to(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    let this_thread = Pid::from_raw(0);
    sched_setaffinity(this_thread, &cores).with_context(|| format!("cannot run on core {core}"))
}

fn build<C: StageConfig + DeserializeOwned>(text: &str, folder: &Path) -> Result<Box<dyn Stage>> {
    let config: C = toml::from_str(text)?;
    let plan = config.plan(&PlanCx::new(folder, 1))?;
    plan.as_resource_owner().context("the ESP stage owns no state file")?.acquire(&[])?;
    Ok(plan.build(&BuildCx::default()))
}

/// Returns a frame with `size` bytes of IPv4.
fn packet(size: usize) -> Vec<u8> {
    let mut packet = vec![0x5a; 14 + size];
    packet[12..14].copy_from_slice(&[8, 0]);
    let ip = &mut packet[14..];
    ip[..12].copy_from_slice(&[0x45, 0, (size >> 8) as u8, size as u8, 0, 0, 0, 0, 64, 17, 0, 0]);
    ip[12..16].copy_from_slice(&Ipv4Addr::new(10, 0, 0, 1).octets());
    ip[16..20].copy_from_slice(&Ipv4Addr::new(10, 1, 0, 1).octets());
    let sum: u32 =
        ip[..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip[24..26].copy_from_slice(&((size - 20) as u16).to_be_bytes());
    packet
}

/// Length of the IPv4 and UDP headers in bytes.
pub(super) const MIN_SIZE: usize = 28;

/// Memory that the kernel touches, roughly, to transmit a batch over a veth: for each packet a
/// socket buffer with its data, and a page of the other end.
const OTHER_MEMORY: usize = 64 * 6144;

struct TimedStage {
    stage: Box<dyn Stage>,
    samples: Samples,
    has_other_work: Rc<Cell<bool>>,
    other_work: OtherWork,
}

/// Work that takes the core's caches, of data and of instructions, from the stage.
struct OtherWork {
    memory: Vec<u8>,
    /// A socket that sends to itself.
    socket: UdpSocket,
}

impl OtherWork {
    fn new() -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|socket| socket.connect(socket.local_addr()?).map(|()| socket))
            .context("cannot open a UDP socket on the loopback interface")?;
        socket.set_nonblocking(true)?;
        Ok(Self { memory: vec![1; OTHER_MEMORY], socket })
    }

    fn run(&mut self) {
        const CACHE_LINE: usize = 64;
        for byte in self.memory.iter_mut().step_by(CACHE_LINE) {
            *byte = black_box(*byte);
        }
        // The kernel's code for one batch of packets. A datagram that gets lost does not matter:
        // the socket does not block.
        let mut datagram = [0; 64];
        for _ in 0..Batch::CAPACITY {
            let _ = self.socket.send(&datagram);
            let _ = self.socket.recv(&mut datagram);
        }
    }
}

impl Stage for TimedStage {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        if self.has_other_work.get() {
            self.other_work.run();
        }
        let packets = view.len() as f64;
        let start = Instant::now();
        self.stage.process(view, cx);
        self.samples.borrow_mut().push(start.elapsed().as_secs_f64() * 1e9 / packets);
    }

    fn tick(&mut self, cx: &mut Cx<'_>) {
        self.stage.tick(cx);
    }

    fn retire(&mut self, cx: &mut Cx<'_>) {
        self.stage.retire(cx);
    }
}

/// A port that shares `frames` with the other port: one receives what the other transmits.
struct LoopbackPort {
    umem: Umem,
    frames: Frames,
}

impl Port for LoopbackPort {
    fn umem(&self) -> Option<&Umem> {
        Some(&self.umem)
    }

    fn receive(&mut self, into: &mut Batch, _: &mut Pool) -> usize {
        let mut frames = self.frames.borrow_mut();
        let count = into.room().min(frames.len());
        for frame in frames.drain(..count) {
            if let Err(frame) = into.push(frame) {
                unreachable!("the batch has no room for {frame:?}");
            }
        }
        count
    }

    fn transmit(&mut self, queue: &mut EgressQueue) -> usize {
        let count = queue.len();
        self.frames.borrow_mut().extend(queue.drain(count));
        count
    }

    fn reclaim(&mut self, _: &mut Pool) -> usize {
        0
    }

    fn has_unsent(&self) -> bool {
        false
    }

    fn fd(&self) -> Option<RawFd> {
        None
    }

    fn frame_counts(&self) -> PortFrameCounts {
        PortFrameCounts::default()
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn kernel_counters(&self) -> KernelCounters {
        KernelCounters::default()
    }

    fn close(self: Box<Self>, _: &mut Pool) -> Quarantine {
        Quarantine::none()
    }
}
