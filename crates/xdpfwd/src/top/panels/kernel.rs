use crate::costs::{Account, KernelLedger};

use super::super::format::percent;
use super::super::model::Model;
use super::super::panel::{Cell, Column, ColumnKind, Panel};
use super::super::theme::Tone;

/// How much the panel shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// The accounts.
    Accounts,
    /// Function groups, context switches and cores too.
    All,
}

/// Returns the panel of the kernel's share.
pub(crate) fn kernel(model: &Model, detail: Detail) -> Panel {
    // Wide enough for each account, and for each function group.
    let min = if detail == Detail::Accounts { 11 } else { 18 };
    let columns = vec![
        Column { head: "account", kind: ColumnKind::Text { min }, rank: 0 },
        Column::number("samples", 3),
        Column::number("cycles/pkt in", 0),
        Column::number("share", 0),
        Column::rest("", 6, 2),
    ];
    let title = "User space and kernel".to_owned();
    let reason = KernelLedger::why_empty(model.kernel.as_ref());
    let (None, Some(ledger)) = (&reason, &model.kernel) else {
        let empty = reason.unwrap_or_default();
        return Panel { title, columns, empty, ..Panel::default() };
    };
    let mut rows = Vec::new();
    for account in &ledger.accounts {
        rows.push(row(&account.name, account, Tone::Strong));
        if detail == Detail::All {
            let groups = ledger.groups.iter().filter(|group| {
                group.account.as_ref() == Some(&account.name)
                    && (group.samples > 0 || group.cycles > 0)
            });
            rows.extend(groups.map(|group| row(&format!("  {}", group.name), group, Tone::Normal)));
        }
    }
    if detail == Detail::All {
        rows.extend(rates(ledger));
        // With one core, its accounts are those above.
        let cores = ledger.cores.iter().filter(|_| ledger.cores.len() > 1);
        rows.extend(cores.flat_map(|core| {
            let workers: Vec<String> = core.workers.iter().map(ToString::to_string).collect();
            let workers = match workers.len() {
                0 => String::new(),
                1 => format!(" (worker {})", workers[0]),
                _ => format!(" (workers {})", workers.join(", ")),
            };
            let head = vec![Cell::new(format!("core {}{workers}", core.core), Tone::Strong)];
            let accounts = core.accounts.iter().filter(|account| account.cycles > 0);
            std::iter::once(head).chain(
                accounts.map(|account| row(&format!("  {}", account.name), account, Tone::Normal)),
            )
        }));
    }
    let remark = format!("{}, last {:.0} s", ledger.method(), ledger.seconds);
    Panel { title, remark, columns, rows, ..Panel::default() }
}

fn row(name: &str, account: &Account, tone: Tone) -> Vec<Cell> {
    let samples = match account.samples {
        0 => String::new(),
        samples => samples.to_string(),
    };
    vec![
        Cell::new(name, tone),
        samples.into(),
        Cell::new(format!("{:.1}", account.cycles_per_packet), tone),
        percent(account.share_percent).into(),
        Cell::bar(account.share_percent / 100.0),
    ]
}

/// Returns the rows that are no accounts: rates per packet, and what measuring costs.
fn rates(ledger: &KernelLedger) -> Vec<Vec<Cell>> {
    let row = |name: String, text: String| vec![Cell::from(name), "".into(), text.into()];
    let number = |number: f64| format!("{number:.6}");
    let mut rows = vec![row("system calls/pkt".to_owned(), number(ledger.syscalls_per_packet))];
    for worker in &ledger.workers {
        rows.push(vec![Cell::new(format!("worker {} switches/pkt", worker.worker), Tone::Strong)]);
        let switches = [
            ("  voluntary", worker.voluntary_switches_per_packet),
            ("  involuntary", worker.involuntary_switches_per_packet),
        ];
        rows.extend(switches.map(|(name, switches)| row(name.to_owned(), number(switches))));
    }
    if let Some(reason) = &ledger.xdp_unavailable {
        rows.push(vec![Cell::new(format!("XDP programs: {reason}"), Tone::Faint)]);
    }
    if let Some(cost) = ledger.cost_percent() {
        rows.push(row("cost of measuring".to_owned(), format!("{cost:.2} %")));
    }
    rows
}
