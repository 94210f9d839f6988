//! Inspection tables: a stage's state for `xdpfwd ctl` and reports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;
use xdpfwd_wire::MacAddr;

/// A stage plan with inspection tables, such as rules, sessions or security associations.
pub trait Inspectable {
    /// Returns a key, such as the text of a rule, for each of the
    /// [`Stage::row_counters`](crate::Stage::row_counters), in the same order. On a reload, a
    /// counter continues the old counter with the same key; equal keys are matched in order.
    fn counter_keys(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns the tables. `counters` has the row counter of each key, added up over the workers,
    /// the XDP program and earlier plans.
    fn tables(&self, counters: &[u64]) -> Vec<Table>;

    /// Returns the stage's first table as `LongTable` if this table can have very many rows.
    fn as_long_table(&self) -> Option<&dyn LongTable> {
        None
    }
}

/// A table that is formatted row by row, because as a whole it could need gigabytes. Each row has a
/// counter.
pub trait LongTable {
    /// Returns the table without rows.
    fn head(&self) -> Table;

    /// Returns the number of rows.
    fn row_count(&self) -> usize;

    /// Returns the counter key of a row below [`row_count`](Self::row_count), as in
    /// [`Inspectable::counter_keys`].
    fn key(&self, row: usize) -> String;

    /// Returns the row with the index `row`, which is below [`row_count`](Self::row_count), in the
    /// format of [`Inspectable::tables`]. `counter` is the row counter.
    fn row(&self, row: usize, counter: u64) -> Vec<Cell>;

    /// Returns the counter keys of the stage's other tables. Their counters come after those of the
    /// rows.
    fn other_counter_keys(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns the stage's other tables, which are short. `counters` has the row counter of each of
    /// [`other_counter_keys`](Self::other_counter_keys).
    fn other_tables(&self, _counters: &[u64]) -> Vec<Table> {
        Vec::new()
    }
}

/// A table of a stage's state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// The name, unique within the stage, for example `"rules"`.
    pub name: &'static str,
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows, each with a cell per column.
    pub rows: Vec<Vec<Cell>>,
}

/// A column of a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// The name, unique within the table.
    pub name: &'static str,
    /// The unit of the cells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
}

/// The unit of a column's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Packets.
    Packets,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

/// One value of a [`Table`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// No value in this row.
    None,
    /// A truth value.
    Bool(bool),
    /// A number, in the column's unit.
    Number(u64),
    /// Text.
    Text(String),
    /// Several values.
    List(Vec<Cell>),
    /// Numbers by name, such as drops by reason.
    Map(std::collections::BTreeMap<&'static str, u64>),
}

impl Table {
    /// Creates a table without rows; units are optional.
    pub fn new(name: &'static str, columns: &[(&'static str, Option<Unit>)]) -> Self {
        let columns = columns.iter().map(|&(name, unit)| Column { name, unit }).collect();
        Self { name, columns, rows: Vec::new() }
    }

    /// Adds columns without units.
    pub fn columns<const N: usize>(mut self, names: [&'static str; N]) -> Self {
        self.columns.extend(names.map(|name| Column { name, unit: None }));
        self
    }

    /// Adds columns with a unit.
    pub fn columns_in<const N: usize>(mut self, unit: Unit, names: [&'static str; N]) -> Self {
        self.columns.extend(names.map(|name| Column { name, unit: Some(unit) }));
        self
    }

    /// Adds a row: a tuple with one value per column.
    ///
    /// ```
    /// use std::net::Ipv4Addr;
    /// use xdpfwd_pipeline::{Table, Unit};
    ///
    /// let mut table = Table::new("sessions", &[])
    ///     .columns(["ue", "teid"])
    ///     .columns_in(Unit::Packets, ["packets"]);
    /// table.push((Ipv4Addr::new(10, 45, 0, 2), 0x1001_u32, 12_u64));
    /// ```
    pub fn push(&mut self, row: impl IntoRow) {
        self.rows.push(row.into_row());
    }

    /// Returns a row's cell in the column with this name.
    pub fn cell<'t>(&self, row: &'t [Cell], column: &str) -> Option<&'t Cell> {
        row.get(self.columns.iter().position(|candidate| candidate.name == column)?)
    }
}

impl Cell {
    /// Returns the number in the cell, if it has one.
    pub fn as_number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("-"),
            Self::Bool(value) => f.write_str(if *value { "yes" } else { "no" }),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::List(cells) => {
                for (index, cell) in cells.iter().enumerate() {
                    write!(f, "{}{cell}", if index == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Map(map) => {
                for (index, (name, number)) in map.iter().enumerate() {
                    write!(f, "{}{name} {number}", if index == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}

macro_rules! cells_from {
    ($($type:ty => $cell:expr),+ $(,)?) => {
        $(impl From<$type> for Cell {
            fn from(value: $type) -> Self {
                $cell(value.into())
            }
        })+
    };
}

cells_from!(
    bool => Cell::Bool,
    u8 => Cell::Number,
    u16 => Cell::Number,
    u32 => Cell::Number,
    u64 => Cell::Number,
    String => Cell::Text,
    &str => Cell::Text,
);

macro_rules! cells_from_text {
    ($($type:ty),+) => {
        $(impl From<$type> for Cell {
            fn from(value: $type) -> Self {
                Self::Text(value.to_string())
            }
        })+
    };
}

cells_from_text!(IpAddr, Ipv4Addr, Ipv6Addr, MacAddr);

/// A row for [`Table::push`]: a tuple of up to 12 values.
pub trait IntoRow {
    /// Returns the cells.
    fn into_row(self) -> Vec<Cell>;
}

macro_rules! rows_from_tuples {
    ($first:ident $($rest:ident)*) => {
        impl<$first: Into<Cell>, $($rest: Into<Cell>),*> IntoRow for ($first, $($rest),*) {
            fn into_row(self) -> Vec<Cell> {
                #[expect(non_snake_case, reason = "each value is named like its type")]
                let ($first, $($rest),*) = self;
                vec![$first.into(), $($rest.into()),*]
            }
        }
        rows_from_tuples!($($rest)*);
    };
    () => {};
}

rows_from_tuples!(A B C D E F G H I J K L);

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::None, Into::into)
    }
}

impl<T: Into<Cell>> From<Vec<T>> for Cell {
    fn from(values: Vec<T>) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_serializes_with_column_names_units_and_cells() {
        let mut table = Table::new(
            "sessions",
            &[("teid", None), ("packets", Some(Unit::Packets)), ("peer", None)],
        );
        table.push((7_u32, 9_u64, None::<String>));
        assert_eq!(table.cell(&table.rows[0], "packets"), Some(&Cell::Number(9)));
        assert_eq!(table.cell(&table.rows[0], "bytes"), None);
        assert_eq!(
            serde_json::to_value(&table).unwrap(),
            serde_json::json!({
                "name": "sessions",
                "columns": [
                    {"name": "teid"}, {"name": "packets", "unit": "packets"}, {"name": "peer"},
                ],
                "rows": [[7, 9, null]],
            })
        );
    }

    #[test]
    fn columns_are_added_with_their_units() {
        let table = Table::new("sessions", &[("teid", None)])
            .columns(["ue"])
            .columns_in(Unit::Bytes, ["up", "down"]);
        let columns =
            [("teid", None), ("ue", None), ("up", Some(Unit::Bytes)), ("down", Some(Unit::Bytes))];
        assert_eq!(table, Table::new("sessions", &columns));
    }

    #[test]
    fn addresses_convert_to_text_cells() {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let cells: [Cell; 4] =
            [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), mac.into(), 7_u8.into()];
        assert_eq!(
            cells.map(|cell| cell.to_string()),
            ["127.0.0.1", "::1", "02:00:00:00:00:01", "7"]
        );
    }

    #[test]
    fn cell_displays_as_text() {
        let map = Cell::Map([("late", 1), ("replay", 2)].into());
        let cells = [Cell::None, true.into(), 5_u16.into(), "a".into(), vec![1_u16, 2].into(), map];
        assert_eq!(
            cells.map(|cell| cell.to_string()),
            ["-", "yes", "5", "a", "1, 2", "late 1, replay 2"]
        );
    }
}
