//! `matrix`: what security costs on every packet path.

pub(crate) mod cell;
pub(crate) mod columns;
pub(crate) mod published;
pub(crate) mod rows;
pub(crate) mod sampled;
mod system_calls;

use anyhow::Result;
use clap::Args;

use crate::common::{Common, Stop, note};
use cell::FrameSize;

#[derive(Args)]
pub(crate) struct Arguments {
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    columns: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "60,1514")]
    sizes: Vec<String>,
    #[arg(long)]
    session: bool,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn run(arguments: &Arguments, stop: &Stop) -> Result<()> {
    let common = &arguments.common;
    let environment = common.environment()?;
    for row in cell::all_rows() {
        let name = row.describe().name;
        if !arguments.rows.is_empty() && !arguments.rows.contains(&name) {
            continue;
        }
        for column in cell::all_columns() {
            if !arguments.columns.is_empty()
                && !arguments.columns.iter().any(|wanted| wanted == column.name)
            {
                continue;
            }
            let started = std::time::Instant::now();
            let cell = match cell::prepare(&*row, column, &environment) {
                Ok(cell) => cell,
                Err(reason) => {
                    note(&format!("{name}, {}: n/a: {reason}", column.name));
                    continue;
                }
            };
            note(&format!("{name}, {}: prepared in {:?}", column.name, started.elapsed()));
            for size in &arguments.sizes {
                stop.check()?;
                let started = std::time::Instant::now();
                if arguments.session {
                    let mut session = cell.session(common, &FrameSize::parse(size)?)?;
                    for pps in [50_000, 100_000_000] {
                        let trial = session.trial(pps, 0.5)?;
                        note(&format!(
                            "{name} {} {pps}: sent {} received {} offered {} {:?}",
                            column.name,
                            trial.sent,
                            trial.received,
                            trial.offered_pps,
                            trial.latency
                        ));
                    }
                    session.stop()?;
                    continue;
                }
                match cell.run(common, &FrameSize::parse(size)?, 0) {
                    Ok(run) => note(&format!(
                        "{:.1} s {}",
                        started.elapsed().as_secs_f64(),
                        serde_json::to_string(&run)?
                    )),
                    Err(error) => note(&format!("{name}, {}: FAILED: {error:#}", column.name)),
                }
            }
        }
    }
    Ok(())
}
