//! Converts the parsed configuration to a plan, and checks it against the machine.

mod host;
mod memory;
mod missing_keys;
mod paths;
mod ports;
mod stages;
mod workers;

use std::ops::Range;
use std::path::Path;

use xdpfwd_engine::{KernelLedgerMode, Mode, Plan, PortLoss};
use xdpfwd_pipeline::{Idle, PlanCx, Ports};

use crate::registry::Registry;
use stages::Stages;

pub(crate) use memory::{RequiredMemory, largest_mtu};

use super::file_policy::FilePolicy;
use super::findings::Findings;
use super::machine::Machine;
use super::parsed::{EngineTable, File, Tables};

/// What the resolution needs besides the file itself.
pub(super) struct ResolveContext<'a> {
    /// Base directory of relative file names.
    pub(super) directory: &'a Path,
    pub(super) registry: &'a Registry,
    pub(super) machine: &'a dyn Machine,
    pub(super) files: FilePolicy,
}

/// Converts the configuration to a plan. The plan is usable only if the findings contain no error.
pub(super) fn resolve(
    file: File<'_>,
    context: &ResolveContext<'_>,
    findings: &mut Findings<'_>,
) -> Plan {
    let File { engine, umem, mut ports, mut paths, stages, is_empty } = file;
    limit_count(&mut ports, "[[port]]", |port| port.span.clone(), findings);
    limit_count(&mut paths, "[[path]]", |path| path.span.clone(), findings);
    if is_empty {
        let message = "the file is empty; at least a [[port]] and a [[path]] are needed, as in \
                       configs/cross-connect.toml";
        findings.error(&(0..0), message.to_owned());
    }

    let workers = workers::resolve(&engine.cores, context.machine, findings);
    let interfaces = ports::interfaces(&ports, context.machine, findings);
    if !is_empty && !ports::check(&ports, &interfaces, findings) {
        // If two ports have the same name, one of the names may be a mistake for a name that a path
        // uses. So report no undefined port names.
        ports.is_complete = false;
    }
    ports::check_io(&ports, &engine, context.machine, findings);
    if let Some(workers) = &workers {
        ports::check_queues(&ports, &interfaces, workers.len(), findings);
        memory::check_frames(&umem, &ports, workers.len(), findings);
        memory::check_available(&umem, workers.len(), context.machine, findings);
    }
    memory::check_huge_pages_of_xsk_rs(&umem, &ports, findings);
    memory::check_mtu(&umem, &ports, &interfaces, findings);

    let workers = workers.unwrap_or_else(|| vec![None]);
    let port_plans = ports::resolve(&ports);
    // Querying the kernel takes time, and only stages need the result.
    let port_properties = match stages.tables.as_slice() {
        [] => Ports::default(),
        _ => context.machine.describe(&port_plans),
    };
    let cx =
        PlanCx { directory: context.directory, workers: workers.len(), ports: &port_properties };
    let stages = stages::resolve(stages, context.registry, context.machine, &cx, findings);
    if !is_empty {
        paths::check(&paths, &ports, findings);
    }
    let path_tables = paths;
    let paths = paths::resolve(&path_tables, &ports, &stages, findings);
    check_files(&engine, &stages, context.files, findings);

    // `or` replaces a missing key, and `unwrap_or` an invalid value, by the default.
    let mut plan = Plan {
        mode: engine.mode.or(Mode::default()).unwrap_or_default(),
        workers,
        busy_poll: engine.busy_poll.or(false).unwrap_or_default(),
        idle: engine.idle.or(Idle::default()).unwrap_or_default(),
        ledger: engine.ledger.or(true).unwrap_or(true),
        kernel_ledger: engine.kernel_ledger.or(KernelLedgerMode::Off).unwrap_or_default(),
        on_port_loss: engine.on_port_loss.or(PortLoss::default()).unwrap_or_default(),
        umem: memory::resolve(&umem),
        ports: port_plans,
        paths,
        control: engine.control.value().map(|path| path.get_ref().into()),
    };
    paths::check_exclusive(&plan, &stages, findings);
    paths::set_placement(&mut plan, &stages, findings);
    ports::check_vlan_tags(&plan, &ports, &interfaces, context.machine, findings);
    if !findings.has_errors() {
        host::check(&plan, &ports, &path_tables, &interfaces, context.machine, findings);
    }
    plan
}

/// Checks that only trusted users can change the files of the stages, and the folder of the control
/// socket.
fn check_files(
    engine: &EngineTable,
    stages: &Stages,
    policy: FilePolicy,
    findings: &mut Findings<'_>,
) {
    let mut check = |span: &Range<usize>, path: &Path| match policy.check(path) {
        Ok(None) => {}
        Ok(Some(warning)) => findings.warning(span, warning),
        Err(error) => findings.error(span, error),
    };
    for (_, stage) in stages.iter() {
        let files = stage.plan.as_ref().map(|plan| plan.files()).unwrap_or_default();
        files.iter().for_each(|file| check(&stage.span, file));
    }
    if let Some(socket) = engine.control.value()
        && let Some(folder) = Path::new(socket.get_ref()).parent()
    {
        check(&socket.span(), folder);
    }
}

/// Reports and removes excess tables, so that pairwise comparisons stay fast.
fn limit_count<T>(
    tables: &mut Tables<T>,
    heading: &str,
    span: impl Fn(&T) -> Range<usize>,
    findings: &mut Findings<'_>,
) {
    // Each port needs a socket on every worker's UMEM, and only one path may start at each port.
    let max = memory::MAX_SOCKETS;
    if let Some(first_excess) = tables.tables.get(max) {
        findings.error(
            &span(first_excess),
            format!("more than {max} {heading} tables; expected at most {max}"),
        );
        tables.tables.truncate(max);
        tables.is_complete = false;
    }
}
