//! Roles of columns: which of them a question or a chart is about.

use xdpfwd_bench::results::Column;

/// Where a filter runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Placement {
    User,
    Kernel,
}

impl Placement {
    pub(super) const ALL: [Self; 2] = [Self::User, Self::Kernel];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::User => "user space",
            Self::Kernel => "the kernel",
        }
    }
}

/// Returns where the filter of a column runs, if the column is only a filter. The name of such a
/// column ends with its placement.
pub(super) fn placement(column: &Column) -> Option<Placement> {
    match column.name.rsplit('-').next()? {
        "user" if column.group == "filter" => Some(Placement::User),
        "kernel" if column.group == "filter" => Some(Placement::Kernel),
        _ => None,
    }
}

/// Returns the column without any processing.
pub(super) fn none(columns: &[Column]) -> Option<usize> {
    columns.iter().position(|column| column.group == "none")
}

/// Returns the column of AES: AES-128-GCM, or else the first other AES.
pub(super) fn aes(columns: &[Column]) -> Option<usize> {
    let is_aes = |column: &Column| column.group == "aead" && column.name.starts_with("aes-");
    columns
        .iter()
        .position(|column| column.name == "aes-128-gcm")
        .or_else(|| columns.iter().position(is_aes))
}

/// Returns the columns with only a filter of the largest number of rules, and that number.
pub(super) fn largest_filter(columns: &[Column]) -> Option<(u32, Vec<usize>)> {
    let filters = || {
        columns.iter().enumerate().filter_map(|(index, column)| {
            placement(column).and(column.rules).map(|rules| (index, rules))
        })
    };
    let most = filters().map(|(_, rules)| rules).max()?;
    Some((most, filters().filter(|(_, rules)| *rules == most).map(|(index, _)| index).collect()))
}

/// Returns the number of the marker and colour of a column, the same in all charts.
pub(super) fn style(column: &Column) -> usize {
    match (column.group.as_str(), placement(column)) {
        ("none", _) => 0,
        (_, Some(Placement::User)) => 1,
        (_, Some(Placement::Kernel)) => 2,
        ("aead", _) if column.name.starts_with("aes") => 3,
        ("control", _) => 5,
        _ => 4,
    }
}

/// Returns the style and the title of columns, for a legend.
pub(super) fn legend(columns: &[Column], shown: &[usize]) -> Vec<(usize, String)> {
    shown.iter().map(|&column| (style(&columns[column]), columns[column].title.clone())).collect()
}

/// Returns the columns that charts with one panel per column show: no processing, the largest
/// filter in each placement, AES, and filter with AES.
pub(super) fn selected(columns: &[Column]) -> Vec<usize> {
    let mut selected: Vec<usize> = none(columns).into_iter().collect();
    selected.extend(largest_filter(columns).into_iter().flat_map(|(_, columns)| columns));
    selected.extend(aes(columns));
    selected.extend(columns.iter().position(|column| column.group == "both"));
    selected
}
