//! `drop`: the cost of a filter in user space and in the XDP program.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, ObjectBuilder};
use serde::Serialize;
use serde_json::{Value, json};
use xdpfwd_bench::machine::busy_seconds;
use xdpfwd_filter::{Classifier, Verdict};
use xdpfwd_lab::{Chain, Forwarder, Sink, Traffic, Window};

use crate::{
    common::{Common, Stop, note, print, settle},
    forwarders::Environment,
    obstacle::Obstacle,
    rule_sets::{PACKETS, RuleSet},
    stats::Median,
    xdp_programs::{attach, compile_bpf, receive_in_thread},
};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Rounds; each runs every measurement once
    #[arg(long, value_name = "N", default_value_t = 9)]
    rounds: u32,
    /// Numbers of rules
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [0, 1, 1_000, 10_000])]
    rules: Vec<usize>,
    /// Seed of the rules: acl, fw, ipc, or a file as for `classbench`
    #[arg(long, default_value = "acl")]
    seed: String,
    /// Where the XDP program receives the flood. `driver`: directly from the generator, as from a
    /// driver without cost; `generator`: over veth, on the generator's core, which limits the rate;
    /// `xdpfwd`: over veth, on xdpfwd's core, in a kernel thread
    #[arg(
        long,
        value_name = "WHERE",
        value_enum,
        hide_possible_values = true,
        value_delimiter = ',',
        default_values_t = [Receiving::Driver, Receiving::Generator]
    )]
    receiving: Vec<Receiving>,
    /// Skip the measurement with packets that pass
    #[arg(long)]
    only_drops: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Dropper {
    /// xdpfwd with the filter in this placement: `user` or `kernel`.
    Xdpfwd(&'static str),
    /// An XDP program that looks up every packet in the filter's tables, and drops it.
    BareLookups,
    /// An XDP program that drops every packet without a lookup: the minimum cost.
    AtOnce,
}

impl Dropper {
    fn name(self) -> &'static str {
        match self {
            Self::Xdpfwd(placement) => placement,
            Self::BareLookups => "bare lookups",
            Self::AtOnce => "at once",
        }
    }
}

/// Where the XDP program receives its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Receiving {
    /// Directly from the generator, as from a driver without cost.
    Driver,
    /// On the generator's core, which slows the generator down: the default of veth.
    Generator,
    /// In a kernel thread on xdpfwd's core, which is otherwise idle with the filter in the kernel.
    Xdpfwd,
}

#[derive(Clone, Debug, Serialize)]
struct Run {
    #[serde(rename = "who")]
    dropper: &'static str,
    receiving: Receiving,
    rules: usize,
    round: u32,
    /// Packets dropped per second when all packets are dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped_pps: Option<f64>,
    /// Cycles of generator and dropper per dropped packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    cycles_per_drop: Option<f64>,
    /// Packets forwarded per second when all packets pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    forwarded_pps: Option<f64>,
    /// Cycles per packet of the filter in user space when all packets pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    stage_cycles: Option<f64>,
}

pub(crate) fn run(arguments: &Arguments, stop: &Stop) -> Result<()> {
    let common = &arguments.common;
    common.traffic.require_live("pktgen cannot repeat a trace of different packets")?;
    let mut output = common.begin("drop")?;
    let environment = common.environment()?;
    let bare = compile_bpf(&environment, "bare_drop").map_err(Obstacle::into_error)?;
    let rule_sets = arguments
        .rules
        .iter()
        .map(|&count| RuleSet::new(&arguments.seed, count, &environment.scratch));
    let rule_sets = rule_sets.collect::<Result<Vec<_>>>()?;
    let mut runs: Vec<Run> = Vec::new();
    for round in 0..arguments.rounds {
        for rule_set in &rule_sets {
            let droppers = [
                Dropper::AtOnce,
                Dropper::Xdpfwd("user"),
                Dropper::Xdpfwd("kernel"),
                Dropper::BareLookups,
            ];
            let measurements = arguments
                .receiving
                .iter()
                .flat_map(|&receiving| droppers.map(|dropper| (dropper, receiving)));
            for (dropper, receiving) in measurements {
                stop.check()?;
                let lab = Measurement { common, environment: &environment, rule_set, receiving };
                let (dropped_pps, cycles_per_drop) = match dropper {
                    Dropper::Xdpfwd(placement) => lab.drop_by_xdpfwd(placement)?,
                    Dropper::BareLookups | Dropper::AtOnce => lab.drop_by_bare(&bare, dropper)?,
                };
                let (dropped_pps, cycles_per_drop) = (Some(dropped_pps), Some(cycles_per_drop));
                let mut run = Run {
                    dropper: dropper.name(),
                    receiving,
                    rules: rule_set.count,
                    round,
                    dropped_pps,
                    cycles_per_drop,
                    forwarded_pps: None,
                    stage_cycles: None,
                };
                if let Dropper::Xdpfwd(placement) = dropper
                    && Some(&receiving) == arguments.receiving.first()
                    && !arguments.only_drops
                {
                    let (forwarded_pps, stage_cycles) = lab.forward(placement)?;
                    run.forwarded_pps = Some(forwarded_pps);
                    run.stage_cycles = stage_cycles;
                }
                note(&format!("round {round}: {}", serde_json::to_string(&run)?));
                runs.push(run);
            }
        }
    }
    let text = table(&runs, arguments);
    print(&text)?;
    output.text(&text)?;
    let path = output.json(&json!({ "seed": arguments.seed, "packets": PACKETS, "runs": runs }))?;
    note(&format!("raw numbers: {}", path.display()));
    Ok(())
}

/// The parameters of a measurement, except the dropper.
struct Measurement<'a> {
    common: &'a Common,
    environment: &'a Environment,
    rule_set: &'a RuleSet,
    receiving: Receiving,
}

impl Measurement<'_> {
    /// Measures xdpfwd with the filter in this placement; see [`Self::measure`].
    fn drop_by_xdpfwd(&self, placement: &str) -> Result<(f64, f64)> {
        let chain = Chain::builder().build()?;
        let mut forwarder = self
            .start(&chain, &self.rule_set.config(self.environment, placement, "drop", "drop")?)?;
        let dropped = |forwarder: &Forwarder| -> Result<(f64, f64)> {
            let line = forwarder
                .last_line(|line| line.contains(r#""type":"interval""#))
                .context("xdpfwd printed no report")?;
            let report: Value = serde_json::from_str(&line)?;
            let user: u64 = report["drops"]
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(_, count)| count.as_u64())
                .sum();
            let kernel = report["ports"][0]["xdp_dropped"].as_u64().unwrap_or(0);
            if (placement == "kernel") != (user == 0) && user + kernel > 0 {
                bail!(
                    "{user} packets were dropped in user space and {kernel} in the kernel, \
                     with place = \"{placement}\""
                );
            }
            Ok((report["elapsed_seconds"].as_f64().unwrap_or(0.0), (user + kernel) as f64))
        };
        let measured = self.measure(&chain, || dropped(&forwarder))?;
        forwarder.stop(Duration::from_secs(10))?;
        Ok(measured)
    }

    fn start(&self, chain: &Chain, config: &Path) -> Result<Forwarder> {
        let (program, config) =
            (self.environment.xdpfwd.display().to_string(), config.display().to_string());
        let command =
            [&*program, "--config", &config, "--json", "--interval", "0.2"].map(str::to_owned);
        let mut forwarder = Forwarder::spawn(chain.fwd(), &command)?;
        forwarder.wait_for_xdp(chain.fwd(), &["fwd0", "fwd1"], Duration::from_secs(30))?;
        forwarder
            .wait_for_line(Duration::from_secs(30), |line| line.contains(r#""type":"interval""#))?;
        Ok(forwarder)
    }

    /// Floods the dropper. Returns packets dropped per second, and cycles of all cores per packet.
    /// `read` returns a time in seconds, and the packets dropped by then.
    fn measure(&self, chain: &Chain, read: impl Fn() -> Result<(f64, f64)>) -> Result<(f64, f64)> {
        let common = self.common;
        if self.receiving == Receiving::Xdpfwd {
            receive_in_thread(chain, common.core)?;
        }
        let flood =
            Traffic::new().flood(self.rule_set.packets()).core(common.traffic.generator_core);
        let generator = match self.receiving {
            Receiving::Driver => flood.start_into(chain.fwd(), "fwd0")?,
            Receiving::Generator | Receiving::Xdpfwd => flood.start(chain.gen_(), "gen0")?,
        };
        thread::sleep(common.warmup().max(Duration::from_millis(300)));
        let ((start_time, start_drops), start_busy) = (read()?, busy_seconds(None)?);
        thread::sleep(common.seconds());
        let ((end_time, end_drops), end_busy) = (read()?, busy_seconds(None)?);
        generator.stop()?;
        let packets = end_drops - start_drops;
        if packets <= 0.0 {
            bail!("no packet was dropped");
        }
        let cycles = (end_busy - start_busy) * xdpfwd_xsk::clock::cycles_per_second() as f64;
        // xdpfwd's reports are up to 0.2 s old: compute the rate from their timestamps.
        let pps = packets / (end_time - start_time);
        Ok((pps, cycles / (pps * common.seconds().as_secs_f64())))
    }

    fn drop_by_bare(&self, bare: &Path, dropper: Dropper) -> Result<(f64, f64)> {
        let rules = self.rule_set.parsed(Verdict::Drop)?;
        let tables = xdpfwd_stages::filter::map_contents(Classifier::new(&rules, 1).image(&rules)?);
        let mut open = ObjectBuilder::default().open_file(bare)?;
        let name = if dropper == Dropper::AtOnce { "drop_at_once" } else { "look_up_and_drop" };
        open.progs_mut().for_each(|mut program| program.set_autoload(program.name() == name));
        xdpfwd_engine::prepare_tables(&mut open, &tables)?;
        let object = open.load()?;
        xdpfwd_engine::fill_tables(&object, &tables)?;
        let verdicts =
            object.maps().find(|map| map.name() == "verdicts").context("no map verdicts")?;
        let verdicts = MapHandle::try_from(&verdicts)?;
        let chain = Chain::builder().build()?;
        let link = chain.fwd().run(|| attach(&object, name))??;
        let started = Instant::now();
        let read = || {
            let mut sum = 0;
            for key in [0u32, 1] {
                let values =
                    verdicts.lookup_percpu(&key.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
                sum += values
                    .iter()
                    .filter_map(|v| v.first_chunk().copied().map(u64::from_ne_bytes))
                    .sum::<u64>();
            }
            Ok((started.elapsed().as_secs_f64(), sum as f64))
        };
        let measured = self.measure(&chain, read)?;
        drop(link);
        Ok(measured)
    }

    /// Returns packets forwarded per second if all pass and, for `user`, the filter's reported
    /// cycles per packet.
    fn forward(&self, placement: &str) -> Result<(f64, Option<f64>)> {
        let chain = Chain::builder().build()?;
        let sink = Sink::builder().attach(chain.sink(), "sink0")?;
        let verdict = self.rule_set.verdict_for_passing();
        let mut forwarder = self.start(
            &chain,
            &self.rule_set.config(self.environment, placement, verdict, "accept")?,
        )?;
        let traffic = self.rule_set.passing()?.core(self.common.traffic.generator_core);
        let generator = traffic.start(chain.gen_(), "gen0")?;
        thread::sleep(self.common.warmup());
        let window = Window::measure(&generator, &sink, self.common.seconds())?;
        generator.stop()?;
        settle(&sink)?;
        forwarder.stop(Duration::from_secs(10))?;
        let line = forwarder
            .last_line(|line| line.contains(r#""type":"final""#))
            .context("xdpfwd printed no final report")?;
        let report: Value = serde_json::from_str(&line)?;
        let cycles =
            report["stages"][0]["cycles_per_packet"].as_f64().filter(|_| placement == "user");
        Ok((window.forwarded_pps(), cycles))
    }
}

fn table(runs: &[Run], arguments: &Arguments) -> String {
    let mut text = format!(
        "Rules like ClassBench's {}, 60 bytes, one core for xdpfwd; medians of {} rounds [95 %]\n\n\
         All packets dropped: {PACKETS} packets drawn from the rules. Cycles of both cores, \
         including the generator's work.\n\n\
         {:>7} {:<14}{:<26}{:<26}{:<26}ratio to bare lookups\n",
        arguments.seed,
        arguments.rounds,
        "rules",
        "dropped in",
        "Mpps",
        "cycles per packet",
        "more than \"at once\""
    );
    let mut groups: BTreeMap<(usize, &str, Receiving), BTreeMap<u32, &Run>> = BTreeMap::new();
    for run in runs {
        groups.entry((run.rules, run.dropper, run.receiving)).or_default().insert(run.round, run);
    }
    let names = ["at once", "user", "kernel", "bare lookups"];
    for (receiving, title) in [
        (Receiving::Driver, "passed directly to the XDP program, without a driver"),
        (Receiving::Generator, "received on the generator's core"),
        (Receiving::Xdpfwd, "received on xdpfwd's core, in a kernel thread"),
    ] {
        if arguments.receiving.contains(&receiving) {
            let _ = writeln!(text, "{title}");
        }
        for (&rules, dropper) in
            arguments.rules.iter().flat_map(|rules| names.map(|dropper| (rules, dropper)))
        {
            let Some(own_runs) = groups.get(&(rules, dropper, receiving)) else { continue };
            let median = |value: fn(&Run) -> Option<f64>| {
                Median::of(own_runs.values().filter_map(|run| value(run)))
            };
            let compare = |name, combine: fn(f64, f64) -> f64, value: fn(&Run) -> Option<f64>| {
                let other_runs = groups.get(&(rules, name, receiving));
                let rounds = own_runs.iter().filter_map(|(round, run)| {
                    Some((value(run)?, value(other_runs?.get(round)?)?))
                });
                Median::of(rounds.map(|(own, other)| combine(own, other)))
            };
            let _ = writeln!(
                text,
                "{rules:>7} {dropper:<14}{:<26}{:<26}{:<26}{}",
                format_median(median(|run| run.dropped_pps.map(|pps| pps / 1e6)), 2),
                format_median(median(|run| run.cycles_per_drop), 0),
                format_median(
                    compare("at once", |own, other| own - other, |run| run.cycles_per_drop),
                    0
                ),
                format_median(
                    compare("bare lookups", |own, other| own / other, |run| run.dropped_pps),
                    3
                ),
            );
        }
    }
    let any_forwarded = runs.iter().any(|run| run.forwarded_pps.is_some());
    if any_forwarded && !arguments.receiving.is_empty() {
        let _ = writeln!(
            text,
            "\nAll packets forwarded: UDP of 1000 flows, which no rule matches, except in the \
             set of one rule.\n\n\
             {:>7} {:<14}{:<26}{:<26}cycles of the stage",
            "rules", "filter in", "Mpps", "ratio to user"
        );
        for &rules in &arguments.rules {
            for dropper in ["user", "kernel"] {
                let Some(own_runs) = groups.get(&(rules, dropper, arguments.receiving[0])) else {
                    continue;
                };
                let rounds = own_runs.iter().filter_map(|(round, run)| {
                    Some(
                        run.forwarded_pps?
                            / groups
                                .get(&(rules, "user", arguments.receiving[0]))?
                                .get(round)?
                                .forwarded_pps?,
                    )
                });
                let _ = writeln!(
                    text,
                    "{rules:>7} {dropper:<14}{:<26}{:<26}{}",
                    format_median(
                        Median::of(
                            own_runs.values().filter_map(|run| Some(run.forwarded_pps? / 1e6))
                        ),
                        2
                    ),
                    format_median(Median::of(rounds), 3),
                    format_median(
                        Median::of(own_runs.values().filter_map(|run| run.stage_cycles)),
                        0
                    ),
                );
            }
        }
    }
    text
}

fn format_median(median: Option<Median>, places: usize) -> String {
    median.map_or_else(
        || "-".to_owned(),
        |m| format!("{:.places$} [{:.places$}, {:.places$}]", m.median, m.low, m.high),
    )
}
