//! Measures the rings: nanoseconds per packet in batches, compared with the same loop in C and with
//! libxdp's functions.
//!
//! In a round, the fake kernel delivers packets, the user side receives, refills and transmits, the
//! fake kernel completes the transmission, and the user side reclaims. A sample is the time of some
//! rounds minus that of as many rounds of the fake kernel alone, in CPU time of the thread, which
//! excludes preemption. An iteration in criterion's output is one packet.
//!
//! - `rings`: the four rings alone, [`BareRings`].
//! - `port`: the rings through [`Port`], with frames, a record of each chunk's owner, batch, egress
//!   queue and counters.
//! - `swap`: `port`, with the MAC addresses of each packet swapped.
//! - `worker`: `swap` in a worker with the stage `mac-swap`.
//!
//! After criterion's results, a table compares these variants with their C twins
//! (benches/peers/ring_twin.c, a separate process), as ratios of samples that were taken one after
//! the other. Run with `make bench-rings`.

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
    fake_kernel::{FakeKernel, FakeKernelConfig, FakeRingSizes},
};

const BATCHES: [u32; 3] = [1, 8, 64];
/// Packet length in bytes.
const LENGTH: u32 = 60;
const SIZES: FakeRingSizes =
    FakeRingSizes { fill: 4096, rx: 2048, tx: 2048, completion: 4096, start: 0 };

fn umem() -> (Umem, Pool) {
    let config = UmemConfig { frames: 16384, huge_pages: HugePages::Off, ..UmemConfig::default() };
    Umem::new(&config).expect("32 MiB of memory")
}

fn config_without_wakeup() -> FakeKernelConfig {
    FakeKernelConfig { wants_tx_wakeup: false, ..FakeKernelConfig::default() }
}

/// A measured variant of the user side, with a fake kernel.
trait Variant {
    /// Runs `rounds` rounds with `n` packets each.
    fn rounds(&mut self, n: u32, rounds: u64);
}

struct BareVariant(BareRings, FakeKernel);

impl BareVariant {
    fn new() -> Self {
        let (rings, kernel) = BareRings::new(&umem().0, SIZES);
        kernel.set(config_without_wakeup());
        Self(rings, kernel)
    }
}

impl Variant for BareVariant {
    fn rounds(&mut self, n: u32, rounds: u64) {
        let Self(rings, kernel) = self;
        for _ in 0..rounds {
            kernel.deliver_unwritten(n, LENGTH);
            rings.receive(n);
            black_box(rings.transmit());
            kernel.complete_all();
            rings.reclaim();
        }
    }
}

struct PortVariant {
    port: XskPort,
    kernel: FakeKernel,
    pool: Pool,
    batch: Batch,
    queue: EgressQueue,
    swap_macs: bool,
}

impl PortVariant {
    fn new(swap_macs: bool) -> Self {
        let (umem, mut pool) = umem();
        let (port, kernel) =
            FakeKernel::port_with(&umem, &mut pool, 0, SIZES, config_without_wakeup());
        let queue = EgressQueue::new(&umem, 512);
        Self { port, kernel, pool, batch: Batch::new(), queue, swap_macs }
    }
}

impl Variant for PortVariant {
    fn rounds(&mut self, n: u32, rounds: u64) {
        let Self { port, kernel, pool, batch, queue, swap_macs } = self;
        for _ in 0..rounds {
            kernel.deliver_unwritten(n, LENGTH);
            port.receive(batch, pool);
            for frame in batch.slots_mut().iter_mut().flatten().take_while(|_| *swap_macs) {
                if let Some((destination, source)) =
                    frame.get_mut(..12).map(|macs| macs.split_at_mut(6))
                {
                    destination.swap_with_slice(source);
                }
            }
            queue.push_batch(batch, |refused| panic!("the egress queue is full: {refused}"));
            port.transmit(queue);
            kernel.complete_all();
            port.reclaim(pool);
        }
    }
}

/// A worker that forwards between two ports.
struct WorkerVariant(Worker<(MacSwap,)>, FakeKernel, FakeKernel);

impl WorkerVariant {
    fn new() -> Self {
        let (umem, mut pool) = umem();
        let (lan, from) =
            FakeKernel::port_with(&umem, &mut pool, 0, SIZES, config_without_wakeup());
        let (wan, to) = FakeKernel::port_with(&umem, &mut pool, 1, SIZES, config_without_wakeup());
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

impl Variant for WorkerVariant {
    fn rounds(&mut self, n: u32, rounds: u64) {
        let Self(worker, from, to) = self;
        for _ in 0..rounds {
            from.deliver_unwritten(n, LENGTH);
            worker.poll_once();
            to.complete_all();
        }
    }
}

/// A variant, and a separate fake kernel whose time is subtracted.
struct Bench {
    variant: Box<dyn Variant>,
    lone_kernel: FakeKernel,
}

impl Bench {
    fn new(variant: impl Variant + 'static) -> Self {
        let (umem, mut pool) = umem();
        let (port, lone_kernel) =
            FakeKernel::port_with(&umem, &mut pool, 0, SIZES, config_without_wakeup());
        // From now on, only the fake kernel uses the chunks and rings.
        drop(port);
        let mut bench = Self { variant: Box::new(variant), lone_kernel };
        // Warm up.
        bench.sample(64, 1 << 16);
        bench
    }

    /// Returns the time for `packets` packets in rounds of `n`, in nanoseconds, without that of the
    /// fake kernel.
    fn sample(&mut self, n: u32, packets: u64) -> f64 {
        let rounds = packets.div_ceil(u64::from(n));
        let start = cpu_time();
        self.variant.rounds(n, rounds);
        let between = cpu_time();
        for _ in 0..rounds {
            self.lone_kernel.deliver_unwritten(n, LENGTH);
            self.lone_kernel.pretend_user(n);
            self.lone_kernel.complete_all();
        }
        let net = (between - start).as_nanos() as f64 - (cpu_time() - between).as_nanos() as f64;
        net * packets as f64 / (rounds * u64::from(n)) as f64
    }
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock").into()
}

/// A process of benches/peers/ring_twin.c.
struct Twin {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Twin {
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
                    "cannot start cc: {error}; run: apt-get install gcc libc6-dev libxdp-dev \
                     libbpf-dev"
                ));
            }
            Ok(output) if !output.status.success() => {
                let stderr = String::from_utf8_lossy(&output.stderr);
                let reason = stderr
                    .lines()
                    .find(|line| line.contains("error"))
                    .unwrap_or("no reason was printed");
                return Err(format!(
                    "cannot compile ring_twin.c: {reason}; if a header is missing, run: \
                     apt-get install gcc libxdp-dev libbpf-dev"
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
        start()
            .map_err(|error: std::io::Error| format!("cannot start {}: {error}", program.display()))
    }

    fn sample(&mut self, variant: &str, swap_macs: bool, n: u32, packets: u64) -> f64 {
        let rounds = packets.div_ceil(u64::from(n));
        let rounded_packets = rounds * u64::from(n);
        let mut line = String::new();
        writeln!(self.stdin, "{variant} {n} {rounded_packets} {}", u8::from(swap_macs))
            .expect("write to ring_twin");
        self.stdout.read_line(&mut line).expect("read from ring_twin");
        let mut numbers =
            line.split_whitespace().map(|number| number.parse::<f64>().expect("a number"));
        let (total, kernel) = numbers.next().zip(numbers.next()).expect("at least two numbers");
        (total - kernel) * packets as f64 / rounded_packets as f64
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

const VARIANTS: [&str; 4] = ["rings", "port", "swap", "worker"];
/// C twins: name, variant of ring_twin.c, whether it swaps MAC addresses, compared Rust variant.
/// `xsk-rs-calls` is C code that calls libxdp's functions as xsk-rs does.
const TWINS: [(&str, &str, bool, &str); 5] = [
    ("c-rings", "own", false, "rings"),
    ("libxdp-rings", "libxdp", false, "rings"),
    ("xsk-rs-calls-rings", "calls", false, "rings"),
    ("c-swap", "own", true, "swap"),
    ("xsk-rs-calls-swap", "calls", true, "swap"),
];

fn bench(name: &str) -> Bench {
    let (keep_macs, swap_macs) = (false, true);
    match name {
        "rings" => Bench::new(BareVariant::new()),
        "port" => Bench::new(PortVariant::new(keep_macs)),
        "swap" => Bench::new(PortVariant::new(swap_macs)),
        _ => Bench::new(WorkerVariant::new()),
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
                    // Clock reads dominate short samples.
                    let measured = packets.max(1 << 16);
                    let nanoseconds = sampler(n, measured) * packets as f64 / measured as f64;
                    // The difference of two times can be negative; criterion needs a positive time.
                    Duration::from_nanos(nanoseconds.max(1.0) as u64)
                });
            });
        }
        group.finish();
    }
    criterion.final_summary();
}

/// Prints and saves the medians, and the medians of the ratios within a round. `missing` says why
/// the C twins are missing.
fn table(samplers: &mut BTreeMap<&'static str, Sampler<'_>>, missing: Option<&str>) {
    const ROUNDS: usize = 41;
    const PACKETS: u64 = 1 << 18;
    let mut samples: BTreeMap<(&str, u32), Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for n in BATCHES {
            for (name, sampler) in samplers.iter_mut() {
                samples.entry((name, n)).or_default().push(sampler(n, PACKETS) / PACKETS as f64);
            }
        }
    }
    let mut text = format!(
        "ns per packet, median of {ROUNDS} interleaved rounds; in parentheses the ratio \
         Rust / C, median of the rounds\n"
    );
    let _ =
        writeln!(text, "  {:<22}{}", "batches of", BATCHES.map(|n| format!("{n:>18}")).concat());
    let cell = |name: &'static str, counterpart: Option<&'static str>, n: u32| {
        let values = &samples[&(name, n)];
        let ratio = counterpart.map_or(String::new(), |counterpart| {
            let rust_values = &samples[&(counterpart, n)];
            let ratios = rust_values.iter().zip(values).map(|(rust, c)| rust / c).collect();
            format!("({:.2})", median(ratios))
        });
        format!("{:>10.2} {ratio:>7}", median(values.clone()))
    };
    for name in VARIANTS {
        let _ = writeln!(text, "  {name:<22}{}", BATCHES.map(|n| cell(name, None, n)).concat());
    }
    for (name, .., counterpart) in TWINS.into_iter().filter(|_| missing.is_none()) {
        let cells = BATCHES.map(|n| cell(name, Some(counterpart), n));
        let _ = writeln!(text, "  {name:<22}{}", cells.concat());
    }
    if let Some(reason) = missing {
        let _ = writeln!(text, "  the C twins are missing: {reason}");
    }
    // Ignore a failure: the results are also saved.
    let _ = xdpfwd_lab::print(&format!("\n{text}\n"));
    let rounded =
        |ns: &Vec<f64>| ns.iter().map(|ns| (1000.0 * ns).round() / 1000.0).collect::<Vec<f64>>();
    let raw: BTreeMap<_, _> =
        samples.iter().map(|((name, n), ns)| (format!("{name}/{n}"), rounded(ns))).collect();
    save(&text, &json!({ "ns_per_packet": raw, "packets_a_sample": PACKETS, "missing": missing }));
}

/// Saves the results in benches/results/<date>-<host>/.
fn save(text: &str, numbers: &Value) {
    let machine = Machine::detect();
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let directory = results.join(format!("{}-{}", machine.date, machine.host));
    let contents = json!({
        "command": "cargo bench -p xdpfwd-bench --bench rings",
        "schema": 1,
        "what": "rings",
        "machine": machine,
        "numbers": numbers,
    });
    let result = fs::create_dir_all(&directory)
        .and_then(|()| fs::write(directory.join("rings.txt"), text))
        .and_then(|()| fs::write(directory.join("rings.json"), format!("{contents}\n")));
    match result {
        Ok(()) => {
            let path = directory.join("rings.json");
            let _ = xdpfwd_lab::print(&format!("raw numbers: {}\n", path.display()));
        }
        Err(error) => {
            let directory = directory.display();
            xdpfwd_lab::print_error(&format!("cannot save the results in {directory}: {error}"));
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let twin = Twin::start();
    let missing = twin.as_ref().err().cloned();
    if let Some(reason) = &missing {
        eprintln!("the C twins are missing: {reason}");
    }
    let twin = twin.ok().map(std::cell::RefCell::new);
    let mut samplers: BTreeMap<&'static str, Sampler<'_>> = BTreeMap::new();
    for name in VARIANTS {
        let mut bench = bench(name);
        samplers.insert(name, Box::new(move |n, packets| bench.sample(n, packets)));
    }
    if let Some(twin) = &twin {
        for (name, variant, swap, _) in TWINS {
            samplers.insert(
                name,
                Box::new(move |n, packets| twin.borrow_mut().sample(variant, swap, n, packets)),
            );
        }
    }
    // Under `cargo test --all-targets`, only run each variant once.
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
