//! The README in the folder of a matrix.

use std::fmt::Write as _;

use xdpfwd_bench::results::Results;

use super::{
    history::describe_given_up,
    rates::{GOALS, LOADS, limits},
};

/// Describes machine, programs, commands and files.
pub(crate) fn text(results: &Results) -> String {
    let Results { kind, machine, started, command, seconds, warmup, rounds, .. } = results;
    let mut text = String::new();
    let _ = writeln!(text, "# Security cost of packet paths: {kind}\n");
    let _ = match &results.finished {
        Some(finished) => writeln!(text, "Measured from {started} to {finished} (UTC).\n"),
        None => writeln!(
            text,
            "**Incomplete**: started at {started} (UTC). The same command continues it.\n"
        ),
    };
    let _ = writeln!(text, "| | |\n|---|---|");
    for (name, value) in [
        ("host", machine.host.clone()),
        ("processor", machine.cpu.clone()),
        ("logical processors", machine.cores.to_string()),
        ("kernel", machine.kernel.clone()),
        ("commit", machine.commit.clone()),
        ("load average at the start", machine.load_average.clone()),
        ("time-stamp counter", format!("{:.3} GHz", results.tsc_hz / 1e9)),
    ] {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    for (name, version) in &results.versions {
        let _ = writeln!(text, "| {name} | {version} |");
    }
    let cells: usize = results.rows.len() * results.columns.len() * results.sizes.len();
    let _ = write!(
        text,
        "\n{} rows × {} columns × {} sizes = {cells} cells; {rounds} rounds. {} runs succeeded, {} \
         failed. Each run has\ntwo windows of {seconds:.3} s, each after {warmup:.3} s of traffic.\n",
        results.rows.len(),
        results.columns.len(),
        results.sizes.len(),
        results.runs.len(),
        results.failed.len(),
    );
    for given_up in &results.given_up {
        let _ = writeln!(text, "\n{}.", describe_given_up(given_up));
    }
    let _ = write!(
        text,
        "\n## How to repeat it\n\nIn the repository, at the commit above:\n\n```sh\nmake {}\n```\n\n\
         The command of this matrix was:\n\n```sh\n{command}\n```\n\nThe column `command` of \
         `runs.csv` has the commands of each run.\n",
        if kind == "matrix-quick" { "matrix-quick" } else { "matrix" },
    );
    text + &files()
}

fn files() -> String {
    let goals: Vec<String> = GOALS.iter().map(|goal| format!("{} %", 100.0 * goal)).collect();
    let loads: Vec<String> = LOADS.iter().map(|load| format!("{:.0}", 100.0 * load)).collect();
    format!(
        "
## Files

- `matrix.json`: everything, in the format of `benches/src/results.rs`. It also lists the cells that
  cannot exist, with reasons, the runs that failed, and figures published by others.
- `runs.csv`: one line per run.
- `rates.csv`: the highest rates with at most {goals} loss, for some columns. The search ends when
  `pps` is at most {precision} % below `upper_pps`.
- `latencies.csv`: latency at {loads} % of the rate without loss.
- `report.html`, `report.md`: `xdpfwd-bench report` writes them from `matrix.json`.

An empty field means that the value is not available. Cycles are those of the time-stamp counter,
without time that the hypervisor took from a core.

**All rates and latencies include the work of the sink**, which runs on the forwarding core and
differs by row (`cycles_far_end`). With a NIC, another machine does this work. Compare `path_pps`
or `cycles_total` to compare the paths alone.

| column of `runs.csv` | unit | meaning |
|---|---|---|
| `row`, `column`, `size` | | packet path, security processing, frame length in bytes without FCS or `imix` |
| `round` | | from 0 |
| `offered_pps`, `forwarded_pps` | packets/s | sent by the generator, and received by the sink, while the generator sends as fast as it can |
| `forwarded_gbps` | 10⁹ bit/s | `forwarded_pps` times the frame length at the generator, without FCS |
| `paced_offered_pps`, `paced_forwarded_pps` | packets/s | the same in the second window, for which the generator is asked to send about 5 % more than the path forwards (up to 10 % more for a process that would otherwise wait for packets); the figures below are from this window |
| `paced_factor` | | the rate that the generator was asked for in the second window, divided by `forwarded_pps` |
| `path_pps` | packets/s | rate of the forwarding core without the sink's work, calculated: clock of the time-stamp counter ÷ cycles of user, system call and softirq on this core |
| `cycles_total` | cycles/packet | sum of user, system call and softirq, on the generator's and the forwarder's core, per forwarded packet |
| `cycles_user`, `cycles_system_call`, `cycles_softirq` | cycles/packet | in user space; in system calls without softirqs; in softirqs of the forwarder's interfaces |
| `cycles_far_end` | cycles/packet | in the sink's end of the veth, on the forwarding core: not part of forwarding, but it lowers the rates |
| `samples` | | number of samples behind the cycles |
| `stage_cycles` | cycles/packet | of the security stages, as xdpfwd's ledger reports them |
| `syscalls` | calls/packet | system calls of the forwarding process |
| `voluntary_switches`, `involuntary_switches` | switches/packet | context switches of the forwarding process |
| `tool_transmitted`, `sink_received` | packets | sent during the whole run as the forwarder itself reports it, and received by the sink |
| `unexplained` | | why frames are missing, if any are |
| `command` | | the commands of the run, one per line |

| column of `rates.csv` | unit | meaning |
|---|---|---|
| `allowed_loss` | share | packets that may be lost |
| `pps` | packets/s | highest offered rate within the allowed loss |
| `upper_pps` | packets/s | lowest offered rate above the allowed loss; empty if the generator cannot send that fast |
| `trials` | | trials of the search |
| `is_complete` | | `false` if the search ran out of trials: `pps` and `upper_pps` may be far apart |

| column of `latencies.csv` | unit | meaning |
|---|---|---|
| `load` | share | of the rate without loss |
| `offered_pps` | packets/s | sent by the generator |
| `loss` | share | packets that were lost meanwhile: they have no latency |
| `p50_ns`, `p99_ns`, `p999_ns`, `max_ns` | ns | quantiles of the time from generator to sink |
",
        goals = goals.join(" and "),
        precision = 100.0 * limits(1.0).precision,
        loads = loads.join(", "),
    )
}
