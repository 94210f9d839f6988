//! `nic`: rates and latency between network interfaces, with the cells of the matrix.

mod cells;
mod measure;
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
use xdpfwd_bench::{
    machine::{Machine, tool_output, utc_now},
    results::{NicSetup, Preparation, Results, Row, SCHEMA, Size, Unavailable},
};
use xdpfwd_xsk::clock;

use crate::{
    common::{GeneratorUse, Stop, build_output, lock_scratch, note},
    forwarders::{Environment, check_config},
    matrix::{columns::Column, folder::unused, rows::xdpfwd::brief_reason},
    paths::PacketPath,
};
use cells::{Cell, ESP_MTU, Placement, describe, find_column, find_path};
pub(crate) use options::Arguments;
use options::ForwarderName;
use readiness::Examination;
use session::Setup;

pub(crate) fn run(arguments: &Arguments, stop: &Stop) -> Result<()> {
    xdpfwd_lab::require_root("measuring on network interfaces")?;
    let mut bench = NicBench::prepare(arguments)?;
    let preparations = bench.examine()?;
    for unavailable in &bench.results.unavailable {
        let column = unavailable.column.as_deref().unwrap_or("all columns");
        note(&format!("{}, {column}: n/a: {}", unavailable.row, unavailable.reason));
    }
    if bench.placement.is_some() && bench.cells.is_empty() {
        bail!("no cell can run: all are n/a, see above");
    }
    if !preparations.is_empty() {
        note(&format!(
            "{} preparations are missing:\n{}",
            preparations.len(),
            readiness::lines(&preparations).trim_end()
        ));
    }
    if arguments.check && preparations.is_empty() {
        let missing = match bench.results.unavailable.len() {
            0 => String::new(),
            count => format!("; {count} paths or cells are n/a, see above"),
        };
        note(&format!("all preparations are complete{missing}"));
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
        ports::check_safe(&ports, arguments.force)?;
        arguments.check_cores()?;
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
            warmup: Duration::from_secs_f64(arguments.warmup),
            seconds: Duration::from_secs_f64(arguments.seconds),
        };
        let machine = Machine::detect();
        let day = arguments.results.join(format!("{}-{}", machine.date, machine.host));
        let folder = unused(&day, "nic")?;
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
                latency_allowed_loss: arguments
                    .allowed_loss
                    .iter()
                    .copied()
                    .min_by(f64::total_cmp)
                    .filter(|_| !arguments.no_rates),
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
