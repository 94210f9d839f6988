//! Tables and numbers as text.

/// Adds thousands separators: 1,234,567.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// A table of text with aligned columns.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// Number of text columns, which come first, aligned left; the others are numbers, aligned
    /// right.
    text_columns: usize,
}

impl Table {
    pub(crate) fn new(head: &[&str], text_columns: usize) -> Self {
        Self { rows: vec![head.iter().map(ToString::to_string).collect()], text_columns }
    }

    pub(crate) fn add_row(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    pub(crate) fn format(&self) -> String {
        align(&self.rows, self.text_columns, &mut Vec::new())
    }
}

pub(crate) fn align(rows: &[Vec<String>], text_columns: usize, widths: &mut Vec<usize>) -> String {
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        row.iter().zip(&mut *widths).for_each(|(cell, width)| *width = cell.len().max(*width));
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&*widths).enumerate().map(|(column, (cell, &width))| {
            if column < text_columns {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grouped_separates_thousands_with_commas() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345_678, "12,345,678")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn table_aligns_columns() {
        let mut table = Table::new(&["name", "count"], 1);
        table.add_row(vec!["a".into(), "1,000".into()]);
        table.add_row(vec!["longer".into(), "7".into()]);
        assert_eq!(table.format(), "name    count\na       1,000\nlonger      7\n");
    }
}
