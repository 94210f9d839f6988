//! `classify`: nanoseconds per lookup of the filter's classifier, compared with `dpdk-test-acl` on
//! the same rules and trace.

use std::fs::File;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;
use xdpfwd_bench::classbench::{
    Header, Locality, Seed, Statistics, generate, trace, write_rules, write_trace,
};
use xdpfwd_filter::{Addresses, Classifier, FlowCache, Key, L4, Rule, Verdict, parse_classbench};

use crate::common::print;
use crate::stats::Median;

#[derive(Args)]
pub(crate) struct Arguments {
    /// acl, fw or ipc, or files: seeds in TOML, or parameter files of ClassBench such as acl1_seed
    #[arg(
        long,
        value_delimiter = ',',
        default_values_t = ["acl".to_owned(), "fw".to_owned(), "ipc".to_owned()]
    )]
    seeds: Vec<String>,
    /// Numbers of rules
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_values_t = [1_000, 10_000, 100_000]
    )]
    rules: Vec<usize>,
    /// Number of headers in each trace
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    packets: usize,
    /// Repetition of headers in the trace. `uniform`: each header once; `pareto`: bursts with a
    /// Pareto distribution; `scattered`: each header once, with fields anywhere in the rule's
    /// ranges instead of at their ends, so that there are more flows than any cache holds
    #[arg(
        long,
        value_enum,
        hide_possible_values = true,
        value_delimiter = ',',
        default_values_t = [Skew::Uniform, Skew::Pareto, Skew::Scattered]
    )]
    skew: Vec<Skew>,
    /// Rounds; each runs every classifier over the trace once
    #[arg(long, value_name = "N", default_value_t = 9)]
    rounds: usize,
    /// Number of slots of the flow cache
    #[arg(long, value_name = "SLOTS", default_value_t = 65_536)]
    flow_cache: usize,
    /// Maximum number of rules for dpdk-test-acl, whose tables take much memory and time to build
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    dpdk_up_to: usize,
    /// Seed of the random numbers; the same seed gives the same rules and traces
    #[arg(long, value_name = "N", default_value_t = 1)]
    random_seed: u64,
    /// Print one line of JSON for each row of the table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Skew {
    /// Each header once.
    Uniform,
    /// Headers in bursts with a Pareto distribution.
    Pareto,
    /// Each header once, with each field anywhere in its rule's range instead of at an end of the
    /// range: more flows than any cache holds.
    Scattered,
}

#[derive(Debug, Serialize)]
struct Row {
    seed: String,
    rules: usize,
    skew: Skew,
    packets: usize,
    /// Before merging; see [`Statistics::tuples`].
    distinct_tuples: usize,
    /// Tuples of the classifier, after merging.
    tuples: usize,
    /// Number of rules in the longest hash bucket.
    longest_bucket: usize,
    memory_bytes: usize,
    build_ms: Option<Median>,
    /// Share of the headers that match a rule.
    hit_share: f64,
    /// Nanoseconds per lookup without the flow cache.
    ns: Option<Median>,
    /// Nanoseconds per lookup, with a flow cache that one pass has warmed up.
    cached_ns: Option<Median>,
    /// Share of the lookups that the flow cache answers.
    cached_share: f64,
    /// Nanoseconds per lookup of dpdk-test-acl.
    dpdk_ns: Option<Median>,
    /// `ns` / `dpdk_ns` within a round.
    ratio: Option<Median>,
    /// Why `dpdk_ns` is missing.
    dpdk_missing: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("xdpfwd-classify-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let result = measure_all(arguments, &folder);
    let _ = std::fs::remove_dir_all(&folder);
    result
}

fn measure_all(arguments: &Arguments, folder: &Path) -> Result<()> {
    if !arguments.json {
        print(
            &(format!("ns per lookup, medians of {} rounds [95 % interval]", arguments.rounds)
                + "\n"),
        )?;
        print(
            &(format!(
                "{:<12}{:>8} {:<10}{:>7}{:>8}{:>8}{:>9}{:>10}  {:<22}{:<22}{:>10}  \
             {:<22}ratio, uncached",
                "seed",
                "rules",
                "skew",
                "tuples",
                "merged",
                "longest",
                "KiB",
                "build ms",
                "xdpfwd, uncached",
                "with the flow cache",
                "cache hits",
                "dpdk-test-acl"
            ) + "\n"),
        )?;
    }
    for name in &arguments.seeds {
        let seed = find_seed(name)?;
        for &count in &arguments.rules {
            for &skew in &arguments.skew {
                let row = measure(arguments, &seed, count, skew, folder)?;
                if arguments.json {
                    print(&(serde_json::to_string(&row)? + "\n"))?
                } else {
                    row.print()?
                }
            }
        }
    }
    Ok(())
}

fn find_seed(name: &str) -> Result<Seed> {
    if let Some(seed) = Seed::built_in(name) {
        return Ok(seed);
    }
    let text = std::fs::read_to_string(name)
        .with_context(|| format!("cannot read seed {name:?}; use acl, fw, ipc or a file"))?;
    let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name);
    Seed::parse(stem, &text)
}

fn measure(
    arguments: &Arguments,
    seed: &Seed,
    count: usize,
    skew: Skew,
    folder: &Path,
) -> Result<Row> {
    let generated = generate(seed, count, arguments.random_seed);
    let locality = match skew {
        Skew::Uniform => Locality::Uniform,
        Skew::Pareto => Locality::Pareto { a: 1.0, b: 0.1 },
        Skew::Scattered => Locality::Scattered,
    };
    let random_share = 0.1;
    let headers =
        trace(&generated, arguments.packets, locality, random_share, arguments.random_seed);
    let mut text = Vec::new();
    write_rules(&mut text, &generated)?;
    let parsed = parse_classbench(std::str::from_utf8(&text)?, Verdict::Accept)
        .map_err(|problems| anyhow::anyhow!("{}", problems[0]))?;
    let rules: Vec<Rule> = parsed.rules.into_iter().map(|(_, rule)| rule).collect();
    let keys: Vec<Key> = headers.iter().map(key).collect();

    let mut build_ms = Vec::new();
    let (hash_seed, cache_seed) = (1, 7);
    let mut classifier = Classifier::new(&rules, hash_seed);
    for _ in 0..arguments.rounds.min(5) {
        let start = Instant::now();
        classifier = black_box(Classifier::new(black_box(&rules), hash_seed));
        build_ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    check(&classifier, &rules, &keys)?;
    let dpdk = Dpdk::prepare(arguments, &generated, &headers, folder);
    let (mut ns, mut dpdk_ns, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut missing = dpdk.as_ref().err().map(ToString::to_string);
    let mut total_matches = 0;
    let mut cache = FlowCache::new(arguments.flow_cache, cache_seed);
    one_pass(&keys, |batch, found| classifier.classify_cached(batch, found, &mut cache));
    let (mut cached_ns, mut cached_share) = (Vec::new(), 0.0);
    for _ in 0..arguments.rounds {
        let (pass_ns, matches) = one_pass(&keys, |batch, found| classifier.classify(batch, found));
        ns.push(pass_ns);
        let (cache_hits_before, _) = cache.hits_and_misses();
        let (pass_cached_ns, cached_matches) =
            one_pass(&keys, |batch, found| classifier.classify_cached(batch, found, &mut cache));
        ensure!(
            matches == cached_matches,
            "{cached_matches} headers match a rule with the flow cache, but {matches} without"
        );
        cached_ns.push(pass_cached_ns);
        cached_share = (cache.hits_and_misses().0 - cache_hits_before) as f64 / keys.len() as f64;
        total_matches = matches;
        if let Ok(dpdk) = &dpdk
            && missing.is_none()
        {
            match dpdk.one_pass() {
                Ok(pass_dpdk_ns) => {
                    dpdk_ns.push(pass_dpdk_ns);
                    ratios.push(pass_ns / pass_dpdk_ns);
                }
                Err(error) => missing = Some(error.to_string()),
            }
        }
    }
    let shape = classifier.shape();
    let statistics = Statistics::of(&generated);
    Ok(Row {
        seed: seed.name().to_owned(),
        rules: rules.len(),
        skew,
        packets: keys.len(),
        distinct_tuples: statistics.tuples,
        tuples: shape.v4.len(),
        longest_bucket: shape.v4.iter().map(|tuple| tuple.longest_bucket).max().unwrap_or(0),
        memory_bytes: shape.memory,
        build_ms: Median::of(build_ms),
        hit_share: total_matches as f64 / keys.len() as f64,
        ns: Median::of(ns),
        cached_ns: Median::of(cached_ns),
        cached_share,
        dpdk_ns: Median::of(dpdk_ns),
        ratio: Median::of(ratios),
        dpdk_missing: missing,
    })
}

fn key(header: &Header) -> Key {
    const ACK: u8 = 0x10;
    let (source, destination) = (header.source_port, header.destination_port);
    let l4 = match header.protocol {
        6 => L4::Tcp { source, destination, flags: ACK },
        // dpdk-test-acl compares ports for every protocol.
        _ => L4::Ports { source, destination },
    };
    let addresses = Addresses::V4 { source: header.source, destination: header.destination };
    Key::new(addresses, header.protocol, l4)
}

/// Compares the classifier with a linear search, which is slow, on a part of the trace.
fn check(classifier: &Classifier, rules: &[Rule], keys: &[Key]) -> Result<()> {
    const APPROXIMATE_COMPARISONS: usize = 20_000_000;
    let from_rule = 0;
    let step = (keys.len() * rules.len() / APPROXIMATE_COMPARISONS).max(1);
    for key in keys.iter().step_by(step) {
        let expected = rules.iter().position(|rule| rule.matches(key)).map(|rule| rule as u32);
        ensure!(
            classifier.first_match(key, from_rule) == expected,
            "the classifier and a linear search differ: {key:?}, expected {expected:?}"
        );
    }
    Ok(())
}

/// Returns nanoseconds per lookup, and the number of keys that match a rule.
fn one_pass(
    keys: &[Key],
    mut look_up: impl FnMut(&[Key], &mut [u32; Classifier::BATCH]),
) -> (f64, usize) {
    let mut found = [0; Classifier::BATCH];
    let mut matches = 0;
    let start = Instant::now();
    for batch in keys.chunks(Classifier::BATCH) {
        look_up(black_box(batch), &mut found);
        matches += found[..batch.len()].iter().filter(|found| **found != Classifier::NONE).count();
    }
    (start.elapsed().as_secs_f64() * 1e9 / keys.len() as f64, matches)
}

struct Dpdk {
    rules: PathBuf,
    trace: PathBuf,
    count: usize,
    packets: usize,
}

impl Dpdk {
    fn prepare(
        arguments: &Arguments,
        rules: &[xdpfwd_bench::classbench::Rule5],
        headers: &[Header],
        folder: &Path,
    ) -> Result<Self> {
        if rules.len() > arguments.dpdk_up_to {
            bail!("not measured with more than {} rules (--dpdk-up-to)", arguments.dpdk_up_to);
        }
        let (rule_file, trace_file) = (folder.join("rules"), folder.join("trace"));
        write_rules(File::create(&rule_file)?, rules)?;
        write_trace(std::io::BufWriter::new(File::create(&trace_file)?), headers)?;
        Ok(Self { rules: rule_file, trace: trace_file, count: rules.len(), packets: headers.len() })
    }

    /// Runs dpdk-test-acl. Returns nanoseconds per lookup, from the rate that it prints.
    fn one_pass(&self) -> Result<f64> {
        let output = Command::new("dpdk-test-acl")
            .args([
                "--no-huge",
                "--no-pci",
                "--no-telemetry",
                "--no-shconf",
                "-m",
                "4096",
                "-l",
                "1",
                "--",
            ])
            .arg(format!("--rulesf={}", self.rules.display()))
            .arg(format!("--tracef={}", self.trace.display()))
            .arg(format!("--rulenum={}", self.count + 1))
            .arg(format!("--tracenum={}", self.packets))
            .args(["--iter=1", "--verbose=0"])
            .output()
            .context("cannot start dpdk-test-acl; run: apt-get install dpdk-dev")?;
        let text = String::from_utf8_lossy(&output.stdout);
        // Output: "…, 170847378 cycles (0.07 sec), 85.42 cycles/pkt, 30436522.12 pkt/sec"
        let rate = text
            .lines()
            .rev()
            .find_map(|line| line.rsplit(", ").next()?.strip_suffix(" pkt/sec")?.parse().ok());
        let rate: f64 = rate.with_context(|| {
            format!("dpdk-test-acl ended with {} and printed no rate", output.status)
        })?;
        Ok(1e9 / rate)
    }
}

impl Row {
    fn print(&self) -> Result<()> {
        let format_median = |median: &Option<Median>| {
            median.map_or("-".to_owned(), |m| {
                format!("{:.1} [{:.1}, {:.1}]", m.median, m.low, m.high)
            })
        };
        let build = self.build_ms.map_or(0.0, |build| build.median);
        let ratio = self.ratio.map_or_else(
            || self.dpdk_missing.clone().unwrap_or_default(),
            |m| format!("{:.2} [{:.2}, {:.2}]", m.median, m.low, m.high),
        );
        print(
            &(format!(
                "{:<12}{:>8} {:<10}{:>7}{:>8}{:>8}{:>9}{:>10.1}  {:<22}{:<22}{:>9.0}%  {:<22}{}",
                self.seed,
                self.rules,
                match self.skew {
                    Skew::Uniform => "uniform",
                    Skew::Pareto => "pareto",
                    Skew::Scattered => "scattered",
                },
                self.distinct_tuples,
                self.tuples,
                self.longest_bucket,
                self.memory_bytes / 1024,
                build,
                format_median(&self.ns),
                format_median(&self.cached_ns),
                self.cached_share * 100.0,
                format_median(&self.dpdk_ns),
                ratio
            ) + "\n"),
        )
    }
}
