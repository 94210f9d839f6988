//! Plans, results and cells that do not exist, for tests.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use anyhow::{Result, bail};
use xdpfwd_bench::{
    machine::Machine,
    results::{Column, Cycles, Latency, Rate, Results, Row, Run, SCHEMA, Size},
};
use xdpfwd_lab::Histogram;

use super::{
    identity::{MachineIdentity, Settings},
    journal::Header,
    measure::{Measure, Session},
    plan::{CellName, Plan},
};
use crate::rate_search::TrialCounts;

pub(crate) fn plan(rows: &[&str], columns: &[&str], sizes: &[&str]) -> Plan {
    Plan {
        rows: rows
            .iter()
            .map(|&name| Row {
                name: name.to_owned(),
                title: name.to_owned(),
                place: "user".to_owned(),
                remark: String::new(),
                copies: Vec::new(),
            })
            .collect(),
        columns: columns
            .iter()
            .map(|&name| Column {
                name: name.to_owned(),
                title: name.to_owned(),
                group: "none".to_owned(),
                rules: None,
            })
            .collect(),
        sizes: sizes
            .iter()
            .map(|&name| Size { name: name.to_owned(), mean_bytes: 100.0 })
            .collect(),
        rounds: 3,
        rate_columns: Vec::new(),
        rate_sizes: Vec::new(),
        unavailable: Vec::new(),
        published: Vec::new(),
    }
}

pub(crate) fn machine() -> Machine {
    let mut machine = Machine::detect();
    machine.host = "host".to_owned();
    machine.date = "2026-01-02".to_owned();
    machine.cores = 2;
    machine
}

pub(crate) fn identity() -> MachineIdentity {
    MachineIdentity::of(&machine())
}

pub(crate) fn settings(plan: Plan) -> Settings {
    Settings {
        commit: "0123456789ab".to_owned(),
        build: 7,
        versions: BTreeMap::from([("xdpfwd".to_owned(), "1.2.3".to_owned())]),
        seconds: 0.5,
        warmup: 0.1,
        trial_seconds: 1.0,
        traffic: "all of it".to_owned(),
        generator: "live".to_owned(),
        plan,
    }
}

pub(crate) fn header(plan: Plan) -> Header {
    let mut header = Header::new("matrix", machine(), 2.5e9, settings(plan));
    header.started = "2026-01-02T03:04:05Z".to_owned();
    header
}

pub(crate) fn cell(row: &str, column: &str, size: &str) -> CellName {
    CellName { row: row.to_owned(), column: column.to_owned(), size: size.to_owned() }
}

/// Returns a run with a rate of (round + 1) Mpps and 600 cycles per packet.
pub(crate) fn run(cell: &CellName, round: u32) -> Run {
    let pps = 1e6 * f64::from(round + 1);
    Run {
        row: cell.row.clone(),
        column: cell.column.clone(),
        size: cell.size.clone(),
        round,
        offered_pps: 5e6,
        forwarded_pps: pps,
        forwarded_gbps: pps * 800.0 / 1e9,
        paced_offered_pps: 1.05 * pps,
        paced_forwarded_pps: pps / 3.0,
        paced_factor: Some(1.05),
        path_pps: Some(2.0 * pps),
        cycles: Some(Cycles {
            user: 100.5,
            system_call: 200.25,
            softirq: 299.25,
            far_end: 400.0,
            samples: 500,
        }),
        stage_cycles: None,
        syscalls: Some(1.0 / 64.0),
        voluntary_switches: Some(0.0),
        involuntary_switches: None,
        tool_transmitted: Some(123),
        sink_received: 123,
        unexplained: None,
        command: "one \"quoted\"\ntwo, with comma".to_owned(),
    }
}

pub(crate) fn rates(cell: &CellName) -> (Vec<Rate>, Vec<Latency>) {
    let CellName { row, column, size } = cell.clone();
    let rate = Rate {
        row: row.clone(),
        column: column.clone(),
        size: size.clone(),
        allowed_loss: 0.0,
        pps: 1e6 / 3.0,
        upper_pps: None,
        trials: 12,
        is_complete: true,
    };
    let latency = Latency {
        row,
        column,
        size,
        load: 0.9,
        offered_pps: 3e5,
        loss: Some(0.0),
        p50_ns: 1234.0,
        p99_ns: 2345.0,
        p999_ns: 3456.0,
        max_ns: 4567.0,
    };
    let other =
        Rate { allowed_loss: 0.005, upper_pps: Some(4e5), is_complete: false, ..rate.clone() };
    (vec![rate, other], vec![latency])
}

/// Returns the results of three rounds of two rows and two columns.
pub(crate) fn results() -> Results {
    let plan = plan(&["a", "b"], &["x", "y"], &["60"]);
    let runs = plan.steps();
    let runs = runs.iter().zip(0..).map(|(step, index)| run(step.cell(), index / 4)).collect();
    let (rates, latencies) = rates(&cell("a", "x", "60"));
    let settings = settings(plan);
    Results {
        schema: SCHEMA,
        kind: "matrix".to_owned(),
        machine: machine(),
        tsc_hz: 2.5e9,
        started: "2026-01-02T03:04:05Z".to_owned(),
        finished: None,
        command: "xdpfwd-bench matrix".to_owned(),
        seconds: settings.seconds,
        warmup: settings.warmup,
        rounds: settings.plan.rounds,
        versions: settings.versions,
        sizes: settings.plan.sizes,
        rows: settings.plan.rows,
        columns: settings.plan.columns,
        unavailable: Vec::new(),
        runs,
        failed: Vec::new(),
        failed_rates: Vec::new(),
        given_up: Vec::new(),
        rates,
        latencies,
        published: Vec::new(),
        generator: None,
        nic: None,
    }
}

/// Measures nothing: each run takes `duration`, and rows named `broken` fail.
pub(crate) struct FakeCells {
    pub(crate) duration: Duration,
    /// All runs so far.
    pub(crate) runs: Vec<(CellName, u32)>,
    /// Whether each session so far was to measure latencies.
    pub(crate) sessions: RefCell<Vec<bool>>,
    /// Blocks before the run with this number, from 0.
    pub(crate) block_before: usize,
}

impl FakeCells {
    pub(crate) fn new() -> Self {
        Self {
            duration: Duration::ZERO,
            runs: Vec::new(),
            sessions: RefCell::default(),
            block_before: usize::MAX,
        }
    }
}

impl Measure for FakeCells {
    fn run(&mut self, cell: &CellName, round: u32) -> Result<Run> {
        while self.runs.len() >= self.block_before {
            std::thread::sleep(Duration::from_secs(1));
        }
        std::thread::sleep(self.duration);
        self.runs.push((cell.clone(), round));
        if cell.row == "broken" {
            bail!("the path ended");
        }
        Ok(run(cell, round))
    }

    fn session(&self, cell: &CellName, latency: bool) -> Result<Box<dyn Session + '_>> {
        if cell.row == "broken" {
            bail!("the path ended");
        }
        self.sessions.borrow_mut().push(latency);
        Ok(Box::new(FakeSession { capacity: 1e6, latency, can_have_latency: cell.row != "esp" }))
    }
}

/// Forwards up to its capacity, in 5 µs.
struct FakeSession {
    capacity: f64,
    latency: bool,
    can_have_latency: bool,
}

impl Session for FakeSession {
    fn can_have_latency(&self) -> bool {
        self.can_have_latency
    }

    fn trial(&mut self, pps: u64, seconds: f64) -> Result<(TrialCounts, Option<Histogram>)> {
        let offered_pps = (pps as f64).min(4e6);
        let sent = (offered_pps * seconds) as u64;
        let received = sent.min((self.capacity * seconds) as u64);
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_micros(5));
        let histogram = Some(histogram).filter(|_| self.latency && self.can_have_latency);
        Ok((TrialCounts { sent, offered_pps, received }, histogram))
    }

    fn stop(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
