//! Formats the kernel ledger of the final report.

use std::fmt::Write as _;

use xdpfwd_engine::{AccountReport, KernelLedgerReport, XdpProgramReport};

use crate::text_table::{Table, grouped};

/// Groups with a smaller share of the time are not printed.
const MIN_SHARE_PERCENT: f64 = 0.05;

/// Formats the accounts with the groups of functions below each, the run time of XDP programs, and
/// context switches. Returns an empty string if the ledger is off.
pub(crate) fn kernel_ledger(ledger: &KernelLedgerReport) -> String {
    if let Some(why) = &ledger.unavailable {
        return format!("\nkernel ledger ({}) unavailable: {why}\n", ledger.mode);
    }
    if ledger.accounts.is_empty() {
        return String::new();
    }
    let mut text = format!("\nkernel ledger ({})\n", heading(ledger));
    let text_columns = 1;
    let mut table = Table::new(&["account", "cycles/packet in", "share"], text_columns);
    let row = |name: String, account: &AccountReport| {
        let share = format!("{:.1} %", account.share_percent);
        vec![name, format!("{:.1}", account.cycles_per_packet), share]
    };
    for account in &ledger.accounts {
        table.add_row(row(account.name.to_owned(), account));
        let groups = ledger.groups.iter().filter(|group| group.account == account.name);
        for group in groups.filter(|group| group.group.share_percent >= MIN_SHARE_PERCENT) {
            table.add_row(row(format!("  {}", group.group.name), &group.group));
        }
    }
    text += &table.format();
    // Writing to a `String` does not fail.
    for program in &ledger.xdp_programs {
        let XdpProgramReport { port, interface, runs, cycles_per_run, .. } = program;
        text += &xdp_program(port, interface, *runs, *cycles_per_run);
    }
    if let Some(why) = &ledger.xdp_unavailable {
        let _ = writeln!(text, "XDP programs  run time unavailable: {why}");
    }
    for worker in &ledger.workers {
        text += &context_switches(
            worker.worker,
            (worker.voluntary_switches, worker.voluntary_switches_per_packet),
            (worker.involuntary_switches, worker.involuntary_switches_per_packet),
        );
    }
    text
}

/// Formats the context switches of a worker, as a line. A pair is a number, and the same number per
/// packet received.
pub(crate) fn context_switches(
    worker: usize,
    voluntary: (u64, f64),
    involuntary: (u64, f64),
) -> String {
    let show = |(count, per_packet): (u64, f64), kind| {
        format!("{} {kind} ({per_packet:.6} per packet in)", grouped(count))
    };
    format!(
        "context switches of worker {worker}  {}, {}\n",
        show(voluntary, "voluntary"),
        show(involuntary, "involuntary")
    )
}

/// Formats the run time of a port's XDP program, as a line.
pub(crate) fn xdp_program(port: &str, interface: &str, runs: u64, cycles_per_run: f64) -> String {
    let runs = grouped(runs);
    format!(
        "XDP program of {port} ({interface})  {cycles_per_run:.1} cycles per run, {runs} measured \
         runs\n"
    )
}

/// Returns how the ledger was measured: `sampled, cores 0-1, 2,410 samples, …`.
fn heading(ledger: &KernelLedgerReport) -> String {
    let mut heading = format!("{}, {}", ledger.mode, core_list(ledger));
    if let Some(sampling) = &ledger.sampling {
        let _ = write!(heading, ", {} samples", grouped(sampling.samples));
        if sampling.lost > 0 {
            let _ = write!(heading, ", {} lost", grouped(sampling.lost));
        }
        let _ = write!(
            heading,
            ", {} ns each = {:.2} % of a core",
            grouped(sampling.sample_nanoseconds),
            sampling.cost_percent
        );
    }
    if let Some(tracing) = &ledger.tracing {
        let _ = write!(
            heading,
            ", {} events, {} ns each = {:.1} % of the busiest core",
            grouped(tracing.events),
            grouped(tracing.event_nanoseconds),
            tracing.cost_percent
        );
    }
    heading
}

/// Returns the measured cores in the kernel's notation: `core 1`, `cores 0-3,8`.
fn core_list(ledger: &KernelLedgerReport) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for core in &ledger.cores {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == core.core => *last = core.core,
            _ => ranges.push((core.core, core.core)),
        }
    }
    let range = |&(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    let list = ranges.iter().map(range).collect::<Vec<_>>().join(",");
    if ledger.cores.len() == 1 { format!("core {list}") } else { format!("cores {list}") }
}

#[cfg(test)]
mod tests {
    use xdpfwd_engine::{CoreReport, GroupReport, SamplingReport};

    use super::*;

    fn account(name: &'static str, cycles_per_packet: f64, share_percent: f64) -> AccountReport {
        AccountReport { name, samples: 1, cycles: 1, cycles_per_packet, share_percent }
    }

    #[test]
    fn ledger_that_is_off_prints_nothing() {
        assert_eq!(kernel_ledger(&KernelLedgerReport { mode: "off", ..Default::default() }), "");
    }

    #[test]
    fn context_switches_show_total_and_number_per_packet() {
        assert_eq!(
            context_switches(1, (2410, 0.00123), (3, 0.0)),
            "context switches of worker 1  2,410 voluntary (0.001230 per packet in), \
             3 involuntary (0.000000 per packet in)\n"
        );
    }

    #[test]
    fn unavailable_ledger_prints_the_reason() {
        let ledger = KernelLedgerReport {
            mode: "sampled",
            unavailable: Some("needs CAP_PERFMON".into()),
            ..Default::default()
        };
        let text = kernel_ledger(&ledger);
        assert_eq!(text, "\nkernel ledger (sampled) unavailable: needs CAP_PERFMON\n");
    }

    #[test]
    fn groups_are_below_their_account() {
        let ledger = KernelLedgerReport {
            mode: "sampled",
            sampling: Some(SamplingReport {
                frequency_hz: 241,
                samples: 2410,
                lost: 0,
                sample_nanoseconds: 4000,
                cost_percent: 0.096,
            }),
            cores: [0, 1, 2, 8]
                .map(|core| CoreReport { core, workers: vec![], accounts: vec![] })
                .into(),
            accounts: vec![account("user", 170.0, 4.0), account("system_call", 1900.25, 41.0)],
            groups: vec![
                GroupReport { account: "system_call", group: account("copy", 230.0, 6.0) },
                GroupReport { account: "system_call", group: account("other", 0.0, 0.01) },
            ],
            xdp_programs: vec![XdpProgramReport {
                port: "lan".into(),
                interface: "fwd0".into(),
                runs: 12_345,
                nanoseconds: 1,
                cycles_per_run: 120.3,
            }],
            ..Default::default()
        };
        assert_eq!(
            kernel_ledger(&ledger),
            "
kernel ledger (sampled, cores 0-2,8, 2,410 samples, 4,000 ns each = 0.10 % of a core)
account      cycles/packet in   share
user                    170.0   4.0 %
system_call            1900.2  41.0 %
  copy                  230.0   6.0 %
XDP program of lan (fwd0)  120.3 cycles per run, 12,345 measured runs
"
        );
    }
}
