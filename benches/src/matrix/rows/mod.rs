//! The rows of the matrix: packet paths. A new row is a file with a type that implements [`Row`],
//! and an entry in [`rows`].

mod bridge;
mod ip_forward;
mod kernel;
mod nftables;
pub(crate) mod row;
mod rule_set;
mod testpmd;
mod xdp_redirect;
pub(crate) mod xdpfwd;

use row::Row;

/// Returns all rows, in the order of tables.
pub(crate) fn rows() -> Vec<Box<dyn Row>> {
    let mut rows = xdpfwd::rows();
    rows.extend(xdp_redirect::rows());
    rows.push(Box::new(bridge::Bridge));
    rows.push(Box::new(ip_forward::IpForward));
    rows.push(Box::new(testpmd::Testpmd));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{forwarders::test_environment, matrix::columns::COLUMNS};

    #[test]
    fn row_names_are_unique_and_copies_are_functions() {
        let rows: Vec<_> = rows().iter().map(|row| row.describe()).collect();
        let mut names: Vec<_> = rows.iter().map(|row| row.name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows.len());
        for row in rows {
            assert!(matches!(&*row.place, "user" | "kernel"), "{row:?}");
            assert!(row.copies.iter().all(|copy| !copy.contains(' ')), "{row:?}");
        }
    }

    /// xdpfwd accepts everything in this test: root_matrix uses the real one.
    #[test]
    fn every_cell_has_a_configuration_or_a_short_reason() {
        let scratch = tempfile::tempdir().unwrap();
        let environment = test_environment("true", scratch.path());
        for row in rows() {
            let name = row.describe().name;
            let mut prepared = 0;
            for column in &COLUMNS {
                match row.prepare(column, &environment) {
                    Ok(cell) => {
                        prepared += 1;
                        assert!(!cell.commands().is_empty(), "{name}, {}", column.name);
                        assert_eq!(cell.encapsulates(), column.transform().is_some());
                    }
                    Err(obstacle) => {
                        let reason = obstacle.into_reason().unwrap();
                        let has_space = reason.contains(' ');
                        assert!(has_space && !reason.contains('\n'), "{name}: {reason}");
                        assert!(!reason.starts_with("n/a"), "{name}: {reason}");
                    }
                }
            }
            let is_xdpfwd = name.starts_with("packet") || name.starts_with("xsk-rs");
            assert!(prepared == COLUMNS.len() || !is_xdpfwd, "{name}: {prepared} cells");
        }
    }
}
