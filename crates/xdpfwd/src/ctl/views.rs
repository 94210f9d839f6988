//! Converts the stages' inspection tables to the JSON of `ctl inspect`, `ctl rules` and `ctl sa`.
//! The formats of `ctl rules` and `ctl sa` are older than the inspection tables, and must not
//! change.

use std::io;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use xdpfwd_engine::{ListedTable, Listing, SCHEMA, TableReport};
use xdpfwd_pipeline::{Cell, Table};

use super::Window;

/// Writes the answer to `ctl inspect`: the tables with the selected rows.
pub(super) fn write_tables(
    listing: &Listing,
    window: &Window,
    output: &mut dyn io::Write,
) -> io::Result<()> {
    write_start("inspect", "tables", listing, output)?;
    for (index, table) in listing.tables.iter().enumerate() {
        let ListedTable { path, stage, place, head: Table { name, columns, .. }, .. } = table;
        let separator = if index == 0 { "" } else { "," };
        let head = json!({
            "path": path, "stage": stage, "place": place, "name": name, "columns": columns,
        });
        write!(output, "{separator}{},\"rows\":[", without_end(&head))?;
        let count = table.row_count();
        let listed = write_list(window.select(table, count), output)?;
        write_end(window, "rows_omitted", count - listed, output)?;
    }
    output.write_all(b"]}")
}

/// Writes the answer to `ctl rules`: the tables called `rules`, each with the rows of the stage's
/// table `exceptions`. In a table `rules`, the last row, which has no rule number, counts the
/// packets with the default verdict.
pub(super) fn write_rules(
    listing: &Listing,
    window: &Window,
    output: &mut dyn io::Write,
) -> io::Result<()> {
    write_start("rules", "filters", listing, output)?;
    let filters = listing.tables.iter().filter(|table| table.head.name == "rules");
    for (index, table) in filters.enumerate() {
        let separator = if index == 0 { "" } else { "," };
        let ListedTable { path, stage, place, head, .. } = table;
        let start = json!({ "path": path, "stage": stage, "place": place });
        write!(output, "{separator}{},\"rules\":[", without_end(&start))?;
        let last = table.row_count().saturating_sub(1);
        let default = table
            .rows(last)
            .next()
            .filter(|row| matches!(head.cell(row, "rule"), None | Some(Cell::None)));
        let count = if default.is_some() { last } else { table.row_count() };
        let rules = window.select(table, count).map(|row| RowObject { table: head, row });
        let listed = write_list(rules, output)?;
        let packets = default.and_then(|row| head.cell(&row, "packets")?.as_number());
        write!(output, "],\"default\":{},\"exceptions\":[", packets.unwrap_or(0))?;
        // A stage with signatures also has a table `rules`, but no table `exceptions`.
        let exceptions = listing.tables.iter().filter(|other| {
            other.head.name == "exceptions" && (&other.path, &other.stage) == (path, stage)
        });
        let rows = exceptions
            .flat_map(|other| other.rows(0).map(|row| RowObject { table: &other.head, row }));
        write_list(rows, output)?;
        write_end(window, "rules_omitted", count - listed, output)?;
    }
    output.write_all(b"]}")
}

struct RowObject<'t> {
    table: &'t Table,
    row: Vec<Cell>,
}

impl Serialize for RowObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.table.columns.iter().map(|column| column.name).zip(&self.row))
    }
}

fn write_start(
    kind: &str,
    list: &str,
    Listing { workers, answered, .. }: &Listing,
    output: &mut dyn io::Write,
) -> io::Result<()> {
    let start = json!({ "schema": SCHEMA, "type": kind, "workers": workers, "answered": answered });
    write!(output, "{},\"{list}\":[", without_end(&start))
}

/// Writes the end of a list of rows and of the object around it. In between, writes how many rows
/// are omitted if the request selected rows.
fn write_end(
    window: &Window,
    omitted_name: &str,
    omitted: usize,
    output: &mut dyn io::Write,
) -> io::Result<()> {
    output.write_all(b"]")?;
    if !window.selects_all() {
        write!(output, ",\"{omitted_name}\":{omitted}")?;
    }
    output.write_all(b"}")
}

fn write_list<T: Serialize>(
    items: impl Iterator<Item = T>,
    output: &mut dyn io::Write,
) -> io::Result<usize> {
    let mut count = 0;
    for item in items {
        if count > 0 {
            output.write_all(b",")?;
        }
        serde_json::to_writer(&mut *output, &item)?;
        count += 1;
    }
    Ok(count)
}

/// Returns the JSON of an object without the closing brace, so that the caller can add keys.
fn without_end(object: &Value) -> String {
    let mut json = object.to_string();
    json.pop();
    json
}

/// Returns the answer to `ctl ledger`: the parts of the report on CPU cycles.
pub(super) fn ledger(report: Value) -> Value {
    let ports = report["ports"].as_array().into_iter().flatten();
    let rx_packets: u64 = ports.filter_map(|port| port["rx_packets"].as_u64()).sum();
    json!({
        "schema": SCHEMA,
        "type": "ledger",
        "elapsed_seconds": report["elapsed_seconds"],
        "rx_packets": rx_packets,
        "syscalls": report["kernel"]["syscalls"],
        "ledger": report["ledger"],
        "stages": report["stages"],
        "kernel_ledger": report["kernel_ledger"],
    })
}

/// Returns the answer to `ctl sa`: the rows of the tables called `sas`, each with its stage.
pub(super) fn sas(tables: &[TableReport]) -> Value {
    let reports = tables.iter().filter(|report| report.table.name == "sas");
    let rows = reports.flat_map(|report| report.table.rows.iter().map(move |row| (report, row)));
    let sas = rows.map(|(report, row)| {
        let mut sa = object(&report.table, row);
        sa.insert("stage".to_owned(), report.stage.clone().into());
        Value::Object(sa)
    });
    json!({ "schema": SCHEMA, "type": "sa", "sas": sas.collect::<Vec<Value>>() })
}

fn object(table: &Table, row: &[Cell]) -> Map<String, Value> {
    table
        .columns
        .iter()
        .zip(row)
        .map(|(column, cell)| (column.name.to_owned(), json!(cell)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sa_view_lists_rows_with_their_stage() {
        let mut table = Table::new("sas", &[("spi", None), ("source", None)]);
        table.rows.push(vec![4097_u32.into(), Cell::None]);
        let report =
            TableReport { path: None, stage: "edge".into(), place: "user", table, rows_omitted: 0 };
        let expected = json!({ "schema": 1, "type": "sa", "sas": [{ "stage": "edge", "spi": 4097, "source": null }] });
        assert_eq!(sas(&[report]), expected);
    }
}
