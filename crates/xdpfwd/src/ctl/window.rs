//! The rows that `ctl rules` and `ctl inspect` list.

use clap::{Args, Parser};
use xdpfwd_engine::ListedTable;
use xdpfwd_pipeline::Cell;

/// A selection of rows. Without options, all rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct Window {
    /// `rules` and `inspect`: list the rows from this number on; the first row has number 0
    #[arg(long, value_name = "N")]
    from: Option<usize>,

    /// `rules` and `inspect`: list at most this many rows of each table
    #[arg(long, value_name = "N")]
    count: Option<usize>,

    /// `rules` and `inspect`: list only rows that contain this text
    #[arg(long, value_name = "TEXT")]
    matching: Option<String>,
}

#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Arguments {
    #[command(flatten)]
    window: Window,
}

impl Window {
    pub(super) fn selects_all(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the options as arguments of a request.
    pub(super) fn to_arguments(&self) -> Vec<String> {
        let Self { from, count, matching } = self;
        let number =
            |name, number: &Option<usize>| number.map(|number| format!("--{name}={number}"));
        let text = matching.as_ref().map(|text| format!("--matching={text}"));
        [number("from", from), number("count", count), text].into_iter().flatten().collect()
    }

    /// Parses the arguments of a request. The error is one line.
    pub(super) fn from_arguments(arguments: &[String]) -> Result<Self, String> {
        Arguments::try_parse_from(arguments).map(|arguments| arguments.window).map_err(|error| {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.strip_prefix("error: ").unwrap_or(line).to_owned()
        })
    }

    /// Returns the selected rows among the first `rows` rows of the table.
    pub(super) fn select<'t>(
        &'t self,
        table: &'t ListedTable,
        rows: usize,
    ) -> impl Iterator<Item = Vec<Cell>> + 't {
        let first = self.from.unwrap_or(0).min(rows);
        let is_selected = |row: &Vec<Cell>| {
            self.matching
                .as_ref()
                .is_none_or(|text| row.iter().any(|cell| cell.to_string().contains(text.as_str())))
        };
        let selected = table.rows(first).take(rows - first).filter(is_selected);
        selected.take(self.count.unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_survives_conversion_to_arguments() {
        let window =
            Window { from: Some(3), count: Some(0), matching: Some("--from=1 ü".to_owned()) };
        for window in [window, Window::default()] {
            assert_eq!(Window::from_arguments(&window.to_arguments()), Ok(window));
        }
        let arguments = ["--from".to_owned(), "7".to_owned()];
        assert_eq!(Window::from_arguments(&arguments).unwrap().from, Some(7));
    }

    #[test]
    fn invalid_arguments_are_an_error_of_one_line() {
        for arguments in [["--from", "-1"], ["--form", "1"], ["5", "6"]] {
            let arguments = arguments.map(ToOwned::to_owned);
            let error = Window::from_arguments(&arguments).unwrap_err();
            assert!(!error.contains('\n') && !error.is_empty(), "{error}");
        }
    }
}
