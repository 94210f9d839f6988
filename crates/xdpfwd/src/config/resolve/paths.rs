//! Resolves the paths: source, stages, destination.

use std::collections::BTreeSet;
use std::sync::Arc;

use toml::Spanned;
use xdpfwd_engine::{PathPlan, Plan, StageOnPath};
use xdpfwd_pipeline::{ExclusiveResource, PortId, QueueBinding, StagePlan};

use super::ports::port_names;
use super::stages::Stages;
use crate::config::findings::Findings;
use crate::config::parsed::{NAME_DESCRIPTION, PathTable, PortTable, Tables, is_name};
use crate::config::words::{and_list, did_you_mean, quoted};

/// Returns the plans of all paths, except those with an unknown port, which an error reports.
pub(super) fn resolve(
    paths: &Tables<PathTable>,
    ports: &Tables<PortTable>,
    stages: &Stages,
    findings: &mut Findings<'_>,
) -> Vec<PathPlan> {
    // Formatted once, because many errors may contain this list.
    let defined = and_list(stages.names().map(quoted));
    let mut plans = Vec::new();
    for path in &paths.tables {
        let from = path.from.value().and_then(|name| find_port(name, ports, findings));
        let to = path.to.value().and_then(|name| find_port(name, ports, findings));
        let names = path.stages.value().map(|names| names.get_ref().as_slice()).unwrap_or_default();
        for (index, name) in names.iter().enumerate() {
            let is_repeated = names[..index].iter().any(|other| other.get_ref() == name.get_ref());
            let plan = stages.get(name.get_ref()).and_then(|stage| stage.plan.as_ref());
            // A filter, for example, counts each rule's packets.
            let has_row_counters = |plan: &Arc<dyn StagePlan>| {
                plan.as_inspectable().is_some_and(|stage| !stage.counter_keys().is_empty())
            };
            if is_repeated && plan.is_some_and(has_row_counters) {
                let message = format!(
                    "stage {} is already on the path, and its rule counters are keyed by its name; \
                     define another stage with the same rules",
                    quoted(name.get_ref())
                );
                findings.error(&name.span(), message);
            }
        }
        let stages =
            names.iter().filter_map(|name| find_stage(name, stages, &defined, findings)).collect();
        if let (Some(from), Some(to)) = (from, to) {
            plans.push(PathPlan { from, to, stages });
        }
    }
    warn_unused(paths, stages, findings);
    plans
}

/// Checks that each exclusive stage (its state cannot be shared) occurs only once, that the queues
/// to which stages are bound exist, and that no two stages use the same exclusive resource.
pub(super) fn check_exclusive(plan: &Plan, stages: &Stages, findings: &mut Findings<'_>) {
    let Plan { paths, ports, .. } = plan;
    let span = |name: &str| stages.get(name).map_or(0..0, |stage| stage.span.clone());
    let mut earlier: Vec<&StageOnPath> = Vec::new();
    let mut claimed: Vec<(ExclusiveResource, &str)> = Vec::new();
    for (path, stage) in
        paths.iter().flat_map(|path| path.stages.iter().map(move |stage| (path, stage)))
    {
        let name = &*stage.name;
        if earlier.iter().any(|other| other.name == name) {
            if stage.plan.as_resource_owner().is_some_and(|owner| owner.is_exclusive()) {
                let message = format!(
                    "stage {}: may appear only once, because its state cannot be shared; define \
                     another stage for the other path",
                    quoted(name)
                );
                findings.error(&span(name), message);
            }
            continue;
        }
        earlier.push(stage);
        let port = ports.get(usize::from(path.from.0));
        let bindings =
            stage.plan.as_queue_bound().map(|stage| stage.queue_bindings()).unwrap_or_default();
        for QueueBinding { queue, owner, .. } in bindings {
            if let Some(port) = port.filter(|port| queue >= port.queues) {
                let message = format!(
                    "stage {}: queue = {queue} of {owner}: port {} uses {} queue(s), numbered \
                     from 0",
                    quoted(name),
                    quoted(&port.name),
                    port.queues
                );
                findings.error(&span(name), message);
            }
        }
        let owner = stage.plan.as_resource_owner();
        for resource in owner.map(|owner| owner.exclusive_resources()).unwrap_or_default() {
            if let Some((_, other)) = claimed.iter().find(|(other, _)| other.id == resource.id) {
                let message = format!(
                    "stage {}: {} is also used by stage {}: {}",
                    quoted(name),
                    resource.description,
                    quoted(other),
                    resource.advice
                );
                findings.error(&span(name), message);
            }
            claimed.push((resource, name));
        }
    }
}

/// Places each stage that can run in the XDP program there, unless its path prevents this: an error
/// if the configuration requires this placement, otherwise a warning.
pub(super) fn set_placement(plan: &mut Plan, stages: &Stages, findings: &mut Findings<'_>) {
    for path in 0..plan.paths.len() {
        for index in 0..plan.paths[path].stages.len() {
            let path_plan = &plan.paths[path];
            let Some(is_required) =
                path_plan.stages[index].plan.as_xdp_offload().map(|offload| offload.is_required())
            else {
                continue;
            };
            let obstacle = plan.kernel_obstacle(path_plan, index);
            if let Some(obstacle) = &obstacle {
                let name = &path_plan.stages[index].name;
                let span = stages.get(name).map_or(0..0, |stage| stage.span.clone());
                let (name, port) =
                    (quoted(name), quoted(&plan.ports[usize::from(path_plan.from.0)].name));
                if is_required {
                    let message = format!(
                        "stage {name}: place = \"kernel\" is not possible on the path from port \
                         {port}: {obstacle}"
                    );
                    findings.error(&span, message);
                } else {
                    findings.warning(
                        &span,
                        format!(
                            "stage {name} runs in user space on the path from port {port}: \
                             {obstacle}"
                        ),
                    );
                }
            }
            plan.paths[path].stages[index].in_kernel = obstacle.is_none();
        }
    }
}

/// Checks that no two paths start at the same port, and that every port is on a path.
pub(super) fn check(
    paths: &Tables<PathTable>,
    ports: &Tables<PortTable>,
    findings: &mut Findings<'_>,
) {
    if paths.tables.is_empty() && paths.is_complete {
        let message = "no path is defined, so nothing would be forwarded; add a [[path]] with \
                       `from` and `to`";
        findings.error(&(0..0), message.to_owned());
    }
    let used_ports =
        || paths.tables.iter().flat_map(|path| [path.from.value(), path.to.value()]).flatten();
    for (index, path) in paths.tables.iter().enumerate() {
        let Some(from) = path.from.value() else { continue };
        let mut earlier = paths.tables.iter().take(index).filter_map(|path| path.from.value());
        if let Some(other) = earlier.find(|other| other == &from) {
            let line = findings.line(&other.span());
            let message = format!(
                "a path from port {} already exists on line {line}; a port can start one path only",
                quoted(from.get_ref())
            );
            findings.error(&from.span(), message);
        }
    }
    for name in ports.tables.iter().filter_map(|port| port.name.value()) {
        if !used_ports().any(|used| used == name) {
            let message = format!(
                "port {:?} is on no path: packets that it receives go to the kernel, and it sends \
                 none",
                name.get_ref()
            );
            findings.warning(&name.span(), message);
        }
    }
    warn_idle_keep(paths, ports, findings);
}

/// Warns of `keep` on a port where no path starts: it has no effect.
fn warn_idle_keep(
    paths: &Tables<PathTable>,
    ports: &Tables<PortTable>,
    findings: &mut Findings<'_>,
) {
    for port in &ports.tables {
        let (Some(name), Some(keep)) = (port.name.value(), port.keep.value()) else { continue };
        let may_start_here = |path: &PathTable| path.from.value().is_none_or(|from| from == name);
        if paths.is_complete && !paths.tables.iter().any(may_start_here) {
            let message = format!(
                "keep: no path starts at port {:?}, so the kernel receives all its packets anyway",
                name.get_ref()
            );
            findings.warning(&keep.span(), message);
        }
    }
}

fn find_port(
    name: &Spanned<String>,
    ports: &Tables<PortTable>,
    findings: &mut Findings<'_>,
) -> Option<PortId> {
    let names =
        || ports.tables.iter().map(|port| port.name.value().map(|name| name.get_ref().as_str()));
    let found = names().position(|port| port == Some(name.get_ref()));
    // `ports::check` has reported a configuration without ports.
    if found.is_none() && ports.is_complete && !ports.tables.is_empty() {
        let nearest = did_you_mean(name.get_ref(), names().flatten());
        let message = format!(
            "there is no port {}; defined: {}{nearest}",
            quoted(name.get_ref()),
            port_names(ports)
        );
        findings.error(&name.span(), message);
    }
    // Cannot fail: `limit_count` left at most 126 ports.
    found.and_then(|index| u8::try_from(index).ok()).map(PortId)
}

fn find_stage(
    name: &Spanned<String>,
    stages: &Stages,
    defined: &str,
    findings: &mut Findings<'_>,
) -> Option<StageOnPath> {
    let Some(stage) = stages.get(name.get_ref()) else {
        if stages.is_complete {
            let nearest = did_you_mean(name.get_ref(), stages.names());
            let remedy = if is_name(name.get_ref()) {
                format!("add a table [stage.{}]", name.get_ref())
            } else {
                format!("a stage's name must be {NAME_DESCRIPTION}")
            };
            let message = format!(
                "there is no stage {}; defined: {defined}; {remedy}{nearest}",
                quoted(name.get_ref())
            );
            findings.error(&name.span(), message);
        }
        return None;
    };
    Some(StageOnPath { name: name.get_ref().clone(), plan: stage.plan.clone()?, in_kernel: false })
}

fn warn_unused(paths: &Tables<PathTable>, stages: &Stages, findings: &mut Findings<'_>) {
    let stage_lists = paths.tables.iter().filter_map(|path| path.stages.value());
    let used: BTreeSet<&str> =
        stage_lists.flat_map(|names| names.get_ref()).map(|name| name.get_ref().as_str()).collect();
    for (name, stage) in stages.iter() {
        if !used.contains(name) {
            findings.warning(
                &stage.span,
                format!("stage {} is on no path: it does nothing", quoted(name)),
            );
        }
    }
}
