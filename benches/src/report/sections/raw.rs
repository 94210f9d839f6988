//! Raw values and commands of each cell: where the numbers of the page lead.

use maud::{Markup, html};
use xdpfwd_bench::results::Run;

use super::super::context::{Report, Section};
use super::super::data::{Cell, Data};
use super::super::format::{integer, mpps, short};
use super::super::setup;
use super::super::widgets;

pub(super) const SECTION: Section =
    Section { id: "raw", title: "Raw values and commands", html: content, markdown: |_| None };

fn content(report: &Report) -> Option<Markup> {
    let data = &report.data;
    Some(html! {
        p.note {
            "One row per run, as in " code { "matrix.json" }
            @if !setup::is_nic(data) { " and " code { "runs.csv" } }
            ". Cycles, system calls and context switches are per forwarded packet, in the paced "
            "window; Gbit/s are of received frames, without FCS and the bytes that ESP adds. "
            "Forwarder: the frames that it reports as transmitted."
        }
        @for (index, row) in data.rows().iter().enumerate() {
            @let cells: Vec<&Cell> =
                data.measured().filter(|cell| cell.key.row == index).collect();
            @if !cells.is_empty() {
                details {
                    summary { (row.title) }
                    @if !row.copies.is_empty() {
                        p.note {
                            "Copies of all bytes of a packet by a CPU: " (row.copies.len()) " ("
                            (row.copies.join(", ")) ")."
                        }
                    }
                    @for cell in cells { (one(data, cell)) }
                }
            }
        }
    })
}

fn one(data: &Data, cell: &Cell) -> Markup {
    let runs: Vec<&Run> = cell.runs.iter().map(|&run| &data.results.runs[run]).collect();
    let mut commands: Vec<&str> = runs.iter().map(|run| run.command.as_str()).collect();
    commands.dedup();
    let headings = [
        "round",
        "offered Mpps",
        "Mpps",
        "Gbit/s",
        "paced offered Mpps",
        "paced Mpps",
        "samples",
        "user",
        "system call",
        "softirq",
        "far end",
        "stages",
        "system calls",
        "voluntary",
        "involuntary switches",
        "forwarder frames",
        "sink frames",
    ]
    .map(str::to_owned);
    let rows: Vec<(Markup, Vec<Markup>)> = runs
        .iter()
        .map(|run| (html! { (run.round) }, values(run).map(|value| html! { (value) }).to_vec()))
        .collect();
    html! {
        details.cell id=(data.anchor(cell.key)) {
            summary {
                (data.columns()[cell.key.column].title) ", " (data.size_name(cell.key.size)) ": "
                (mpps(cell.mpps.median)) " Mpps"
                @if let Some(cycles) = &cell.cycles { ", " (integer(cycles.total.median)) " cycles" }
            }
            (widgets::table(&headings, &rows))
            @for command in commands { pre { (command) } }
        }
    }
}

fn values(run: &Run) -> [String; 16] {
    let number =
        |value: Option<f64>, text: fn(f64) -> String| value.map_or_else(|| "–".to_owned(), text);
    let cycles = run.cycles.as_ref();
    [
        mpps(run.offered_pps / 1e6),
        mpps(run.forwarded_pps / 1e6),
        short(run.forwarded_gbps),
        mpps(run.paced_offered_pps / 1e6),
        mpps(run.paced_forwarded_pps / 1e6),
        number(cycles.map(|cycles| cycles.samples as f64), integer),
        number(cycles.map(|cycles| cycles.user), integer),
        number(cycles.map(|cycles| cycles.system_call), integer),
        number(cycles.map(|cycles| cycles.softirq), integer),
        number(cycles.map(|cycles| cycles.far_end), integer),
        number(run.stage_cycles, integer),
        number(run.syscalls, short),
        number(run.voluntary_switches, short),
        number(run.involuntary_switches, short),
        number(run.tool_transmitted.map(|frames| frames as f64), integer),
        integer(run.sink_received as f64),
    ]
}
