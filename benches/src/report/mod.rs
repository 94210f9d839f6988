//! `report`: writes the results of a matrix as a page and as a summary in Markdown.
//!
//! `data` holds the medians of all cells, `model` predicts cells, `answers` answers the questions at
//! the top of the page, and `setup` explains the measurement. Each file in `sections` is a section of
//! the page; `charts` draws them.

mod answers;
mod charts;
mod columns;
mod context;
mod data;
mod format;
mod line_rate;
mod load;
mod model;
mod page;
mod sections;
mod setup;
mod summary;
mod widgets;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::common;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Folder that contains matrix.json, as `xdpfwd-bench matrix` writes it
    #[arg(value_name = "RESULTS")]
    results: PathBuf,
    /// Write report.html and report.md to this folder [default: RESULTS]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let results = load::load(&arguments.results)?;
    let report = context::Report::new(data::Data::new(results));
    let folder = arguments.output.as_ref().unwrap_or(&arguments.results);
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot create the folder `{}`", folder.display()))?;
    write(folder, "report.html", &page::html(&report).into_string())?;
    write(folder, "report.md", &page::markdown(&report))
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    common::print(&format!("{}\n", path.display()))
}
