//! `drop`: the cost of a filter in user space and in the XDP program, for packets that are all
//! dropped and for packets that all pass.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, Object, ObjectBuilder};
use serde::Serialize;
use serde_json::{Value, json};
use xdpfwd_bench::classbench::{Header, Locality, Seed, generate, trace, write_rules};
use xdpfwd_bench::machine::said;
use xdpfwd_filter::{Classifier, Rule, Verdict, parse_classbench};
use xdpfwd_lab::{Chain, Forwarder, PacketTemplate, Sink, Traffic, Window};
use xdpfwd_xsk::{AttachMode, XdpLink, attach_xdp};

use crate::{
    common::{Common, Stop, note, settle},
    peer::Place,
    stats::Median,
};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Rounds: each runs everything once
    #[arg(long, default_value_t = 9)]
    rounds: u32,
    /// Numbers of rules
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 1_000, 10_000])]
    rules: Vec<usize>,
    /// Seed of the rules: acl, fw, ipc, or a file as for `classbench`
    #[arg(long, default_value = "acl")]
    seed: String,
    /// Where the kernel receives the dropped packets
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Receiving::Driver, Receiving::Generator])]
    receiving: Vec<Receiving>,
    /// Skip the measurement with packets that pass
    #[arg(long)]
    only_drops: bool,
}

/// The program that drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    /// xdpfwd, with the filter in user space or in the kernel.
    Xdpfwd(&'static str),
    /// A program that only looks up the same tables.
    BareLookups,
    /// A program that drops at once: the minimum cost per packet.
    AtOnce,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Xdpfwd(place) => place,
            Self::BareLookups => "bare lookups",
            Self::AtOnce => "at once",
        }
    }
}

/// Where the kernel receives xdpfwd's packets and runs the XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Receiving {
    /// Nowhere: the program receives frames as from a driver without any cost
    Driver,
    /// On the generator's core, which slows the generator down: the default of veth
    Generator,
    /// On xdpfwd's core, in a separate thread; with the filter in the kernel this core is otherwise
    /// idle
    Xdpfwd,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
struct Run {
    who: &'static str,
    receiving: Receiving,
    rules: usize,
    round: u32,
    /// Packets dropped per second, if all are dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped_pps: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cycles_per_drop: Option<f64>,
    /// Packets forwarded per second, if all pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    forwarded_pps: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage_cycles: Option<f64>,
}

/// A rule file, and packets for the rules.
struct Set {
    count: usize,
    file: PathBuf,
    packets: Arc<[PacketTemplate]>,
}

/// Packets of a flood: more flows than a flow cache holds.
const PACKETS: usize = 200_000;

pub(crate) fn run(arguments: &Arguments, stop: &Stop) -> Result<()> {
    let common = &arguments.common;
    let mut output = common.begin("drop")?;
    let place = common.place()?;
    let bare = compile(&place)?;
    let sets = arguments.rules.iter().map(|&count| Set::new(arguments, count, &place.scratch));
    let sets = sets.collect::<Result<Vec<_>>>()?;
    let mut runs: Vec<Run> = Vec::new();
    for round in 0..arguments.rounds {
        for set in &sets {
            let all = [Who::AtOnce, Who::Xdpfwd("user"), Who::Xdpfwd("kernel"), Who::BareLookups];
            let all = arguments.receiving.iter().flat_map(|&on| all.map(|who| (who, on)));
            for (who, receiving) in all {
                stop.check()?;
                let lab = Lab { common, place: &place, set, receiving };
                let (dropped_pps, cycles_per_drop) = match who {
                    Who::Xdpfwd(at) => lab.drop_by_xdpfwd(at)?,
                    Who::BareLookups | Who::AtOnce => lab.drop_by_bare(&bare, who)?,
                };
                let (dropped_pps, cycles_per_drop) = (Some(dropped_pps), Some(cycles_per_drop));
                let mut run = Run {
                    who: who.name(),
                    receiving,
                    rules: set.count,
                    round,
                    dropped_pps,
                    cycles_per_drop,
                    forwarded_pps: None,
                    stage_cycles: None,
                };
                if let Who::Xdpfwd(at) = who
                    && Some(&receiving) == arguments.receiving.first()
                    && !arguments.only_drops
                {
                    let (forwarded, cycles) = lab.forward(at)?;
                    run.forwarded_pps = Some(forwarded);
                    run.stage_cycles = cycles;
                }
                note(&format!("round {round}: {}", serde_json::to_string(&run)?));
                runs.push(run);
            }
        }
    }
    let text = table(&runs, arguments);
    print!("{text}");
    output.text(&text)?;
    let path = output.json(&json!({ "seed": arguments.seed, "packets": PACKETS, "runs": runs }))?;
    note(&format!("raw numbers: {}", path.display()));
    Ok(())
}

impl Set {
    fn new(arguments: &Arguments, count: usize, scratch: &Path) -> Result<Self> {
        let seed = match Seed::built_in(&arguments.seed) {
            Some(seed) => seed,
            None => {
                let text =
                    fs::read_to_string(&arguments.seed).with_context(|| arguments.seed.clone())?;
                Seed::parse(&arguments.seed, &text)?
            }
        };
        // A single rule matches everything: the minimum cost of a rule.
        let rules = match count {
            0 | 1 => generate(&seed, 1_000, 1),
            _ => generate(&seed, count, 1),
        };
        let headers = trace(&rules, PACKETS, Locality::Uniform, 0.0, 1);
        let file = scratch.join(format!("drop-{count}.rules"));
        let mut written = Vec::new();
        match count {
            0 => {}
            1 => written.extend(b"@0.0.0.0/0\t0.0.0.0/0\t0 : 65535\t0 : 65535\t0x00/0x00\n"),
            _ => write_rules(&mut written, &rules)?,
        }
        fs::write(&file, written).with_context(|| file.display().to_string())?;
        Ok(Self { count, file, packets: headers.iter().map(packet).collect() })
    }

    /// Writes a configuration of xdpfwd; the rules have `verdict`, other packets `default`.
    fn config(&self, place: &Place, at: &str, verdict: &str, default: &str) -> Result<PathBuf> {
        let path = place.scratch.join(format!("drop-{}-{at}-{verdict}.toml", self.count));
        let text = format!(
            "[engine]\ncores = [{core}]\n\n[[port]]\nname = \"lan\"\ninterface = \"fwd0\"\n\n[[port]]\nname = \"wan\"\n\
             interface = \"fwd1\"\n\n[[path]]\nfrom = \"lan\"\nto = \"wan\"\nstages = [\"fw\"]\n\n[stage.fw]\nkind = \"filter\"\n\
             format = \"classbench\"\naction = \"{verdict}\"\ndefault = \"{default}\"\nrules = {file:?}\nplace = \"{at}\"\n",
            core = place.core,
            file = self.file.display().to_string(),
        );
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

fn packet(header: &Header) -> PacketTemplate {
    PacketTemplate {
        source: header.source.into(),
        destination: header.destination.into(),
        source_port: header.source_port,
        destination_port: header.destination_port,
        protocol: header.protocol,
    }
}

/// The parameters of one measurement.
struct Lab<'a> {
    common: &'a Common,
    place: &'a Place,
    set: &'a Set,
    receiving: Receiving,
}

impl Lab<'_> {
    /// Returns the packets that xdpfwd drops per second, and the cycles of both cores per packet.
    fn drop_by_xdpfwd(&self, at: &str) -> Result<(f64, f64)> {
        let chain = Chain::builder().build()?;
        let mut forwarder =
            self.start(&chain, &self.set.config(self.place, at, "drop", "drop")?)?;
        let dropped = |forwarder: &Forwarder| -> Result<(f64, f64)> {
            let line = forwarder
                .last_line(|line| line.contains(r#""type":"interval""#))
                .context("no report")?;
            let report: Value = serde_json::from_str(&line)?;
            let user: u64 = report["drops"]
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(_, count)| count.as_u64())
                .sum();
            let kernel = report["ports"][0]["xdp_dropped"].as_u64().unwrap_or(0);
            if (at == "kernel") != (user == 0) && user + kernel > 0 {
                bail!(
                    "{user} packets were dropped in user space and {kernel} in the kernel, with place = \"{at}\""
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
            (self.place.xdpfwd.display().to_string(), config.display().to_string());
        let command =
            [&*program, "--config", &config, "--json", "--interval", "0.2"].map(str::to_owned);
        let mut forwarder = Forwarder::spawn(chain.fwd(), &command)?;
        forwarder.wait_for_xdp(chain.fwd(), &["fwd0", "fwd1"], Duration::from_secs(30))?;
        forwarder
            .wait_for_line(Duration::from_secs(30), |line| line.contains(r#""type":"interval""#))?;
        Ok(forwarder)
    }

    /// Sends a flood and reads the counters twice.
    fn measure(&self, chain: &Chain, read: impl Fn() -> Result<(f64, f64)>) -> Result<(f64, f64)> {
        let common = self.common;
        if self.receiving == Receiving::Xdpfwd {
            receive_on(chain, common.core)?;
        }
        let flood = Traffic::new().flood(Arc::clone(&self.set.packets)).core(common.generator_core);
        let generator = match self.receiving {
            Receiving::Driver => flood.start_into(chain.fwd(), "fwd0")?,
            Receiving::Generator | Receiving::Xdpfwd => flood.start(chain.gen_(), "gen0")?,
        };
        thread::sleep(common.warmup().max(Duration::from_millis(300)));
        let (from, busy_from) = (read()?, busy_seconds()?);
        thread::sleep(common.seconds());
        let (to, busy_to) = (read()?, busy_seconds()?);
        generator.stop()?;
        let packets = to.1 - from.1;
        if packets <= 0.0 {
            bail!("nothing was dropped");
        }
        let cycles = (busy_to - busy_from) * xdpfwd_xsk::clock::cycles_per_second() as f64;
        // Reports are up to 0.2 s old: use their own timestamps and scale to the same time span.
        let pps = packets / (to.0 - from.0);
        Ok((pps, cycles / (pps * common.seconds().as_secs_f64())))
    }

    /// Returns the packets that a bare program drops per second, and the cycles of both cores per
    /// packet.
    fn drop_by_bare(&self, bare: &Path, who: Who) -> Result<(f64, f64)> {
        let text = fs::read_to_string(&self.set.file)?;
        let read = parse_classbench(&text, Verdict::Drop)
            .map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        let rules: Vec<Rule> = read.rules.into_iter().map(|(_, rule)| rule).collect();
        let tables = xdpfwd_stages::filter::tables(Classifier::new(&rules, 1).image(&rules)?);
        let mut open = ObjectBuilder::default().open_file(bare)?;
        let name = if who == Who::AtOnce { "drop_at_once" } else { "look_up_and_drop" };
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

    /// Returns the packets per second that xdpfwd forwards if no rule matches, and the filter's
    /// reported cost.
    fn forward(&self, at: &str) -> Result<(f64, Option<f64>)> {
        let chain = Chain::builder().build()?;
        let sink = Sink::builder().attach(chain.sink(), "sink0")?;
        // A single rule matches everything, so it must accept.
        let verdict = if self.set.count == 1 { "accept" } else { "drop" };
        let mut forwarder =
            self.start(&chain, &self.set.config(self.place, at, verdict, "accept")?)?;
        let generator = Traffic::new()
            .flows(1000)
            .core(self.common.generator_core)
            .start(chain.gen_(), "gen0")?;
        thread::sleep(self.common.warmup());
        let window = Window::measure(&generator, &sink, self.common.seconds())?;
        generator.stop()?;
        settle(&sink)?;
        forwarder.stop(Duration::from_secs(10))?;
        let last = forwarder
            .last_line(|line| line.contains(r#""type":"final""#))
            .context("no final report")?;
        let report: Value = serde_json::from_str(&last)?;
        let cycles = report["stages"][0]["cycles_per_packet"].as_f64().filter(|_| at == "user");
        Ok((window.forwarded_pps(), cycles))
    }
}

/// Makes the kernel receive on fwd0 in a thread on `core`.
fn receive_on(chain: &Chain, core: usize) -> Result<()> {
    let script = format!(
        "echo 1 > /sys/class/net/fwd0/threaded; sleep 0.1; \
         for pid in $(grep -l '^napi/fwd0' /proc/[0-9]*/comm | cut -d/ -f3); do taskset -pc {core} $pid >/dev/null; done"
    );
    let output = chain.fwd().command("sh").args(["-ec", &script]).output().context("running sh")?;
    if !output.status.success() {
        bail!("receiving in a thread: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Returns the busy seconds of all processors together.
fn busy_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<f64> =
        line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let [user, nice, system, _idle, _wait, irq, softirq, ..] = ticks[..] else {
        bail!("/proc/stat: {line}")
    };
    // USER_HZ, which is 100 wherever Linux has a stable ABI.
    Ok((user + nice + system + irq + softirq) / 100.0)
}

fn attach(object: &Object, name: &str) -> Result<XdpLink> {
    let program =
        object.progs().find(|program| program.name() == name).context("no such program")?;
    Ok(attach_xdp(program.as_fd(), nix::net::if_::if_nametoindex("fwd0")?, AttachMode::Native)?)
}

/// Compiles the bare programs.
fn compile(place: &Place) -> Result<PathBuf> {
    let object = place.scratch.join("bare_drop.bpf.o");
    let bpf = place.sources.join("../../bpf");
    let output = Command::new("clang")
        .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror"])
        .arg(format!("-I/usr/include/{}-linux-gnu", said("uname", &["-m"])))
        .arg(format!("-I{}", bpf.display()))
        .arg("-c")
        .arg(place.sources.join("bare_drop.bpf.c"))
        .arg("-o")
        .arg(&object)
        .output()
        .context("clang: `make deps` installs it")?;
    if !output.status.success() {
        bail!("bare_drop.bpf.c: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(object)
}

fn table(runs: &[Run], arguments: &Arguments) -> String {
    let mut text = format!(
        "Rules like ClassBench's {}, 60 bytes, one core for xdpfwd; medians of {} rounds [95 %]\n\n\
         All dropped: {PACKETS} packets, drawn from the rules. Cycles are of both cores, the generator's work included.\n\n\
         {:>7} {:<14}{:<26}{:<26}{:<26}of bare lookups\n",
        arguments.seed,
        arguments.rounds,
        "rules",
        "dropped in",
        "Mpps",
        "cycles a packet",
        "beyond dropping at once"
    );
    let mut by: BTreeMap<(usize, &str, Receiving), BTreeMap<u32, &Run>> = BTreeMap::new();
    for run in runs {
        by.entry((run.rules, run.who, run.receiving)).or_default().insert(run.round, run);
    }
    let whos = ["at once", "user", "kernel", "bare lookups"];
    for (receiving, title) in [
        (Receiving::Driver, "given to the XDP program by a driver that costs nothing"),
        (Receiving::Generator, "received on the generator's core"),
        (Receiving::Xdpfwd, "received on xdpfwd's core, in a thread"),
    ] {
        if arguments.receiving.contains(&receiving) {
            let _ = writeln!(text, "{title}");
        }
        for (&rules, who) in arguments.rules.iter().flat_map(|rules| whos.map(|who| (rules, who))) {
            let Some(own) = by.get(&(rules, who, receiving)) else { continue };
            let of = |value: fn(&Run) -> Option<f64>| {
                Median::of(own.values().filter_map(|run| value(run)))
            };
            let against = |name, what: fn(f64, f64) -> f64, value: fn(&Run) -> Option<f64>| {
                let other = by.get(&(rules, name, receiving));
                let rounds = own
                    .iter()
                    .filter_map(|(round, run)| Some((value(run)?, value(other?.get(round)?)?)));
                Median::of(rounds.map(|(own, other)| what(own, other)))
            };
            let _ = writeln!(
                text,
                "{rules:>7} {who:<14}{:<26}{:<26}{:<26}{}",
                shown(of(|run| run.dropped_pps.map(|pps| pps / 1e6)), 2),
                shown(of(|run| run.cycles_per_drop), 0),
                shown(against("at once", |own, other| own - other, |run| run.cycles_per_drop), 0),
                shown(against("bare lookups", |own, other| own / other, |run| run.dropped_pps), 3),
            );
        }
    }
    let pass = runs.iter().any(|run| run.forwarded_pps.is_some());
    if pass && !arguments.receiving.is_empty() {
        let _ = writeln!(
            text,
            "\nAll pass: UDP of 1000 flows, which no rule matches (of one rule: it does).\n\n{:>7} {:<14}{:<26}{:<26}cycles by the ledger",
            "rules", "filter in", "Mpps", "of the user's"
        );
        for &rules in &arguments.rules {
            for who in ["user", "kernel"] {
                let Some(own) = by.get(&(rules, who, arguments.receiving[0])) else { continue };
                let rounds = own.iter().filter_map(|(round, run)| {
                    Some(
                        run.forwarded_pps?
                            / by.get(&(rules, "user", arguments.receiving[0]))?
                                .get(round)?
                                .forwarded_pps?,
                    )
                });
                let _ = writeln!(
                    text,
                    "{rules:>7} {who:<14}{:<26}{:<26}{}",
                    shown(
                        Median::of(own.values().filter_map(|run| Some(run.forwarded_pps? / 1e6))),
                        2
                    ),
                    shown(Median::of(rounds), 3),
                    shown(Median::of(own.values().filter_map(|run| run.stage_cycles)), 0),
                );
            }
        }
    }
    text
}

fn shown(median: Option<Median>, places: usize) -> String {
    median.map_or_else(
        || "-".to_owned(),
        |m| format!("{:.places$} [{:.places$}, {:.places$}]", m.median, m.low, m.high),
    )
}
