//! Reads `matrix.json`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use xdpfwd_bench::results::{Results, SCHEMA};

const FILE: &str = "matrix.json";

/// The part of the file that every version has.
#[derive(Deserialize)]
struct Header {
    schema: u32,
}

/// Reads the results in a folder.
///
/// # Errors
///
/// The folder has no valid `matrix.json` of a known schema, or the results contain no run.
pub(super) fn load(folder: &Path) -> Result<Results> {
    let path = folder.join(FILE);
    let shown = path.display();
    let text = fs::read_to_string(&path).with_context(|| {
        format!("cannot read `{shown}`; pass a folder that `xdpfwd-bench matrix` has written")
    })?;
    let header: Header =
        serde_json::from_str(&text).with_context(|| format!("`{shown}` is not a matrix"))?;
    if header.schema != SCHEMA {
        bail!(
            "cannot read `{shown}`: its schema is {}, and this program reads schema {SCHEMA}; use \
             the xdpfwd-bench that wrote it, or measure again with `make matrix`",
            header.schema
        );
    }
    let results: Results = serde_json::from_str(&text)
        .with_context(|| format!("`{shown}` is not a valid matrix of schema {SCHEMA}"))?;
    if results.runs.is_empty() {
        bail!(
            "`{shown}` contains no run ({} failed); measure with `make matrix` or `make \
             matrix-quick` first",
            results.failed.len()
        );
    }
    check_names(&results).with_context(|| format!("`{shown}` is inconsistent"))?;
    Ok(results)
}

/// Checks that each run names a row, a column and a size of the matrix.
fn check_names(results: &Results) -> Result<()> {
    let rows: BTreeSet<&str> = results.rows.iter().map(|row| row.name.as_str()).collect();
    let columns: BTreeSet<&str> =
        results.columns.iter().map(|column| column.name.as_str()).collect();
    let sizes: BTreeSet<&str> = results.sizes.iter().map(|size| size.name.as_str()).collect();
    for run in &results.runs {
        for (kind, name, known) in [
            ("row", &run.row, &rows),
            ("column", &run.column, &columns),
            ("size", &run.size, &sizes),
        ] {
            if !known.contains(name.as_str()) {
                bail!("round {} has the unknown {kind} {name:?}", run.round);
            }
        }
    }
    Ok(())
}
