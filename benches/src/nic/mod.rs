//! `nic`: rates and latency between network interfaces, with the cells of the matrix.

mod cells;
mod options;
mod ports;
mod readiness;
mod session;
mod table;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use xdpfwd_bench::{
    machine::{Machine, tool_output, utc_now},
    results::{
        Cycles, Failure, Latency, NicSetup, Preparation, Rate, Results, Row, Run, SCHEMA, Size,
        Unavailable,
    },
};
use xdpfwd_lab::GeneratorKind;
use xdpfwd_xsk::clock;

use crate::{
    common::{GeneratorUse, Stop, build_output, lock_scratch, note, print},
    forwarders::{Environment, check_config},
    lab_run::sum,
    matrix::{columns::Column, rows::xdpfwd::brief_reason},
    paths::PacketPath,
    rate_search::{Limits, TrialCounts, search},
};
use cells::{Cell, ESP_MTU, Placement, describe, find_column, find_path};
pub(crate) use options::Arguments;
use options::ForwarderName;
use readiness::Examination;
use session::{Session, Setup, Window};

/// The second window of a run offers this much more than was forwarded in the first.
const PACED: f64 = 1.05;
/// The lowest rate that the search tries, in packets per second.
const MIN_PPS: f64 = 1000.0;
/// More packets per second than a core can generate.
const GENERATOR_PPS: f64 = 20e6;

pub(crate) fn run(arguments: &Arguments, stop: &Stop) -> Result<()> {
    xdpfwd_lab::require_root("measuring on network interfaces")?;
    let mut bench = NicBench::prepare(arguments)?;
    let preparations = bench.examine()?;
    if !preparations.is_empty() {
        note(&format!(
            "{} preparations are missing:\n{}",
            preparations.len(),
            readiness::lines(&preparations).trim_end()
        ));
    }
    if arguments.check && preparations.is_empty() {
        note("all preparations are complete");
        return Ok(());
    }
    if arguments.check || (!preparations.is_empty() && !arguments.force) {
        bail!(
            "{} preparations are missing, see above; complete them, or use --force",
            preparations.len()
        );
    }
    if let Some(nic) = &mut bench.results.nic {
        nic.missing_preparations = preparations;
    }
    bench.measure(stop)
}

struct NicBench<'a> {
    arguments: &'a Arguments,
    setup: Setup,
    placement: Option<Placement>,
    /// Empty with another forwarder.
    cells: Vec<Cell>,
    results: Results,
    /// The folder of the results.
    folder: PathBuf,
}

impl<'a> NicBench<'a> {
    fn prepare(arguments: &'a Arguments) -> Result<Self> {
        let interfaces = [
            ("tx", Some(&arguments.tx)),
            ("rx", Some(&arguments.rx)),
            ("fwd-in", arguments.fwd_in.as_ref()),
            ("fwd-out", arguments.fwd_out.as_ref()),
        ];
        if arguments.forwarder == ForwarderName::None
            && (arguments.fwd_in.is_some() || arguments.fwd_out.is_some())
        {
            bail!("--fwd-in and --fwd-out are the interfaces of xdpfwd: omit --forwarder none");
        }
        let ports = interfaces
            .into_iter()
            .filter_map(|(role, interface)| Some(ports::describe(role, interface?)))
            .collect::<Result<Vec<_>>>()?;
        ports::check_safe(&ports)?;
        let sizes = arguments.memory_sizes();
        if let Some(size) = sizes.iter().find(|size| !(60..=9014).contains(*size)) {
            bail!("invalid frame length {size} in memory (without FCS): use 60 to 9014");
        }
        let link_mbps = arguments
            .link_gbps
            .map(|gbps| (gbps * 1000.0) as u64)
            .or_else(|| ports.iter().filter_map(|port| port.speed_mbps).min());
        let output = build_output()?;
        let scratch = output.join("bench-scratch");
        fs::create_dir_all(&scratch).with_context(|| format!("creating {}", scratch.display()))?;
        lock_scratch(&scratch)?;
        let xdpfwd = arguments.xdpfwd.clone().unwrap_or_else(|| output.join("xdpfwd"));
        let placement =
            arguments.fwd_in.clone().zip(arguments.fwd_out.clone()).map(|(input, output)| {
                Placement {
                    input,
                    output,
                    cores: arguments.cores.clone(),
                    environment: Environment {
                        xdpfwd: xdpfwd.clone(),
                        sources: PathBuf::new(),
                        scratch: scratch.clone(),
                        generator: arguments.generator_cores.first().copied().unwrap_or(0),
                        core: arguments.cores.first().copied().unwrap_or(0),
                    },
                }
            });
        let generator = GeneratorUse::of(arguments.generator);
        let setup = Setup {
            tx: arguments.tx.clone(),
            rx: arguments.rx.clone(),
            ports: ports.clone(),
            xdpfwd,
            generator: generator.kind(),
            generator_cores: arguments.generator_cores.clone(),
            clones: arguments.clones,
            flows: arguments.flows,
            source_mac: ports::mac(&arguments.tx)?,
            destination_mac: match arguments.destination_mac {
                Some(mac) => mac,
                None => ports::mac(&arguments.rx)?,
            },
            addresses: arguments.source_ip.zip(arguments.destination_ip),
            anything: arguments.anything,
            warmup: Duration::from_secs_f64(arguments.warmup.clamp(0.0, 3600.0)),
            seconds: Duration::from_secs_f64(arguments.seconds.clamp(0.01, 3600.0)),
        };
        let machine = Machine::detect();
        let folder =
            arguments.results.join(format!("{}-{}", machine.date, machine.host)).join("nic");
        let results = Results {
            schema: SCHEMA,
            kind: "nic".into(),
            machine,
            tsc_hz: clock::cycles_per_second() as f64,
            started: utc_now(),
            finished: None,
            command: std::env::args().collect::<Vec<_>>().join(" "),
            seconds: arguments.seconds,
            warmup: arguments.warmup,
            rounds: arguments.rounds,
            versions: BTreeMap::new(),
            sizes: sizes
                .iter()
                .map(|size| Size { name: size.to_string(), mean_bytes: f64::from(*size) })
                .collect(),
            rows: Vec::new(),
            columns: Vec::new(),
            unavailable: Vec::new(),
            runs: Vec::new(),
            failed: Vec::new(),
            failed_rates: Vec::new(),
            given_up: Vec::new(),
            rates: Vec::new(),
            latencies: Vec::new(),
            published: Vec::new(),
            generator: Some(generator.used.name().to_owned()),
            nic: Some(NicSetup {
                forwarder: arguments.forwarder.name().to_owned(),
                generator_cores: arguments.generator_cores.clone(),
                forwarder_cores: match arguments.forwarder {
                    ForwarderName::Xdpfwd => arguments.cores.clone(),
                    ForwarderName::None => Vec::new(),
                },
                flows: arguments.flows,
                ports,
                link_mbps,
                missing_preparations: Vec::new(),
                notes: generator.reason.into_iter().collect(),
            }),
        };
        Ok(Self { arguments, setup, placement, cells: Vec::new(), results, folder })
    }

    /// Determines which cells can run, and returns the preparations that are missing.
    fn examine(&mut self) -> Result<Vec<Preparation>> {
        let mut preparations: Vec<Preparation> = Vec::new();
        let mut encrypts = false;
        match &self.placement {
            None => {
                self.results.rows.push(Row {
                    name: self.arguments.name.clone(),
                    title: self.arguments.name.clone(),
                    place: "user".into(),
                    remark: "not started by this measurement".into(),
                    copies: Vec::new(),
                });
                // One column: the forwarder's configuration is unknown.
                self.results.columns.push(find_column("none")?.describe());
            }
            Some(placement) => {
                let columns = self
                    .arguments
                    .columns
                    .iter()
                    .map(|name| find_column(name))
                    .collect::<Result<Vec<_>>>()?;
                self.results.versions.insert(
                    "xdpfwd".into(),
                    tool_output(&self.setup.xdpfwd.display().to_string(), &["--version"]),
                );
                for name in &self.arguments.paths {
                    let path = find_path(name)?;
                    self.results.rows.push(describe(path));
                    let column = find_column("none")?;
                    let plain = placement.config(&Cell { path, column, kernel_ledger: false })?;
                    match readiness::examine(&self.setup.xdpfwd, &plain)? {
                        Examination::Possible(found) => preparations.extend(found),
                        Examination::Impossible(reason) => {
                            self.results.unavailable.push(Unavailable {
                                row: name.clone(),
                                column: None,
                                reason,
                            });
                            continue;
                        }
                    }
                    for &column in &columns {
                        match usable_cell(&self.setup.xdpfwd, placement, path, column)? {
                            Ok(cell) => {
                                encrypts |= cell.encrypts();
                                self.cells.push(cell);
                            }
                            Err(reason) => self.results.unavailable.push(Unavailable {
                                row: name.clone(),
                                column: Some(column.name.to_owned()),
                                reason,
                            }),
                        }
                    }
                }
                self.results.columns = columns.iter().map(|column| column.describe()).collect();
            }
        }
        let longest = self.arguments.memory_sizes().into_iter().max().unwrap_or(60);
        let mtu = u32::from(longest) - 14;
        for port in &self.setup.ports {
            let is_behind_forwarder = matches!(&*port.role, "fwd-out" | "rx");
            let needed =
                if encrypts && is_behind_forwarder { mtu.max(ESP_MTU.into()) } else { mtu };
            preparations.extend(ports::examine(port, needed));
        }
        let mut unique: Vec<Preparation> = Vec::new();
        for preparation in preparations {
            let is_known = unique.iter().any(|other| {
                (&other.subject, &other.check) == (&preparation.subject, &preparation.check)
            });
            if !is_known {
                unique.push(preparation);
            }
        }
        Ok(unique)
    }

    fn measure(&mut self, stop: &Stop) -> Result<()> {
        for unavailable in &self.results.unavailable {
            let column = unavailable.column.as_deref().unwrap_or("all columns");
            note(&format!("{}, {column}: n/a: {}", unavailable.row, unavailable.reason));
        }
        let sizes = self.arguments.memory_sizes();
        let cells: Vec<Option<Cell>> = match self.placement {
            Some(_) => self.cells.iter().copied().map(Some).collect(),
            None => vec![None],
        };
        let mut combinations: Vec<(Option<Cell>, u16)> =
            sizes.iter().flat_map(|&size| cells.iter().map(move |&cell| (cell, size))).collect();
        for round in 0..self.arguments.rounds {
            for &(cell, size) in &combinations {
                stop.check()?;
                let outcome = self.run_cell(cell, size, round);
                self.record(cell, size, round, outcome, |results, run| results.runs.push(run))?;
            }
            // Reverse the order in every other round, to cancel the effect of the order.
            combinations.reverse();
        }
        if !self.arguments.no_rates {
            for size in &sizes {
                for &cell in &cells {
                    stop.check()?;
                    let outcome = self.rates(cell, *size, stop);
                    self.record(cell, *size, 0, outcome, |results, (rates, latencies)| {
                        results.rates.extend(rates);
                        results.latencies.extend(latencies);
                    })?;
                }
            }
        }
        self.results.finished = Some(utc_now());
        let file = self.save()?;
        let text = table::text(&self.results);
        print(&text)?;
        fs::write(self.folder.join("nic.txt"), &text).context("writing nic.txt")?;
        note(&format!("results: {}", file.display()));
        if !self.results.failed.is_empty() {
            bail!("{} measurements failed, see above", self.results.failed.len());
        }
        if self.results.runs.is_empty() {
            bail!("no cell could be measured: all are n/a, see above");
        }
        Ok(())
    }

    /// Adds an outcome to the results, and writes them.
    fn record<T>(
        &mut self,
        cell: Option<Cell>,
        size: u16,
        round: u32,
        outcome: Result<T>,
        add: impl FnOnce(&mut Results, T),
    ) -> Result<()> {
        match outcome {
            Ok(outcome) => add(&mut self.results, outcome),
            Err(error) => {
                let (row, column) = self.names(cell);
                note(&format!("{row}, {column}, {size} bytes: FAILED: {error:#}"));
                let (size, error) = (size.to_string(), format!("{error:#}"));
                self.results.failed.push(Failure { row, column, size, round, error });
            }
        }
        self.save().map(drop)
    }

    fn save(&self) -> Result<PathBuf> {
        let file = self.folder.join("matrix.json");
        let text = serde_json::to_string_pretty(&self.results)? + "\n";
        fs::create_dir_all(&self.folder)
            .and_then(|()| fs::write(&file, text))
            .with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }

    /// Returns the names of row and column.
    fn names(&self, cell: Option<Cell>) -> (String, String) {
        match cell {
            Some(cell) => cell.names(),
            None => (self.arguments.name.clone(), "none".to_owned()),
        }
    }

    fn line_pps(&self, size: u16) -> Option<f64> {
        let mbps = self.results.nic.as_ref()?.link_mbps?;
        Some(ports::line_pps(mbps, size))
    }

    fn session(&self, cell: Option<Cell>, size: u16, latency: bool) -> Result<Session<'_>> {
        Session::start(&self.setup, cell.zip(self.placement.as_ref()), size, latency)
    }

    /// Adds a remark about a measurement to the results.
    fn remark(&mut self, cell: Option<Cell>, size: u16, text: &str) {
        let (row, column) = self.names(cell);
        let remark = format!("{row}, {column}, {size} bytes: {text}");
        note(&remark);
        if let Some(nic) = &mut self.results.nic {
            nic.notes.push(remark);
        }
    }

    fn run_cell(&mut self, cell: Option<Cell>, size: u16, round: u32) -> Result<Run> {
        let line = self.line_pps(size);
        let latency = false;
        let mut session = self.session(cell, size, latency)?;
        let flood = session.window(line)?;
        let paced_pps = (flood.forwarded_pps * PACED).max(MIN_PPS);
        let paced = session.window(Some(line.map_or(paced_pps, |line| paced_pps.min(line))))?;
        let forwarder_command = session.command.clone();
        let (report, sink_received) = session.stop()?;
        let (row, column) = self.names(cell);
        let sent_out = |report: &Value| report["ports"][1]["tx_packets"].as_f64();
        let forwarded = paced.increase(sent_out).filter(|packets| *packets > 0.0);
        let per_packet = |value: Option<f64>| Some(value? / forwarded?);
        let run = Run {
            row,
            column,
            size: size.to_string(),
            round,
            offered_pps: flood.offered_pps,
            forwarded_pps: flood.forwarded_pps,
            forwarded_gbps: flood.forwarded_pps * f64::from(size) * 8.0 / 1e9,
            paced_offered_pps: paced.offered_pps,
            paced_forwarded_pps: paced.forwarded_pps,
            paced_factor: Some(PACED),
            path_pps: None,
            cycles: forwarded.and_then(|packets| cycles(&paced, packets)),
            stage_cycles: report["stages"][0]["cycles_per_packet"].as_f64(),
            syscalls: per_packet(paced.increase(|report| report["kernel"]["syscalls"].as_f64())),
            voluntary_switches: per_packet(paced.increase(|report| switches(report, "voluntary"))),
            involuntary_switches: per_packet(
                paced.increase(|report| switches(report, "involuntary")),
            ),
            tool_transmitted: report["ports"][1]["tx_packets"].as_u64(),
            sink_received,
            unexplained: None,
            command: [self.results.command.clone(), forwarder_command].join("\n"),
        };
        note(&format!(
            "round {}, {size} bytes, {:<17}{:<17} {:.3} Mpps of {:.3} offered",
            round + 1,
            run.row,
            run.column,
            run.forwarded_pps / 1e6,
            run.offered_pps / 1e6
        ));
        let lost = flood.trial.sink_lost + paced.trial.sink_lost;
        if lost > 0 {
            self.remark(
                cell,
                size,
                &format!("the sink's interface lost {lost} frames: the true rate is higher"),
            );
        }
        if flood.trial.unsent > 0 {
            let unsent = flood.trial.unsent;
            self.remark(
                cell,
                size,
                &format!("the generator's interface dropped {unsent} frames: not counted as sent"),
            );
        }
        Ok(run)
    }

    fn rates(
        &mut self,
        cell: Option<Cell>,
        size: u16,
        stop: &Stop,
    ) -> Result<(Vec<Rate>, Vec<Latency>)> {
        let (row, column) = self.names(cell);
        let offered = self
            .results
            .runs
            .iter()
            .filter(|run| {
                (&run.row, &run.column, &*run.size) == (&row, &column, &*size.to_string())
            })
            .map(|run| run.offered_pps)
            .fold(0.0, f64::max);
        let most = GENERATOR_PPS * self.arguments.generator_cores.len() as f64;
        let line = self.line_pps(size).unwrap_or(most);
        // Rates that the generator does not reach would take many trials.
        let max_pps = if offered > 0.0 { line.min(offered * PACED) } else { line };
        let limits = Limits {
            precision: self.arguments.precision,
            seconds: vec![self.arguments.trial_seconds / 4.0, self.arguments.trial_seconds],
            ..Limits::new(MIN_PPS, max_pps.max(MIN_PPS))
        };
        let latency = false;
        let mut session = self.session(cell, size, latency)?;
        let found = search(&limits, &self.arguments.allowed_loss, |pps, seconds| {
            stop.check()?;
            let trial = session.trial(pps, seconds)?;
            note(&format!(
                "{row}, {column}, {size} bytes: {:.3} Mpps for {seconds} s: {} of {} lost",
                trial.offered_pps / 1e6,
                trial.sent.saturating_sub(trial.received),
                trial.sent
            ));
            Ok(TrialCounts {
                sent: trial.sent,
                offered_pps: trial.offered_pps,
                received: trial.received,
            })
        })?;
        session.stop()?;
        let mut rates = Vec::new();
        for rate in &found {
            let allowed = 100.0 * rate.allowed_loss;
            match rate.pps {
                Some(pps) => rates.push(Rate {
                    row: row.clone(),
                    column: column.clone(),
                    size: size.to_string(),
                    allowed_loss: rate.allowed_loss,
                    pps,
                    upper_pps: rate.upper_pps,
                    trials: rate.trials,
                    is_complete: rate.is_complete,
                }),
                None => self.remark(
                    cell,
                    size,
                    &format!("more than {allowed} % of the packets are lost at every rate"),
                ),
            }
        }
        // The rates are sorted by their allowed loss.
        let lowest = found.first().and_then(|rate| rate.pps);
        let mut latencies = Vec::new();
        let reason = match (self.setup.generator, cell) {
            (GeneratorKind::Pktgen, _) => Some("pktgen writes no send time"),
            (_, Some(cell)) if cell.encrypts() => Some("ESP encrypts the send time"),
            _ => None,
        };
        if let Some(reason) = reason {
            self.remark(cell, size, &format!("no latency: {reason}"));
        } else if let Some(pps) = lowest {
            let latency = true;
            let mut session = self.session(cell, size, latency)?;
            for &load in &self.arguments.loads {
                stop.check()?;
                let load = f64::from(load) / 100.0;
                let trial = session.trial(pps * load, self.arguments.seconds)?;
                let nanoseconds = |q: f64| {
                    let time = trial.latency.quantile(q).context("no frame arrived at this load");
                    time.map(|time| time.as_nanos() as f64)
                };
                latencies.push(Latency {
                    row: row.clone(),
                    column: column.clone(),
                    size: size.to_string(),
                    load,
                    offered_pps: trial.offered_pps,
                    loss: Some(1.0 - trial.received as f64 / trial.sent.max(1) as f64),
                    p50_ns: nanoseconds(0.5)?,
                    p99_ns: nanoseconds(0.99)?,
                    p999_ns: nanoseconds(0.999)?,
                    max_ns: nanoseconds(1.0)?,
                });
            }
            session.stop()?;
        }
        Ok((rates, latencies))
    }
}

/// Returns the cell, or why xdpfwd rejects its configuration.
fn usable_cell(
    xdpfwd: &Path,
    placement: &Placement,
    path: &'static PacketPath,
    column: &'static Column,
) -> Result<Result<Cell, String>> {
    let mut reason = String::new();
    // Without the kernel's ledger if this kernel does not support it.
    for kernel_ledger in [true, false] {
        let cell = Cell { path, column, kernel_ledger };
        match check_config(xdpfwd, &placement.config(&cell)?) {
            Ok(()) => return Ok(Ok(cell)),
            Err(error) => reason = brief_reason(&error),
        }
    }
    Ok(Err(reason))
}

/// Returns the cycles by account during a window, per packet.
fn cycles(window: &Window, packets: f64) -> Option<Cycles> {
    let account = |name: &str, field: &str| {
        let read = |report: &Value| {
            let accounts = report["kernel_ledger"]["accounts"].as_array()?;
            accounts.iter().find(|account| account["name"] == name)?[field].as_f64()
        };
        // An account appears with its first sample.
        let (first, last) = (read(&window.first).unwrap_or(0.0), read(&window.last));
        last.map_or(0.0, |last| last - first)
    };
    let accounts = ["user", "system_call", "softirq", "far_end"];
    let [user, system_call, softirq, far_end] =
        accounts.map(|name| account(name, "cycles") / packets);
    let samples = accounts.map(|name| account(name, "samples")).iter().sum::<f64>() as u64;
    let cycles = Cycles { user, system_call, softirq, far_end, samples };
    (cycles.total() > 0.0).then_some(cycles)
}

/// Returns the context switches of all workers.
fn switches(report: &Value, kind: &str) -> Option<f64> {
    let field = format!("{kind}_switches");
    sum(&report["kernel_ledger"]["workers"], |worker| worker[&*field].as_f64())
}
