//! The line of `demo` that shows where the cycles of a packet went.

use xdpfwd_lab::{AccountReport, KernelLedgerReport, grouped};

/// A part with a smaller share of the cycles is added to "other".
const MIN_SHARE: f64 = 0.03;

/// Formats the cycles per packet of the workers' cores by part, and those of the kernel's receive
/// work on other cores. Returns an empty string if they were not measured.
pub(super) fn cycles_line(ledger: &KernelLedgerReport) -> String {
    if let Some(why) = &ledger.unavailable {
        return format!("cycles            not measured: {why}\n");
    }
    let cycles = |accounts: &[AccountReport], name: &str| {
        let account = accounts.iter().find(|account| account.name == name);
        account.map_or(0.0, |account| account.cycles_per_packet)
    };
    let softirq = |has_worker: bool| -> f64 {
        let cores = ledger.cores.iter().filter(|core| core.workers.is_empty() != has_worker);
        cores.map(|core| cycles(&core.accounts, "softirq")).sum()
    };
    let (user, far_end) = (cycles(&ledger.accounts, "user"), cycles(&ledger.accounts, "far_end"));
    let mut parts = vec![("user".to_owned(), user)];
    let kernel = ledger.groups.iter().filter(|group| group.account == "system_call");
    parts.extend(kernel.map(|group| (readable(&group.name), group.cycles_per_packet)));
    parts.push(("softirq".to_owned(), softirq(true)));
    parts.push(("far end".to_owned(), far_end));
    let total: f64 = parts.iter().map(|(_, cycles)| cycles).sum();
    if total <= 0.0 {
        return String::new();
    }
    // "user" and "far end" stay, however small they are: readers compare with them.
    let (mut shown, small): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(name, cycles)| {
        matches!(&**name, "user" | "far end") || name != "other" && cycles / total >= MIN_SHARE
    });
    shown.push(("other".to_owned(), small.iter().map(|(_, cycles)| cycles).sum()));
    let shown: Vec<String> = shown
        .iter()
        .map(|(name, cycles)| format!("{name} {:.0} %", 100.0 * cycles / total))
        .collect();
    let elsewhere = softirq(false);
    let elsewhere = if elsewhere >= 0.5 {
        format!("; receiving, on other cores: {}", grouped(elsewhere.round() as u64))
    } else {
        String::new()
    };
    format!(
        "cycles            {} per packet: {}{elsewhere}\n",
        grouped(total.round() as u64),
        shown.join(", ")
    )
}

/// Returns the name of a group in words: `AF_XDP transmit`.
fn readable(group: &str) -> String {
    match group.strip_prefix("af_xdp_") {
        Some(direction) => format!("AF_XDP {direction}"),
        None => group.replace('_', " "),
    }
}

#[cfg(test)]
mod tests {
    use xdpfwd_lab::{CoreReport, GroupReport};

    use super::*;

    fn account(name: &str, cycles_per_packet: f64) -> AccountReport {
        AccountReport { name: name.into(), cycles_per_packet }
    }

    fn group(account: &str, name: &str, cycles_per_packet: f64) -> GroupReport {
        GroupReport { account: account.into(), name: name.into(), cycles_per_packet }
    }

    #[test]
    fn line_shows_shares_of_the_workers_cores_and_cycles_of_others() {
        let ledger = KernelLedgerReport {
            unavailable: None,
            accounts: vec![
                account("user", 40.0),
                account("system_call", 560.0),
                account("softirq", 320.0),
                account("far_end", 380.0),
                account("idle", 5000.0),
            ],
            groups: vec![
                group("system_call", "driver_transmit", 300.0),
                group("system_call", "socket_buffers", 250.0),
                group("system_call", "scheduler", 5.0),
                group("system_call", "af_xdp_transmit", 5.0),
                group("far_end", "socket_buffers", 380.0),
            ],
            cores: vec![
                CoreReport { core: 0, workers: vec![], accounts: vec![account("softirq", 300.0)] },
                CoreReport { core: 1, workers: vec![0], accounts: vec![account("softirq", 20.0)] },
            ],
        };
        assert_eq!(
            cycles_line(&ledger),
            "cycles            1,000 per packet: user 4 %, driver transmit 30 %, socket buffers \
             25 %, far end 38 %, other 3 %; receiving, on other cores: 300\n"
        );
    }

    #[test]
    fn line_is_absent_without_a_measurement_and_names_what_is_missing() {
        assert_eq!(cycles_line(&KernelLedgerReport::default()), "");
        let unavailable = Some("needs CAP_PERFMON".to_owned());
        let ledger = KernelLedgerReport { unavailable, ..KernelLedgerReport::default() };
        assert_eq!(cycles_line(&ledger), "cycles            not measured: needs CAP_PERFMON\n");
    }
}
