//! `--check`: prints the plan as text or JSON; changes nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitCode;

use serde::Serialize;
use xdpfwd_engine::{
    Io, KernelLedgerMode, Mode, PathPlan, Plan, PortPlan, Qdisc, kernel_ledger_obstacles,
};
use xdpfwd_pipeline::{Idle, PortId};
use xdpfwd_xsk::HugePages;

use crate::cli::Run;
use crate::config::{Diagnostics, Interface, Machine, RequiredMemory, escaped};
use crate::output;

/// The JSON is a public contract: existing fields never change.
#[derive(Debug, Serialize)]
struct Check {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    config: String,
    mode: &'static str,
    busy_poll: bool,
    idle: &'static str,
    workers: Vec<Worker>,
    umem: Umem,
    kernel_ledger: &'static str,
    on_port_loss: &'static str,
    control: Option<String>,
    ports: Vec<Port>,
    paths: Vec<Path>,
    warnings: Vec<Warning>,
}

#[derive(Debug, Serialize)]
struct Worker {
    worker: usize,
    /// `None` if the worker is not pinned to a core.
    core: Option<usize>,
    /// Queue numbers, equal on every port.
    queues: Vec<u16>,
}

#[derive(Debug, Serialize)]
struct Umem {
    frame_size: u32,
    frames: u32,
    huge_pages: &'static str,
    /// Packet memory of each worker.
    bytes: u64,
    total_bytes: u64,
    /// Number of 2 MiB pages for all workers, if they use huge pages.
    huge_pages_needed: u64,
}

#[derive(Debug, Serialize)]
struct Port {
    name: String,
    interface: String,
    #[serde(serialize_with = "serialize_io")]
    io: Io,
    queues: u16,
    keep: Vec<String>,
    promiscuous: bool,
    /// `None` for AF_XDP, which always bypasses the queueing disciplines.
    qdisc: Option<&'static str>,
    present: bool,
    /// Number of the interface's active queues.
    interface_queues: Option<u16>,
    mtu: Option<u32>,
    driver: Option<String>,
    state: Option<String>,
    #[serde(skip)]
    is_virtual: bool,
}

#[derive(Debug, Serialize)]
struct Path {
    from: String,
    to: String,
    stages: Vec<Stage>,
}

#[derive(Debug, Serialize)]
struct Stage {
    name: String,
    /// `"user"` or `"kernel"`.
    place: &'static str,
    summary: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    settings: BTreeMap<&'static str, &'static str>,
}

#[derive(Debug, Serialize)]
struct Warning {
    line: Option<usize>,
    column: Option<usize>,
    message: String,
}

/// Prints the plan and returns the exit status, which warnings do not change.
pub(crate) fn run(
    cli: &Run,
    plan: &Plan,
    warnings: &Diagnostics,
    machine: &dyn Machine,
) -> ExitCode {
    let check = Check::new(&cli.config().display().to_string(), plan, warnings, machine);
    let text = if cli.json {
        serde_json::to_string(&check).map(|json| json + "\n").map_err(anyhow::Error::new)
    } else {
        Ok(check.to_string())
    };
    output::exit_code(text.and_then(|text| output::print(&text)), ExitCode::SUCCESS)
}

impl Check {
    fn new(config: &str, plan: &Plan, warnings: &Diagnostics, machine: &dyn Machine) -> Self {
        let workers = plan.workers.len();
        let queues = plan.ports.iter().map(|port| port.queues).max().unwrap_or_default();
        let worker = |(worker, &core): (usize, &Option<usize>)| {
            let queues =
                (0..queues).filter(|&queue| usize::from(queue) % workers == worker).collect();
            Worker { worker, core, queues }
        };
        let (per_worker, total) =
            (RequiredMemory::new(&plan.umem, 1), RequiredMemory::new(&plan.umem, workers));
        let warning = |warning: &crate::config::Diagnostic| {
            let (line, column) = warning.position().map(|at| (at.line, at.column)).unzip();
            Warning { line, column, message: warning.message().to_owned() }
        };
        let unavailable = kernel_ledger_obstacles(plan.kernel_ledger)
            .into_iter()
            .map(|message| Warning { line: None, column: None, message });
        Self {
            schema: 1,
            kind: "check",
            config: config.to_owned(),
            mode: plan.mode.name(),
            busy_poll: plan.busy_poll,
            idle: match plan.idle {
                Idle::Poll => "poll",
                Idle::Spin => "spin",
            },
            workers: plan.workers.iter().enumerate().map(worker).collect(),
            umem: Umem {
                frame_size: plan.umem.frame_size,
                frames: plan.umem.frames,
                huge_pages: match plan.umem.huge_pages {
                    HugePages::Auto => "auto",
                    HugePages::On => "on",
                    HugePages::Off => "off",
                },
                bytes: per_worker.bytes,
                total_bytes: total.bytes,
                huge_pages_needed: total.huge_pages,
            },
            kernel_ledger: plan.kernel_ledger.name(),
            on_port_loss: plan.on_port_loss.name(),
            control: plan.control.as_ref().map(|path| path.display().to_string()),
            ports: plan
                .ports
                .iter()
                .map(|port| Port::new(port, machine.interface(&port.interface)))
                .collect(),
            paths: plan.paths.iter().map(|path| Path::new(path, &plan.ports)).collect(),
            warnings: warnings.iter().map(warning).chain(unavailable).collect(),
        }
    }
}

fn serialize_io<S: serde::Serializer>(io: &Io, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(io.name())
}

impl Port {
    fn new(port: &PortPlan, interface: Option<Interface>) -> Self {
        let present = interface.is_some();
        let Interface { queues: interface_queues, mtu, driver, state, is_virtual, .. } =
            interface.unwrap_or_default();
        let PortPlan { name, interface, io, queues, keep, promiscuous, qdisc } = port.clone();
        let keep = keep.iter().map(ToString::to_string).collect();
        let qdisc = io.uses_packet_sockets().then_some(match qdisc {
            Qdisc::Bypass => "bypass",
            Qdisc::Use => "use",
        });
        Self {
            name,
            interface,
            io,
            queues,
            keep,
            promiscuous,
            qdisc,
            present,
            interface_queues,
            mtu,
            driver,
            state,
            is_virtual,
        }
    }
}

impl Path {
    fn new(path: &PathPlan, ports: &[PortPlan]) -> Self {
        let name = |PortId(index)| {
            ports.get(usize::from(index)).map(|port| port.name.clone()).unwrap_or_default()
        };
        let stage = |stage: &xdpfwd_engine::StageOnPath| Stage {
            name: stage.name.clone(),
            place: stage.place(),
            summary: stage.plan.summary(),
            settings: stage.plan.settings().into_iter().collect(),
        };
        Self {
            from: name(path.from),
            to: name(path.to),
            stages: path.stages.iter().map(stage).collect(),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "mode     {}", describe_mode(self.mode))?;
        let busy_poll = if self.busy_poll { ", busy polling" } else { "" };
        match self.idle {
            "spin" => writeln!(f, "idle     spin: the workers never sleep{busy_poll}")?,
            _ => writeln!(
                f,
                "idle     poll: waits in the kernel while no packets arrive{busy_poll}"
            )?,
        }
        let Umem { frame_size, frames, huge_pages, bytes, total_bytes, huge_pages_needed } =
            &self.umem;
        let per_worker = mebibytes(*bytes);
        writeln!(f, "umem     {frames} frames × {frame_size} bytes = {per_worker} per worker")?;
        let pages = match *huge_pages {
            "off" => "normal pages".to_owned(),
            "on" => format!("{huge_pages_needed} huge pages of 2 MiB (required)"),
            _ => format!("{huge_pages_needed} huge pages of 2 MiB if free, otherwise normal pages"),
        };
        let uses_xdp = self.ports.iter().any(|port| port.io.uses_xdp());
        let locked = if uses_xdp { ", locked" } else { "" };
        writeln!(f, "memory   {} in total{locked}; {pages}", mebibytes(*total_bytes))?;
        if let Some(control) = &self.control {
            writeln!(f, "control  {}", escaped(control))?;
        }
        if self.kernel_ledger != KernelLedgerMode::Off.name() {
            writeln!(f, "kernel ledger  {}", self.kernel_ledger)?;
        }
        writeln!(f, "workers")?;
        for Worker { worker, core, queues: numbers } in &self.workers {
            let core = core
                .map_or_else(|| "any core (not pinned)".to_owned(), |core| format!("core {core}"));
            let queues = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let noun = if numbers.len() == 1 { "queue" } else { "queues" };
            writeln!(f, "  {worker}: {core}, {noun} {queues} of every port")?;
        }
        writeln!(f, "ports")?;
        self.ports.iter().try_for_each(|port| writeln!(f, "  {port}"))?;
        writeln!(f, "paths")?;
        for path in &self.paths {
            writeln!(f, "  {path}")?;
            for Stage { name, settings, .. } in &path.stages {
                if !settings.is_empty() {
                    let settings: Vec<_> =
                        settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
                    writeln!(f, "    {name}: {}", settings.join(", "))?;
                }
            }
        }
        let file = escaped(&self.config);
        match self.warnings.len() {
            0 => writeln!(f, "{file} is valid"),
            1 => writeln!(f, "{file} is valid, with 1 warning"),
            more => writeln!(f, "{file} is valid, with {more} warnings"),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            interface,
            io,
            queues,
            keep,
            promiscuous,
            qdisc,
            present,
            interface_queues,
            mtu,
            driver,
            state,
            is_virtual,
        } = self;
        let noun = if *queues == 1 { "queue" } else { "queues" };
        write!(f, "{name}: {interface} with {io}")?;
        if let Some(remark) = io.remark() {
            write!(f, " ({remark})")?;
        }
        f.write_str(", ")?;
        if !present {
            return write!(f, "missing; {queues} {noun} configured");
        }
        match interface_queues {
            None => write!(f, "present; {queues} {noun} configured, active queues unknown")?,
            Some(available) => {
                let noun = if *available == 1 { "queue" } else { "queues" };
                write!(f, "present; {queues} of {available} {noun}")?;
            }
        }
        if let Some(mtu) = mtu {
            write!(f, ", MTU {mtu}")?;
        }
        match driver {
            Some(driver) => write!(f, ", driver {driver}")?,
            None if *is_virtual => f.write_str(", no device driver (virtual)")?,
            None => f.write_str(", driver unknown")?,
        }
        if let Some(state) = state {
            write!(f, ", {state}")?;
        }
        if *qdisc == Some("use") {
            f.write_str(", through the queueing discipline")?;
        }
        if !promiscuous {
            f.write_str(", only frames for its own MAC address")?;
        }
        if !keep.is_empty() {
            write!(f, "; passed to the kernel: {}", keep.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)?;
        if self.stages.is_empty() {
            return f.write_str(": unchanged, through no stage");
        }
        for (index, Stage { name, place, summary, .. }) in self.stages.iter().enumerate() {
            let separator = if index == 0 { ":" } else { "," };
            let place = if *place == "kernel" { "in the kernel: " } else { "" };
            write!(f, "{separator} {name}")?;
            if !summary.is_empty() {
                write!(f, " ({place}{summary})")?;
            }
        }
        Ok(())
    }
}

fn describe_mode(mode: &str) -> String {
    if mode == Mode::Auto.name() {
        "auto: zero-copy, otherwise copy, otherwise skb".to_owned()
    } else {
        format!("{mode} (required)")
    }
}

/// Formats a size in MiB, rounded down to a multiple of 0.5 MiB, the smallest packet memory (256
/// frames of 2 KiB).
fn mebibytes(bytes: u64) -> String {
    let (mebibytes, has_half) = (bytes >> 20, (bytes >> 19) & 1 == 1);
    if has_half { format!("{mebibytes}.5 MiB") } else { format!("{mebibytes} MiB") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FakeMachine, plan};

    const CONFIG: &str = "\
[engine]
cores = [2, 3]
[umem]
frames = 1024
[[port]]
name = \"lan\"
interface = \"dual1\"
queues = 2
[[port]]
name = \"wan\"
interface = \"eth9\"
queues = 2
io = \"packet-mmsg\"
[[port]]
name = \"tap\"
interface = \"opaque\"
queues = 2
[[path]]
from = \"lan\"
to = \"wan\"
stages = [\"hop\", \"to-wan\"]
[[path]]
from = \"wan\"
to = \"lan\"
[[path]]
from = \"tap\"
to = \"tap\"
[stage.hop]
kind = \"ttl\"
[stage.to-wan]
kind = \"set-mac\"
destination = \"02:00:00:00:00:01\"
";

    fn check(text: &str) -> Check {
        let machine = FakeMachine::new();
        let source = crate::config::Source::new("router.toml".into(), text.into());
        let (plan, warnings) =
            plan(&source, std::path::Path::new(""), &xdpfwd_stages::builtin(), &machine).unwrap();
        Check::new("router.toml", &plan, &warnings, &machine)
    }

    #[test]
    fn check_text_matches_snapshot() {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!("check", check(CONFIG).to_string());
        });
    }

    #[test]
    fn check_json_matches_snapshot() {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!("check-json", serde_json::to_string_pretty(&check(CONFIG)).unwrap());
        });
    }

    #[test]
    fn mebibytes_formats_half_mebibytes() {
        assert_eq!(mebibytes(256 * 2048), "0.5 MiB");
        assert_eq!(mebibytes((1 << 20) * 4096), "4096 MiB");
    }
}
