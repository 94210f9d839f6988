//! `xdpfwd esp`: creates the files that ESP stages need.

use std::io::{self, Write as _};
use std::process::ExitCode;

use xdpfwd_stages::esp::key_file;
use xdpfwd_stages::esp::state_file::StateFile;

use crate::cli::Esp;
use crate::program;

pub(crate) fn run(arguments: &Esp) -> ExitCode {
    let created = match arguments {
        Esp::NewKey(new) => key_file::create(&new.file, new.transform)
            .map_err(anyhow::Error::new)
            // Never print the key. Ignore write errors, because the key file exists already.
            .map(|fingerprint| drop(writeln!(io::stdout(), "{fingerprint}"))),
        Esp::NewState(new) => StateFile::create(&new.file).map_err(anyhow::Error::new),
    };
    match created {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            program::print_error(error.as_ref());
            ExitCode::FAILURE
        }
    }
}
