//! `xdpfwd top`: a live view of a running xdpfwd in the terminal.
//!
//! `client` reads reports over the control socket. `model` computes figures from two of them, and
//! `panels` turns the figures into tables; both are pure. `screen` draws the tables.

mod alerts;
mod client;
mod format;
mod history;
mod losses;
mod model;
mod panel;
mod panels;
mod remedies;
mod screen;
mod snapshot;
mod table;
mod terminal;
mod theme;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use anyhow::anyhow;

use crate::cli::Top;
use crate::{ctl, program};

pub(crate) fn run(cli: &Top) -> ExitCode {
    match watch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            program::print_error(error.as_ref());
            ctl::exit_code(&error)
        }
    }
}

fn watch(cli: &Top) -> anyhow::Result<()> {
    if !io::stdout().is_terminal() {
        let program = program::name();
        return Err(anyhow!(
            "cannot show the live view: stdout is not a terminal; for scripts, use: {program} ctl \
             stats --json --socket {}",
            cli.socket.display()
        ));
    }
    // Without a running xdpfwd, fail before the terminal changes, as `ctl` does.
    let first = client::read(&cli.socket)?;
    terminal::run(cli, first)
}
