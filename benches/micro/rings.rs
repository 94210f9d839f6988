//! The rings: nanoseconds per packet in batches of 1, 8 and 64, compared with the same loop in C
//! and with libxdp's functions.
//!
//! A round is: packets arrive (the fake kernel), receive and refill, transmit, completion (the fake
//! kernel), reclaim. Each sample is the time of rounds with the fake kernel minus the time of as
//! many rounds of the fake kernel alone. It uses the thread's CPU time, which excludes preemption.
//! One iteration, as criterion counts, is one packet.
//!
//! - `rings`: the four rings alone, [`BareRings`].
//! - `port`: the same through [`Port`]: owned frames, the owner record, a batch, an egress queue,
//!   counters.
//! - `swap`: `port` with the MAC addresses of each packet swapped and 4096 frames in the fill ring.
//! - `worker`: `swap` in a worker with the stage `mac-swap`.
//!
//! After criterion's results, a table compares all of them with the C twins
//! (benches/peers/ring_twin.c, a separate process), interleaved, as ratios within a round. Run
//! with `cargo bench -p xdpfwd-bench --bench rings` or `make bench-rings`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    hint::black_box,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use criterion::{BenchmarkId, Criterion};
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use xdpfwd_bench::machine::Machine;
use xdpfwd_pipeline::{PortId, Worker};
use xdpfwd_stages::MacSwap;
use xdpfwd_xsk::{
    BareRings, Batch, EgressQueue, HugePages, Pool, Port, Umem, UmemConfig, XskPort,
    fake_kernel::{Behaviour, FakeKernel, Sizes},
};

const BATCHES: [u32; 3] = [1, 8, 64];
const LENGTH: u32 = 60;
/// As in ring_twin.c.
const SIZES: Sizes = Sizes { fill: 4096, rx: 2048, tx: 2048, completion: 4096, start: 0 };

fn umem() -> (Umem, Pool) {
    let config = UmemConfig { frames: 16384, huge_pages: HugePages::Off, ..UmemConfig::default() };
    Umem::new(&config).expect("32 MiB of memory")
}

/// Returns a fake kernel that needs no wake-up.
fn willing() -> Behaviour {
    Behaviour { wants_tx_wakeup: false, ..Behaviour::default() }
}

/// A measured variant: the user's side of rounds of `n` packets, with a fake kernel.
trait Subject {
    fn rounds(&mut self, n: u32, rounds: u64);
}

struct Bare(BareRings, FakeKernel);

impl Bare {
    fn new() -> Self {
        let (rings, kernel) = BareRings::new(&umem().0, SIZES);
        kernel.set(willing());
        Self(rings, kernel)
    }
}

impl Subject for Bare {
    fn rounds(&mut self, n: u32, rounds: u64) {
        let Self(rings, kernel) = self;
        for _ in 0..rounds {
            kernel.arrive(n, LENGTH);
            rings.receive(n);
            black_box(rings.transmit());
            kernel.complete();
            rings.reclaim();
        }
    }
}

struct OnePort {
    port: XskPort,
    kernel: FakeKernel,
    pool: Pool,
    batch: Batch,
    queue: EgressQueue,
    swap: bool,
}

impl OnePort {
    fn new(swap: bool) -> Self {
        let (umem, mut pool) = umem();
        let (port, kernel) = FakeKernel::port_with(&umem, &mut pool, 0, SIZES, willing());
        let queue = EgressQueue::new(&umem, 512);
        Self { port, kernel, pool, batch: Batch::new(), queue, swap }
    }
}

impl Subject for OnePort {
    fn rounds(&mut self, n: u32, rounds: u64) {
        let Self { port, kernel, pool, batch, queue, swap } = self;
        for _ in 0..rounds {
            kernel.arrive(n, LENGTH);
            port.receive(batch, pool);
            for frame in batch.places_mut().iter_mut().flatten().take_while(|_| *swap) {
                if let Some((destination, source)) =
                    frame.get_mut(..12).map(|macs| macs.split_at_mut(6))
                {
                    destination.swap_with_slice(source);
                }
            }
            queue.push_batch(batch, |refused| panic!("there is room for a batch: {refused}"));
            port.transmit(queue);
            kernel.complete();
            port.reclaim(pool);
        }
    }
}

/// A worker that forwards between two ports, as in the lab.
struct Whole(Worker<(MacSwap,)>, FakeKernel, FakeKernel);

impl Whole {
    fn new() -> Self {
        let (umem, mut pool) = umem();
        let (lan, from) = FakeKernel::port_with(&umem, &mut pool, 0, SIZES, willing());
        let (wan, to) = FakeKernel::port_with(&umem, &mut pool, 1, SIZES, willing());
        let worker = Worker::builder(umem, pool)
            .port(vec![Box::new(lan)])
            .port(vec![Box::new(wan)])
            .path(PortId(0), PortId(1), (MacSwap,))
            .path(PortId(1), PortId(0), (MacSwap,))
            .build()
            .expect("a cross-connect");
        Self(worker, from, to)
    }
}

impl Subject for Whole {
    fn rounds(&mut self, n: u32, rounds: u64) {
        let Self(worker, from, to) = self;
        for _ in 0..rounds {
            from.arrive(n, LENGTH);
            worker.poll_once();
            to.complete();
        }
    }
}

/// A subject, and a fake kernel alone.
struct Net {
    subject: Box<dyn Subject>,
    alone: FakeKernel,
}

impl Net {
    fn new(subject: impl Subject + 'static) -> Self {
        let (umem, mut pool) = umem();
        let (port, alone) = FakeKernel::port_with(&umem, &mut pool, 0, SIZES, willing());
        // The port must not use these chunks and rings any more.
        drop(port);
        let mut net = Self { subject: Box::new(subject), alone };
        net.sample(64, 1 << 16);
        net
    }

    /// Returns the nanoseconds for `packets` packets in batches of `n`, without the fake kernel.
    fn sample(&mut self, n: u32, packets: u64) -> f64 {
        let rounds = packets.div_ceil(u64::from(n));
        let start = now();
        self.subject.rounds(n, rounds);
        let between = now();
        for _ in 0..rounds {
            self.alone.arrive(n, LENGTH);
            self.alone.pretend_user(n);
            self.alone.complete();
        }
        let net = (between - start).as_nanos() as f64 - (now() - between).as_nanos() as f64;
        net * packets as f64 / (rounds * u64::from(n)) as f64
    }
}

/// Returns the CPU time of this thread.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock").into()
}

/// A running benches/peers/ring_twin.c.
struct Twin {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Twin {
    /// Compiles and starts the program, or returns a description of missing tools.
    fn start() -> Result<Self, String> {
        let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("ring_twin");
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let sources = ["ring_twin.c", "libxdp_calls.c"].map(|source| peers.join(source));
        let cc = Command::new("cc")
            .args(["-O3", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&program)
            .args(sources)
            .output();
        match cc {
            Err(error) => {
                return Err(format!(
                    "cc: {error}; apt-get install gcc libc6-dev libxdp-dev libbpf-dev"
                ));
            }
            Ok(output) if !output.status.success() => {
                let said = String::from_utf8_lossy(&output.stderr);
                let why = said
                    .lines()
                    .find(|line| line.contains("error"))
                    .unwrap_or("it does not say why");
                return Err(format!(
                    "ring_twin.c does not compile (apt-get install gcc libxdp-dev libbpf-dev): {why}"
                ));
            }
            Ok(_) => {}
        }
        let start = || {
            let mut process =
                Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let pipes = process.stdin.take().zip(process.stdout.take());
            let (stdin, stdout) = pipes.ok_or_else(|| std::io::Error::other("no pipes"))?;
            Ok(Self { process, stdin, stdout: BufReader::new(stdout) })
        };
        start().map_err(|error: std::io::Error| format!("{}: {error}", program.display()))
    }

    fn sample(&mut self, variant: &str, swap: bool, n: u32, packets: u64) -> f64 {
        let rounds = packets.div_ceil(u64::from(n));
        let all = rounds * u64::from(n);
        let mut line = String::new();
        writeln!(self.stdin, "{variant} {n} {all} {}", u8::from(swap)).expect("ring_twin listens");
        self.stdout.read_line(&mut line).expect("ring_twin answers");
        let mut numbers =
            line.split_whitespace().map(|number| number.parse::<f64>().expect("a number"));
        let (whole, kernel) = numbers.next().zip(numbers.next()).expect("two numbers and more");
        (whole - kernel) * packets as f64 / all as f64
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

type Sampler<'a> = Box<dyn FnMut(u32, u64) -> f64 + 'a>;

const OURS: [&str; 4] = ["rings", "port", "swap", "worker"];
/// The C twins, each with its counterpart here.
const TWINS: [(&str, &str, bool, &str); 5] = [
    ("c-rings", "own", false, "rings"),
    ("libxdp-rings", "libxdp", false, "rings"),
    ("xsk-rs-calls-rings", "calls", false, "rings"),
    ("c-swap", "own", true, "swap"),
    ("xsk-rs-calls-swap", "calls", true, "swap"),
];

fn subject(name: &str) -> Net {
    match name {
        "rings" => Net::new(Bare::new()),
        "port" => Net::new(OnePort::new(false)),
        "swap" => Net::new(OnePort::new(true)),
        _ => Net::new(Whole::new()),
    }
}

fn criterion(samplers: &mut BTreeMap<&'static str, Sampler<'_>>) {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for (name, sampler) in samplers {
        let mut group = criterion.benchmark_group(*name);
        for n in BATCHES {
            group.bench_with_input(BenchmarkId::from_parameter(n), &n, |bencher, &n| {
                bencher.iter_custom(|packets| {
                    // Clock reads dominate short samples: measure at least 64 Ki packets and scale
                    // the result.
                    let measured = packets.max(1 << 16);
                    let nanoseconds = sampler(n, measured) * packets as f64 / measured as f64;
                    // A difference can be negative on a busy machine; criterion needs a positive
                    // time.
                    Duration::from_nanos(nanoseconds.max(1.0) as u64)
                });
            });
        }
        group.finish();
    }
    criterion.final_summary();
}

/// Measures all variants interleaved, and prints medians and ratios within a round.
fn table(samplers: &mut BTreeMap<&'static str, Sampler<'_>>, missing: Option<&str>) {
    const ROUNDS: usize = 41;
    const PACKETS: u64 = 1 << 18;
    let mut taken: BTreeMap<(&str, u32), Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for n in BATCHES {
            for (name, sampler) in samplers.iter_mut() {
                taken.entry((name, n)).or_default().push(sampler(n, PACKETS) / PACKETS as f64);
            }
        }
    }
    let mut text = format!(
        "ns a packet, median of {ROUNDS} rounds in turn; in brackets ours / that, median of the rounds' ratios\n"
    );
    let _ =
        writeln!(text, "  {:<22}{}", "batches of", BATCHES.map(|n| format!("{n:>18}")).concat());
    let cell = |name: &'static str, twin_of: Option<&'static str>, n: u32| {
        let own = &taken[&(name, n)];
        let ratio = twin_of.map_or(String::new(), |ours| {
            let ratios =
                taken[&(ours, n)].iter().zip(own).map(|(ours, twin)| ours / twin).collect();
            format!("({:.2})", median(ratios))
        });
        format!("{:>10.2} {ratio:>7}", median(own.clone()))
    };
    for name in OURS {
        let _ = writeln!(text, "  {name:<22}{}", BATCHES.map(|n| cell(name, None, n)).concat());
    }
    for (name, .., ours) in TWINS.into_iter().filter(|_| missing.is_none()) {
        let _ =
            writeln!(text, "  {name:<22}{}", BATCHES.map(|n| cell(name, Some(ours), n)).concat());
    }
    if let Some(why) = missing {
        let _ = writeln!(text, "  the C twins are missing: {why}");
    }
    println!("\n{text}");
    let rounded =
        |ns: &Vec<f64>| ns.iter().map(|ns| (1000.0 * ns).round() / 1000.0).collect::<Vec<f64>>();
    let raw: BTreeMap<_, _> =
        taken.iter().map(|((name, n), ns)| (format!("{name}/{n}"), rounded(ns))).collect();
    keep(&text, &json!({ "ns_per_packet": raw, "packets_a_sample": PACKETS, "missing": missing }));
}

/// Saves the results in benches/results/<date>-<host>/, as the lab benchmarks do.
fn keep(text: &str, numbers: &Value) {
    let machine = Machine::here();
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let directory = results.join(format!("{}-{}", machine.date, machine.host));
    let all = json!({
        "command": "cargo bench -p xdpfwd-bench --bench rings",
        "schema": 1,
        "what": "rings",
        "machine": machine,
        "numbers": numbers,
    });
    let written = fs::create_dir_all(&directory)
        .and_then(|()| fs::write(directory.join("rings.txt"), text))
        .and_then(|()| fs::write(directory.join("rings.json"), format!("{all}\n")));
    match written {
        Ok(()) => println!("raw numbers: {}", directory.join("rings.json").display()),
        Err(error) => eprintln!("the results can't be kept in {}: {error}", directory.display()),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let twin = Twin::start();
    let missing = twin.as_ref().err().cloned();
    if let Some(why) = &missing {
        eprintln!("the C twins are missing: {why}");
    }
    let twin = twin.ok().map(std::cell::RefCell::new);
    let mut samplers: BTreeMap<&'static str, Sampler<'_>> = BTreeMap::new();
    for name in OURS {
        let mut net = subject(name);
        samplers.insert(name, Box::new(move |n, packets| net.sample(n, packets)));
    }
    if let Some(twin) = &twin {
        for (name, variant, swap, _) in TWINS {
            samplers.insert(
                name,
                Box::new(move |n, packets| twin.borrow_mut().sample(variant, swap, n, packets)),
            );
        }
    }
    // `cargo test --all-targets` runs this as a test: run each variant once, without results.
    if std::env::args().any(|argument| argument == "--test")
        || !std::env::args().any(|argument| argument == "--bench")
    {
        for sampler in samplers.values_mut() {
            for n in BATCHES {
                sampler(n, 1 << 12);
            }
        }
        return;
    }
    if !std::env::args().any(|argument| argument == "--table-only") {
        criterion(&mut samplers);
    }
    table(&mut samplers, missing.as_deref());
}
