//! `xdpfwd esp`: creates the files that ESP stages need, and accepts a state file that records a
//! failed write.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use xdpfwd_ipsec::Fingerprint;
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
                output::print(&(named_fingerprint(fingerprint) + "\n"))
                    .with_context(|| format!("created {}, but", new.file.display()))
            }),
        Esp::NewState(new) => StateFile::create(&new.file).map_err(anyhow::Error::new),
        Esp::AcceptState(accept) => StateFile::accept(&accept.file)
            .map_err(anyhow::Error::new)
            .and_then(|had_mark| output::print(&(accepted(&accept.file, had_mark) + "\n"))),
    };
    output::exit_code(created, ExitCode::SUCCESS)
}

/// Returns the fingerprint. A prefix for humans precedes it only on a terminal, so that scripts can
/// read the output.
fn named_fingerprint(fingerprint: Fingerprint) -> String {
    if io::stdout().is_terminal() {
        format!("fingerprint of the key: {fingerprint}")
    } else {
        fingerprint.to_string()
    }
}

/// Returns the message of `accept-state`. `had_mark` states that the file recorded a failed write.
fn accepted(file: &Path, had_mark: bool) -> String {
    let file = file.display();
    if had_mark {
        format!(
            "state file {file} accepted: xdpfwd starts with it; packets that arrived after its last \
             successful write could be accepted again"
        )
    } else {
        format!("state file {file} records no failed write; it was not changed")
    }
}
