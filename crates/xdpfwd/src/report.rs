//! Formats reports as JSON.

use serde::Serialize;
use serde_json::{Value, json};
use xdpfwd_engine::Report;

use crate::app::App;

#[derive(Serialize)]
struct NamedReport<'a> {
    #[serde(flatten)]
    report: &'a Report,
    program: &'static str,
    version: &'static str,
}

pub(crate) fn json_value(report: &Report, app: &App) -> serde_json::Result<Value> {
    serde_json::to_value(NamedReport { report, program: app.name, version: app.version })
}

/// Returns a line of JSON with the fields in the documented order.
pub(crate) fn json_line(report: &Report, program: &'static str, version: &'static str) -> String {
    match serde_json::to_string(&NamedReport { report, program, version }) {
        Ok(json) => json + "\n",
        Err(error) => format!("{}\n", json!({ "error": error.to_string() })),
    }
}
