//! `xdpfwd esp`: creates the files that ESP stages need.

use std::process::ExitCode;

use anyhow::Context as _;

use xdpfwd_stages::esp::key_file;
use xdpfwd_stages::esp::state_file::StateFile;

use crate::cli::Esp;
use crate::output;

pub(crate) fn run(arguments: &Esp) -> ExitCode {
    let created = match arguments {
        Esp::NewKey(new) => key_file::create(&new.file, new.transform)
            .map_err(anyhow::Error::new)
            // Never print the key.
            .and_then(|fingerprint| {
                output::print(&format!("{fingerprint}\n"))
                    .with_context(|| format!("created {}, but", new.file.display()))
            }),
        Esp::NewState(new) => StateFile::create(&new.file).map_err(anyhow::Error::new),
    };
    output::exit_code(created, ExitCode::SUCCESS)
}
