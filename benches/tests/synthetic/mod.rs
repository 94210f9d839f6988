//! Results of matrices that were never measured, with plausible numbers: the costs of paths are
//! those of results/2026-11-30-vm/paths.json, the costs of stages those of other results here.
//!
//! The same arguments always give the same results.
#![allow(dead_code, reason = "each test program uses a part of this file")]

use std::fmt::Write as _;
use std::path::Path;

use xdpfwd_bench::machine::Machine;
use xdpfwd_bench::results::{
    Column, Cycles, Failure, Latency, Published, Rate, Results, Row, Run, SCHEMA, Size, Unavailable,
};

pub(crate) const TSC_HZ: f64 = 2.1e9;

/// Accounts: user, system call, softirq, far end. Cycles, then cycles per byte.
type Cost = ([f64; 4], [f64; 4]);

/// Name, title, place, remark, cost, system calls per packet, whether xdpfwd runs on this path.
type PathData = (&'static str, &'static str, &'static str, &'static str, Cost, Option<f64>, bool);

const PATHS: &[PathData] = &[
    (
        "packet",
        "recv / send",
        "user",
        "",
        ([718., 4389., 5027., 1216.], [0.1, 0.3, 0.2, 0.]),
        Some(2.03),
        true,
    ),
    (
        "packet-mmsg",
        "recvmmsg / sendmmsg",
        "user",
        "",
        ([135., 4012., 4316., 1135.], [0., 0.3, 0.2, 0.]),
        Some(0.0234),
        true,
    ),
    (
        "packet-mmap",
        "PACKET_MMAP",
        "user",
        "",
        ([160., 1541., 2480., 1460.], [0.46, 0.1, 0.4, 0.]),
        Some(0.0039),
        true,
    ),
    (
        "af_xdp-skb",
        "AF_XDP, skb mode",
        "user",
        "",
        ([72., 771., 1620., 1260.], [0., 0.15, 0.13, 0.]),
        Some(0.0039),
        true,
    ),
    (
        "af_xdp-copy",
        "AF_XDP, copy mode",
        "user",
        "",
        ([66., 690., 930., 881.], [0.02, 0.2, 0.35, 0.3]),
        Some(0.0039),
        true,
    ),
    (
        "af_xdp-zero-copy",
        "AF_XDP, zero-copy",
        "user",
        "",
        ([60., 100., 200., 0.], [0., 0., 0., 0.]),
        Some(0.0039),
        false,
    ),
    (
        "xsk-rs",
        "AF_XDP through xsk-rs",
        "user",
        "",
        ([103., 680., 890., 904.], [0.02, 0.19, 0.33, 0.1]),
        Some(0.0039),
        true,
    ),
    (
        "xdp-redirect",
        "XDP_REDIRECT",
        "kernel",
        "Runs on the generator's core and slows the generator down.",
        ([0., 0., 312., 240.], [0., 0., 0.02, 0.]),
        None,
        false,
    ),
    (
        "xdp-redirect-fib",
        "XDP_REDIRECT, bpf_fib_lookup",
        "kernel",
        "Runs on the generator's core and slows the generator down.",
        ([0., 0., 455., 240.], [0., 0., 0.02, 0.]),
        None,
        false,
    ),
    (
        "bridge",
        "kernel bridge",
        "kernel",
        "Changes nothing in the packets.",
        ([0., 0., 1940., 700.], [0., 0., 0.1, 0.]),
        None,
        false,
    ),
    (
        "ip-forward",
        "kernel ip_forward",
        "kernel",
        "nftables matches its rules one after the other.",
        ([0., 0., 2610., 760.], [0., 0., 0.1, 0.]),
        None,
        false,
    ),
    (
        "testpmd",
        "DPDK testpmd",
        "user",
        "",
        ([88., 1020., 960., 890.], [0.02, 0.2, 0.33, 0.1]),
        None,
        false,
    ),
];

/// Name, title, group, rules, added cost.
type StageData = (&'static str, &'static str, &'static str, Option<u32>, Cost);

const NOTHING: [f64; 4] = [0.; 4];

const STAGES: &[StageData] = &[
    ("none", "no security", "none", None, (NOTHING, NOTHING)),
    (
        "filter-1-user",
        "filter, 1 rule, user space",
        "filter",
        Some(1),
        ([32., 0., 4., 0.], NOTHING),
    ),
    (
        "filter-1k-user",
        "filter, 1,000 rules, user space",
        "filter",
        Some(1000),
        ([64., 0., 8., 0.], NOTHING),
    ),
    (
        "filter-10k-user",
        "filter, 10,000 rules, user space",
        "filter",
        Some(10_000),
        ([118., 0., 12., 0.], NOTHING),
    ),
    ("filter-1-kernel", "filter, 1 rule, kernel", "filter", Some(1), ([0., 0., 48., 0.], NOTHING)),
    (
        "filter-1k-kernel",
        "filter, 1,000 rules, kernel",
        "filter",
        Some(1000),
        ([0., 0., 290., 0.], NOTHING),
    ),
    (
        "filter-10k-kernel",
        "filter, 10,000 rules, kernel",
        "filter",
        Some(10_000),
        ([0., 0., 450., 0.], NOTHING),
    ),
    ("signatures", "1,000 signatures", "signatures", None, ([90., 0., 0., 0.], [1.1, 0., 0., 0.])),
    (
        "aes-128-gcm",
        "ESP, AES-128-GCM",
        "aead",
        None,
        ([480., 40., 20., 10.], [0.42, 0.01, 0., 0.]),
    ),
    (
        "aes-256-gcm",
        "ESP, AES-256-GCM",
        "aead",
        None,
        ([505., 40., 20., 10.], [0.52, 0.01, 0., 0.]),
    ),
    (
        "chacha20-poly1305",
        "ESP, ChaCha20-Poly1305",
        "aead",
        None,
        ([640., 40., 20., 10.], [0.95, 0.01, 0., 0.]),
    ),
    (
        "filter-1k-aes-128",
        "filter, 1,000 rules, and ESP, AES-128-GCM",
        "both",
        Some(1000),
        ([545., 40., 28., 10.], [0.42, 0.01, 0., 0.]),
    ),
    ("memcpy", "one copy of each packet", "control", None, ([24., 0., 0., 0.], [0.06, 0., 0., 0.])),
];

/// Which results to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All paths, columns and sizes, rates and latencies; some cells failed or lack cycles.
    Full,
    /// Two sizes, three columns, three rounds.
    Quick,
    /// A quick matrix of one path.
    OneRow,
    /// A quick matrix without cycles: sampling was not available.
    WithoutCycles,
    /// An unfinished quick matrix: a few runs, and a failure for the next.
    Interrupted,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Full, Self::Quick, Self::OneRow, Self::WithoutCycles, Self::Interrupted];
}

/// Numbers that look random: a linear congruential generator.
struct Noise(u64);

impl Noise {
    /// Returns a factor between 1 − `width` and 1 + `width`.
    fn factor(&mut self, width: f64) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1.0 + width * ((self.0 >> 33) as f64 / f64::from(1u32 << 31) * 2.0 - 1.0)
    }
}

/// Returns why a cell cannot exist.
fn unavailable(path: &PathData, stage: &StageData) -> Option<&'static str> {
    let (name, place, is_xdpfwd) = (path.0, path.2, path.6);
    let in_kernel = stage.0.ends_with("-kernel");
    match stage.0 {
        _ if name == "af_xdp-zero-copy" => Some("veth has no zero-copy"),
        "none" => None,
        _ if name == "ip-forward" && in_kernel => None,
        _ if name == "ip-forward" && stage.2 == "aead" => {
            Some("this kernel has no ESP (CONFIG_INET_ESP)")
        }
        _ if name == "testpmd" => Some("testpmd has no such stage"),
        _ if name.starts_with("xdp-") && in_kernel => None,
        _ if place == "kernel" => Some("the application never sees the bytes"),
        _ if is_xdpfwd && in_kernel && name.starts_with("packet") => {
            Some("packet sockets have no XDP program")
        }
        _ => None,
    }
}

/// Returns the cost of nftables, which matches rules one after the other.
fn stage_cost(path: &PathData, stage: &StageData) -> Cost {
    match stage.3 {
        Some(rules) if path.0 == "ip-forward" => {
            ([0., 0., 180. + f64::from(rules) * 9.0, 0.], NOTHING)
        }
        _ => stage.4,
    }
}

/// Returns the results of a kind.
pub(crate) fn results(kind: Kind) -> Results {
    let is_full = kind == Kind::Full;
    let paths: Vec<&PathData> =
        PATHS.iter().filter(|path| kind != Kind::OneRow || path.0 == "af_xdp-copy").collect();
    let quick = ["none", "filter-1k-user", "aes-128-gcm"];
    let stages: Vec<&StageData> =
        STAGES.iter().filter(|stage| is_full || quick.contains(&stage.0)).collect();
    let sizes: Vec<Size> =
        [("60", 60.0), ("508", 508.0), ("1514", 1514.0), ("imix", 4294.0 / 12.0)]
            .iter()
            .filter(|size| is_full || ["60", "1514"].contains(&size.0))
            .map(|&(name, mean_bytes)| Size { name: name.to_owned(), mean_bytes })
            .collect();
    let rounds = if is_full { 5 } else { 3 };
    let mut noise = Noise(20);
    let mut results = Results {
        generator: None,
        nic: None,
        failed_rates: Vec::new(),
        given_up: Vec::new(),
        schema: SCHEMA,
        kind: if is_full { "matrix" } else { "matrix-quick" }.to_owned(),
        machine: machine(),
        tsc_hz: TSC_HZ,
        started: "2026-11-30T21:00:00Z".to_owned(),
        finished: (kind != Kind::Interrupted).then(|| "2026-11-30T22:31:07Z".to_owned()),
        command: "target/release/xdpfwd-bench matrix".to_owned(),
        seconds: 1.0,
        warmup: 0.2,
        rounds,
        versions: [("dpdk", "24.11.3"), ("nftables", "1.0.6")]
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .into(),
        rows: paths.iter().map(|path| row(path)).collect(),
        columns: stages
            .iter()
            .map(|stage| Column {
                name: stage.0.to_owned(),
                title: stage.1.to_owned(),
                group: stage.2.to_owned(),
                rules: stage.3,
            })
            .collect(),
        sizes,
        unavailable: Vec::new(),
        runs: Vec::new(),
        failed: Vec::new(),
        rates: Vec::new(),
        latencies: Vec::new(),
        published: published(),
    };
    for path in &paths {
        for stage in &stages {
            let reason = unavailable(path, stage);
            if let Some(reason) = reason {
                results.unavailable.push(Unavailable {
                    row: path.0.to_owned(),
                    column: Some(stage.0.to_owned()),
                    reason: reason.to_owned(),
                });
                continue;
            }
            for size in results.sizes.clone() {
                for round in 0..rounds {
                    add_run(&mut results, kind, path, stage, &size, round, &mut noise);
                }
            }
        }
    }
    if is_full {
        add_rates(&mut results);
    }
    if kind == Kind::Interrupted {
        results.runs.truncate(7);
    }
    results
}

fn row(path: &PathData) -> Row {
    let copies = match path.0 {
        "packet" | "packet-mmsg" => vec!["packet_recvmsg (net/packet/af_packet.c)"],
        "af_xdp-copy" => vec!["__xsk_rcv (net/xdp/xsk.c)", "xsk_build_skb (net/xdp/xsk.c)"],
        _ => vec![],
    };
    Row {
        name: path.0.to_owned(),
        title: path.1.to_owned(),
        place: path.2.to_owned(),
        remark: path.3.to_owned(),
        copies: copies.into_iter().map(str::to_owned).collect(),
    }
}

fn add_run(
    results: &mut Results,
    kind: Kind,
    path: &PathData,
    stage: &StageData,
    size: &Size,
    round: u32,
    noise: &mut Noise,
) {
    // testpmd fails with the mix of lengths, and once with another.
    let fails = kind == Kind::Full
        && path.0 == "testpmd"
        && (size.name == "imix" || (size.name == "508" && round == 2));
    if fails || (kind == Kind::Interrupted && results.runs.len() == 7) {
        results.failed.push(Failure {
            row: path.0.to_owned(),
            column: stage.0.to_owned(),
            size: size.name.clone(),
            round,
            error: "dpdk-testpmd exited with status 1: \"EAL: cannot allocate <mbufs>\"".to_owned(),
        });
        return;
    }
    let bytes = size.mean_bytes;
    let (stage_base, stage_slope) = stage_cost(path, stage);
    let common = noise.factor(0.03);
    let mut accounts = [0.0; 4];
    for (index, account) in accounts.iter_mut().enumerate() {
        let path_cost = path.4.0[index] + path.4.1[index] * bytes;
        let cost = path_cost + stage_base[index] + stage_slope[index] * bytes;
        *account = cost * common * noise.factor(0.02);
    }
    let [user, system_call, softirq, far_end] = accounts;
    let cycles = Cycles { user, system_call, softirq, far_end, samples: 1900 };
    // Half of the softirqs run on the receiving core.
    let busy = user + system_call + 0.5 * softirq + far_end;
    let forwarded_pps = TSC_HZ / busy * noise.factor(0.02);
    let has_cycles = kind != Kind::WithoutCycles && (path.0 != "bridge" || size.name != "508");
    let sink_received = (forwarded_pps * 2.0) as u64;
    results.runs.push(Run {
        row: path.0.to_owned(),
        column: stage.0.to_owned(),
        size: size.name.clone(),
        round,
        offered_pps: forwarded_pps.max(3e6) * 1.1,
        forwarded_pps,
        forwarded_gbps: forwarded_pps * bytes * 8.0 / 1e9,
        paced_offered_pps: forwarded_pps * 1.05,
        paced_forwarded_pps: forwarded_pps * 0.99,
        paced_factor: Some(1.05),
        path_pps: None,
        cycles: has_cycles.then_some(cycles),
        stage_cycles: path.6.then_some(stage_base[0] + stage_slope[0] * bytes),
        syscalls: path.5,
        voluntary_switches: path.5.map(|_| 0.0),
        involuntary_switches: path.5.map(|_| 0.0001),
        tool_transmitted: (path.0 != "xdp-redirect").then_some(sink_received),
        sink_received,
        unexplained: (kind == Kind::Full && path.0 == "packet" && size.name == "60" && round == 4)
            .then(|| "3 frames lost between fwd0 and the socket".to_owned()),
        command: format!(
            "ip netns exec fwd xdpfwd --config scratch/{}-{}.toml\n\
             xdpfwd-lab send --size {} --flows 16",
            path.0, stage.0, size.name
        ),
    });
}

fn add_rates(results: &mut Results) {
    for row in ["packet-mmap", "af_xdp-copy", "testpmd"] {
        for column in ["none", "filter-1k-user", "aes-128-gcm"] {
            let runs: Vec<&Run> = results
                .runs
                .iter()
                .filter(|run| run.row == row && run.column == column && run.size == "60")
                .collect();
            let Some(pps) = runs.first().map(|run| run.forwarded_pps) else { continue };
            let cell = |size: &str| (row.to_owned(), column.to_owned(), size.to_owned());
            for (allowed_loss, share) in [(0.0, 0.84), (0.005, 0.93)] {
                let (row, column, size) = cell("60");
                results.rates.push(Rate {
                    row,
                    column,
                    size,
                    allowed_loss,
                    pps: pps * share,
                    upper_pps: Some(pps * share * 1.02),
                    trials: 11,
                    is_complete: true,
                });
            }
            for (load, p50_ns) in [(0.1, 21_000.0), (0.5, 24_500.0), (0.9, 61_000.0)] {
                let (row, column, size) = cell("60");
                results.latencies.push(Latency {
                    row,
                    column,
                    size,
                    load,
                    offered_pps: pps * 0.84 * load,
                    loss: Some(0.0),
                    p50_ns,
                    p99_ns: p50_ns * 2.1,
                    p999_ns: p50_ns * 9.0,
                    max_ns: p50_ns * 80.0,
                });
            }
        }
    }
}

fn published() -> Vec<Published> {
    vec![Published {
        row: "PF_RING ZC".to_owned(),
        column: "none".to_owned(),
        size: "60".to_owned(),
        mpps: Some(14.88),
        gbps: None,
        machine: "synthetic entry: no real figure".to_owned(),
        cores: Some(1),
        source: "https://example.org/a-page-with-a-long-address/of-a-benchmark.html, 2018"
            .to_owned(),
    }]
}

fn machine() -> Machine {
    Machine {
        host: "synthetic".to_owned(),
        date: "2026-11-30".to_owned(),
        kernel: "Linux 6.18.44-fc-v657 #1 SMP PREEMPT_DYNAMIC @0 x86_64".to_owned(),
        cpu: "Intel(R) Xeon(R) Processor".to_owned(),
        cpu_mhz: "2100.000".to_owned(),
        cores: 2,
        memory_kib: 24_731_708,
        virtual_machine: true,
        rustc: "rustc 1.95.0 (59807616e 2026-04-14)".to_owned(),
        cc: "cc (Debian 12.2.0-14+deb12u1) 12.2.0".to_owned(),
        commit: "0123456789ab".to_owned(),
        load_average: "0.12 0.20 0.21 1/87 24548".to_owned(),
    }
}

/// Writes `matrix.json`, and the part of `runs.csv` that tests read, as the matrix does.
pub(crate) fn write(folder: &Path, results: &Results) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("matrix.json"), serde_json::to_string_pretty(results).unwrap())
        .unwrap();
    let mut csv = String::from(
        "row,column,size,round,forwarded_pps,forwarded_gbps,cycles_user,\
         cycles_system_call,cycles_softirq,cycles_far_end\n",
    );
    for run in &results.runs {
        let cycles = run.cycles.map_or_else(
            || ",,,".to_owned(),
            |c| format!("{},{},{},{}", c.user, c.system_call, c.softirq, c.far_end),
        );
        writeln!(
            csv,
            "{},{},{},{},{},{},{cycles}",
            run.row, run.column, run.size, run.round, run.forwarded_pps, run.forwarded_gbps
        )
        .unwrap();
    }
    std::fs::write(folder.join("runs.csv"), csv).unwrap();
}
