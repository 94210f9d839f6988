//! Converts the stages' inspection tables to the JSON of `ctl inspect`, `ctl rules` and `ctl sa`.
//! The formats of the last two are older than the tables and must not change.

use serde_json::{Map, Value, json};
use xdpfwd_engine::{Inspection, SCHEMA, TableReport};
use xdpfwd_pipeline::Cell;

/// `ctl inspect`: all tables unchanged.
pub(super) fn all_tables(inspection: &Inspection) -> serde_json::Result<Value> {
    let Inspection { workers, answered, tables } = inspection;
    let tables = serde_json::to_value(tables)?;
    Ok(
        json!({ "schema": SCHEMA, "type": "inspect", "workers": workers, "answered": answered, "tables": tables }),
    )
}

/// `ctl rules`: the tables called `rules`, each with the rows of the stage's table `exceptions`. In
/// a table `rules`, the row without a rule number counts the packets with the default verdict.
pub(super) fn rules(inspection: &Inspection) -> serde_json::Result<Value> {
    let Inspection { workers, answered, tables } = inspection;
    let filters = tables.iter().filter(|report| report.table.name == "rules").map(|report| {
        let table = &report.table;
        let is_default =
            |row: &&Vec<Cell>| matches!(table.cell(row, "rule"), None | Some(Cell::None));
        let default = table
            .rows
            .iter()
            .find(is_default)
            .and_then(|row| table.cell(row, "packets")?.as_number());
        let rules = table.rows.iter().filter(|row| !is_default(row)).map(|row| object(report, row));
        // Of the same stage; a stage with signatures has none.
        let exceptions = tables.iter().filter(|other| {
            other.table.name == "exceptions"
                && (&other.path, &other.stage) == (&report.path, &report.stage)
        });
        let exceptions =
            exceptions.flat_map(|other| other.table.rows.iter().map(move |row| object(other, row)));
        Ok(json!({
            "path": report.path,
            "stage": report.stage,
            "place": report.place,
            "rules": rules.collect::<serde_json::Result<Vec<_>>>()?,
            "default": default.unwrap_or(0),
            "exceptions": exceptions.collect::<serde_json::Result<Vec<_>>>()?,
        }))
    });
    let filters = filters.collect::<serde_json::Result<Vec<Value>>>()?;
    Ok(
        json!({ "schema": SCHEMA, "type": "rules", "workers": workers, "answered": answered, "filters": filters }),
    )
}

/// `ctl sa`: the rows of the tables called `sas`, each with its stage.
pub(super) fn sas(tables: &[TableReport]) -> serde_json::Result<Value> {
    let reports = tables.iter().filter(|report| report.table.name == "sas");
    let rows = reports.flat_map(|report| report.table.rows.iter().map(move |row| (report, row)));
    let sas = rows.map(|(report, row)| {
        let mut sa = object(report, row)?;
        sa.insert("stage".to_owned(), report.stage.clone().into());
        Ok(Value::Object(sa))
    });
    let sas = sas.collect::<serde_json::Result<Vec<Value>>>()?;
    Ok(json!({ "schema": SCHEMA, "type": "sa", "sas": sas }))
}

fn object(report: &TableReport, row: &[Cell]) -> serde_json::Result<Map<String, Value>> {
    let cells = report.table.columns.iter().zip(row);
    cells.map(|(column, cell)| Ok((column.name.to_owned(), serde_json::to_value(cell)?))).collect()
}

#[cfg(test)]
mod tests {
    use xdpfwd_pipeline::Table;

    use super::*;

    fn inspection(table: Table) -> Inspection {
        let report = TableReport {
            path: Some("lan->wan".into()),
            stage: "edge".into(),
            place: "user",
            table,
            rows_omitted: 0,
        };
        Inspection { workers: 2, answered: 1, tables: vec![report] }
    }

    #[test]
    fn rules_view_lists_rules_default_and_exceptions() {
        let mut table = Table::new("rules", &[("rule", None), ("packets", None), ("text", None)]);
        table.rows.push(vec![0_u64.into(), 7_u64.into(), "drop".into()]);
        table.rows.push(vec![Cell::None, 9_u64.into(), "(default)".into()]);
        let mut inspection = inspection(table);
        let mut exceptions =
            Table::new("exceptions", &[("exception", None), ("accepted", None), ("dropped", None)]);
        exceptions.push(("not_ip", 3_u64, 4_u64));
        let report = TableReport { table: exceptions, ..inspection.tables[0].clone() };
        inspection.tables.push(TableReport { stage: "other".into(), ..report.clone() });
        inspection.tables.push(report);
        let expected = json!({
            "schema": 1, "type": "rules", "workers": 2, "answered": 1,
            "filters": [{
                "path": "lan->wan", "stage": "edge", "place": "user", "default": 9,
                "rules": [{ "rule": 0, "packets": 7, "text": "drop" }],
                "exceptions": [{ "exception": "not_ip", "accepted": 3, "dropped": 4 }],
            }],
        });
        assert_eq!(rules(&inspection).unwrap(), expected);
    }

    #[test]
    fn sa_view_lists_rows_with_their_stage() {
        let mut table = Table::new("sas", &[("spi", None), ("source", None)]);
        table.rows.push(vec![4097_u32.into(), Cell::None]);
        let expected = json!({ "schema": 1, "type": "sa", "sas": [{ "stage": "edge", "spi": 4097, "source": null }] });
        assert_eq!(sas(&inspection(table).tables).unwrap(), expected);
    }

    #[test]
    fn inspect_view_shows_any_table() {
        let mut table = Table::new("sessions", &[("teid", None)]);
        table.rows.push(vec![1_u32.into()]);
        let value = all_tables(&inspection(table)).unwrap();
        assert_eq!(value["tables"][0]["name"], "sessions");
        assert_eq!(value["tables"][0]["rows"], json!([[1]]));
    }
}
