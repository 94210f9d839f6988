//! The measurements: runs, rates, and latency of each cell.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::Value;
use xdpfwd_bench::{
    machine::utc_now,
    results::{Cycles, FailedRates, Failure, Latency, Rate, Run},
};
use xdpfwd_lab::{GeneratorKind, Histogram};

use super::{
    NicBench,
    cells::{Cell, outgoing_bytes},
    ports,
    session::{Session, Trial, Window},
    table,
};
use crate::{
    common::{Stop, note, print},
    lab_run::sum,
    matrix::{
        files::replace, folder::RESULTS_FILE, measure, plan::CellName, rates,
        rows::xdpfwd::MAC_SWAP,
    },
    rate_search::{Limits, TrialCounts},
};

/// The second window of a run offers this much more than was forwarded in the first.
const PACED: f64 = 1.05;
/// The lowest rate that the search tries, in packets per second.
const MIN_PPS: f64 = 1000.0;
/// More packets per second than a core can generate.
const GENERATOR_PPS: f64 = 20e6;

impl NicBench<'_> {
    /// Measures all cells, and writes the results after each measurement.
    ///
    /// # Errors
    ///
    /// A measurement failed, `stop` was requested, or the results cannot be written.
    pub(super) fn measure(&mut self, stop: &Stop) -> Result<()> {
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
                // A forwarder that Ctrl-C ended has not failed.
                stop.check()?;
                match outcome {
                    Ok(run) => self.results.runs.push(run),
                    Err(error) => {
                        let (row, column, size, error) = self.failure(cell, size, &error);
                        self.results.failed.push(Failure { row, column, size, round, error });
                    }
                }
                self.save()?;
            }
            // Reverse the order in every other round, to cancel the effect of the order.
            combinations.reverse();
        }
        if !self.arguments.no_rates {
            for &size in &sizes {
                for &cell in &cells {
                    stop.check()?;
                    self.measure_rates(cell, size, stop)?;
                }
            }
        }
        self.results.finished = Some(utc_now());
        let file = self.save()?;
        let text = table::text(&self.results);
        replace(&self.folder, "nic.txt", text.as_bytes())?;
        print(&text)?;
        note(&format!("results: {}", file.display()));
        let failed = self.results.failed.len() + self.results.failed_rates.len();
        if failed > 0 {
            bail!("{failed} measurements failed, see above");
        }
        Ok(())
    }

    /// Adds rates and latencies of a cell to the results.
    fn measure_rates(&mut self, cell: Option<Cell>, size: u16, stop: &Stop) -> Result<()> {
        let (row, column) = self.names(cell);
        note(&format!("{row}, {column}, {size} bytes: rates"));
        let rates = self.rates(cell, size, stop);
        stop.check()?;
        let mut lowest = None;
        let mut outcome = rates.map(|rates| {
            lowest = rates::lowest(&rates);
            self.results.rates.extend(rates);
        });
        // Latencies can fail after rates that took minutes.
        self.save()?;
        if let Some(reason) = self.no_latency_reason(cell) {
            self.remark(cell, size, &format!("no latency: {reason}"));
        } else if let Some(pps) = lowest {
            let mut latencies = Vec::new();
            outcome = self.latencies(cell, size, pps, stop, &mut latencies);
            stop.check()?;
            self.results.latencies.extend(latencies);
        }
        if let Err(error) = outcome {
            let (row, column, size, error) = self.failure(cell, size, &error);
            self.results.failed_rates.push(FailedRates { row, column, size, error });
        }
        self.save().map(drop)
    }

    /// Prints an error. Returns row, column and size of the measurement, and the text of the error.
    fn failure(
        &self,
        cell: Option<Cell>,
        size: u16,
        error: &anyhow::Error,
    ) -> (String, String, String, String) {
        let (row, column) = self.names(cell);
        note(&format!("{row}, {column}, {size} bytes: FAILED: {error:#}"));
        (row, column, size.to_string(), format!("{error:#}"))
    }

    fn save(&self) -> Result<PathBuf> {
        let text = serde_json::to_string_pretty(&self.results)? + "\n";
        replace(&self.folder, RESULTS_FILE, text.as_bytes())?;
        Ok(self.folder.join(RESULTS_FILE))
    }

    /// Returns the names of row and column.
    fn names(&self, cell: Option<Cell>) -> (String, String) {
        match cell {
            Some(cell) => cell.names(),
            None => (self.arguments.name.clone(), "none".to_owned()),
        }
    }

    fn cell_name(&self, cell: Option<Cell>, size: u16) -> CellName {
        let (row, column) = self.names(cell);
        CellName { row, column, size: size.to_string() }
    }

    /// Returns the highest rate of frames that fit on both links: ESP makes them longer.
    fn line_pps(&self, cell: Option<Cell>, size: u16) -> Option<f64> {
        let mbps = self.results.nic.as_ref()?.link_mbps?;
        let outgoing = cell.map_or(size, |cell| outgoing_bytes(cell.column, size));
        Some(ports::line_pps(mbps, size.max(outgoing)))
    }

    /// Returns why the latency of a cell cannot be measured.
    fn no_latency_reason(&self, cell: Option<Cell>) -> Option<&'static str> {
        match (self.setup.generator, cell) {
            (GeneratorKind::Pktgen, _) => Some("pktgen writes no send time"),
            (_, Some(cell)) if cell.encrypts() => Some("ESP encrypts the send time"),
            _ => None,
        }
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
        let line = self.line_pps(cell, size);
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
            stage_cycles: per_packet(paced.increase(stage_cycles))
                .filter(|_| cell.is_some_and(|cell| !cell.column.stages.is_empty())),
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

    /// Searches for the rates of a cell. A rate is 0 if all trials lost too many packets.
    fn rates(&mut self, cell: Option<Cell>, size: u16, stop: &Stop) -> Result<Vec<Rate>> {
        let name = self.cell_name(cell, size);
        let of_cell = |run: &&Run| {
            (&run.row, &run.column, &run.size) == (&name.row, &name.column, &name.size)
        };
        let runs = self.results.runs.iter().filter(of_cell);
        let offered = runs.map(|run| run.offered_pps).fold(0.0, f64::max);
        let most = GENERATOR_PPS * self.arguments.generator_cores.len() as f64;
        let line = self.line_pps(cell, size).unwrap_or(most);
        // Rates that the generator does not reach would take many trials.
        let max_pps = if offered > 0.0 { line.min(offered * PACED) } else { line };
        let limits = Limits {
            precision: self.arguments.precision,
            seconds: vec![self.arguments.trial_seconds / 4.0, self.arguments.trial_seconds],
            ..Limits::new(MIN_PPS, max_pps.max(MIN_PPS))
        };
        let latency = false;
        let mut session = self.session(cell, size, latency)?;
        let goals = &self.arguments.allowed_loss;
        let rates = rates::find(&mut session, &limits, goals, &name, stop)?;
        session.stop()?;
        for rate in rates.iter().filter(|rate| rate.pps == 0.0) {
            let allowed = 100.0 * rate.allowed_loss;
            let text = format!("more than {allowed} % of the packets are lost at every rate");
            self.remark(cell, size, &text);
        }
        Ok(rates)
    }

    /// Measures latencies at shares of a rate, and adds them to `latencies`.
    fn latencies(
        &self,
        cell: Option<Cell>,
        size: u16,
        pps: f64,
        stop: &Stop,
        latencies: &mut Vec<Latency>,
    ) -> Result<()> {
        let latency = true;
        let mut session = self.session(cell, size, latency)?;
        let loads: Vec<f64> =
            self.arguments.loads.iter().map(|&load| f64::from(load) / 100.0).collect();
        let (seconds, name) = (self.arguments.seconds, self.cell_name(cell, size));
        rates::measure_latencies(&mut session, &loads, pps, seconds, &name, stop, latencies)?;
        session.stop().map(drop)
    }
}

impl measure::Session for Session<'_> {
    fn can_have_latency(&self) -> bool {
        true
    }

    fn trial(&mut self, pps: u64, seconds: f64) -> Result<(TrialCounts, Option<Histogram>)> {
        let Trial { sent, received, offered_pps, latency, .. } =
            Session::trial(self, pps as f64, seconds)?;
        note(&format!(
            "{:.3} Mpps for {seconds} s: {} of {sent} lost",
            offered_pps / 1e6,
            sent.saturating_sub(received)
        ));
        Ok((TrialCounts { sent, offered_pps, received }, Some(latency)))
    }

    fn stop(self: Box<Self>) -> Result<()> {
        Session::stop(*self).map(drop)
    }
}

/// Returns the cycles of the column's stages since the start of xdpfwd.
fn stage_cycles(report: &Value) -> Option<f64> {
    sum(&report["stages"], |stage| {
        let cycles = stage["packets"].as_f64()? * stage["cycles_per_packet"].as_f64()?;
        Some(cycles).filter(|_| stage["name"] != MAC_SWAP)
    })
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
