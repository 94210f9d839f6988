//! The inspection table of a stage: its rules or signatures, each with its number of packets.

use std::fmt;

use xdpfwd_pipeline::{Cell, Table, Unit};

/// The counter key and table text of the default verdict. No rule has this text.
const DEFAULT: &str = "(default)";

/// Returns the text of each rule, then [`DEFAULT`].
pub(crate) fn counter_keys<R: fmt::Display>(rules: &[R]) -> Vec<String> {
    rules.iter().map(ToString::to_string).chain([DEFAULT.to_owned()]).collect()
}

/// Returns a worker's counters in the order of [`counter_keys`]: the packets of each rule, then
/// those with the default verdict.
pub(crate) fn row_counters(rules: &[u64], default: u64) -> Vec<u64> {
    rules.iter().copied().chain([default]).collect()
}

/// Returns the inspection table with the columns `rule` (its number, from 0), `packets` and `text`.
/// The last row, the default, has no number.
pub(crate) fn table<R: fmt::Display>(rules: &[R], counters: &[u64]) -> Table {
    let packets = |index: usize| counters.get(index).copied().unwrap_or(0);
    let mut table = head();
    table.rows = (0..=rules.len()).map(|index| row(rules, index, packets(index))).collect();
    table
}

/// Returns [`table`] without rows.
pub(crate) fn head() -> Table {
    Table::new("rules", &[("rule", None), ("packets", Some(Unit::Packets)), ("text", None)])
}

pub(crate) fn row<R: fmt::Display>(rules: &[R], index: usize, packets: u64) -> Vec<Cell> {
    match rules.get(index) {
        Some(_) => vec![Cell::Number(index as u64), packets.into(), key(rules, index).into()],
        None => vec![Cell::None, packets.into(), DEFAULT.into()],
    }
}

pub(crate) fn key<R: fmt::Display>(rules: &[R], index: usize) -> String {
    rules.get(index).map_or_else(|| DEFAULT.to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_lists_rules_in_order_and_default_last() {
        let rules = ["drop", "accept dscp 0"];
        assert_eq!(counter_keys(&rules), ["drop", "accept dscp 0", "(default)"]);
        assert_eq!(row_counters(&[1, 2], 3), [1, 2, 3]);
        // `row` and `key` return single elements of `table` and `counter_keys`.
        let rows_and_keys = (0..3).map(|index| (row(&rules, index, 7), key(&rules, index)));
        let expected = table(&rules, &[7, 7, 7]).rows.into_iter().zip(counter_keys(&rules));
        assert!(rows_and_keys.eq(expected));
        let table = table(&rules, &[1, 2, 3]);
        let rows: Vec<String> =
            table.rows.iter().map(|row| format!("{} {} {}", row[0], row[1], row[2])).collect();
        assert_eq!(rows, ["0 1 drop", "1 2 accept dscp 0", "- 3 (default)"]);
    }
}
