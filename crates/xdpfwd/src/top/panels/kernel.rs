use crate::costs::{Account, KernelLedger};

use super::super::format::percent;
use super::super::model::Model;
use super::super::panel::{Cell, Column, Panel};
use super::super::theme::Tone;

/// How much the panel shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::top) enum Detail {
    /// The accounts.
    Accounts,
    /// Function groups, context switches and cores too.
    All,
}

/// Returns the panel of the kernel's share.
pub(in crate::top) fn kernel(model: &Model, detail: Detail) -> Panel {
    let columns = vec![
        Column::text("account", 0),
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
        rows.extend(remarks(ledger).into_iter().map(|(name, text)| {
            vec![Cell::from(name), "".into(), text.into(), "".into(), "".into()]
        }));
        rows.extend(ledger.cores.iter().flat_map(|core| {
            let workers: Vec<String> = core.workers.iter().map(ToString::to_string).collect();
            let workers = match workers.len() {
                0 => String::new(),
                1 => format!(" (worker {})", workers[0]),
                _ => format!(" (workers {})", workers.join(", ")),
            };
            let head = format!("core {}{workers}", core.core);
            let head = vec![Cell::new(head, Tone::Strong)];
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

/// Returns the figures per packet that are no accounts.
fn remarks(ledger: &KernelLedger) -> Vec<(String, String)> {
    let mut remarks =
        vec![("system calls/pkt".to_owned(), format!("{:.4}", ledger.syscalls_per_packet))];
    for worker in &ledger.workers {
        let number = worker.worker;
        let (voluntary, involuntary) =
            (worker.voluntary_switches_per_packet, worker.involuntary_switches_per_packet);
        remarks.push((format!("worker {number} switches/pkt"), format!("{voluntary:.4}")));
        remarks.push(("  involuntary".to_owned(), format!("{involuntary:.4}")));
    }
    if let Some(reason) = &ledger.xdp_unavailable {
        remarks.push((format!("XDP programs: {reason}"), String::new()));
    }
    if let Some(cost) = ledger.cost_percent() {
        remarks.push(("cost of measuring".to_owned(), format!("{cost:.2} %")));
    }
    remarks
}
