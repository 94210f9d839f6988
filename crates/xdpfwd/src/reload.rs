//! Reading the configuration anew while it runs.

use crate::registry::Registry;
use xdpfwd_engine::{DataPlane, ReloadError};

use crate::cli::Run;
use crate::config::{self, Diagnostics, ThisMachine};

/// What came of it.
pub(crate) struct Reloaded {
    /// Stages that begin their counters anew.
    pub(crate) afresh: Vec<String>,
    /// What there is to warn of.
    pub(crate) warnings: Vec<String>,
}

/// Why it was not done.
pub(crate) struct Failed {
    pub(crate) message: String,
    /// Each with its place in a file.
    pub(crate) problems: Vec<String>,
}

/// Reads the configuration anew, exchanges the stages for what it says, and says in the log what came of it. Whatever is wrong
/// with it, what runs goes on.
pub(crate) fn run(data_plane: &mut DataPlane, cli: &Run, registry: &Registry) -> Result<Reloaded, Failed> {
    let lines = |diagnostics: &Diagnostics| diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>();
    let fail = |message: String, problems| {
        tracing::error!("{message}");
        Err(Failed { message, problems })
    };
    let (plan, warnings) = match config::load(cli.config(), registry, &ThisMachine) {
        Ok(loaded) => loaded,
        Err(errors) => {
            errors.log(cli.log_format);
            let message = "not reloaded: the configuration is no good, and the stages stay as they are";
            return fail(message.to_owned(), lines(&errors));
        }
    };
    warnings.log(cli.log_format);
    match data_plane.reload(plan) {
        Ok(afresh) => {
            tracing::info!(afresh = afresh.join(", "), "reloaded");
            Ok(Reloaded { afresh, warnings: lines(&warnings) })
        }
        Err(error @ (ReloadError::Silent(_) | ReloadError::StillOffloaded { .. })) => {
            fail(format!("reloaded in part: {error}"), Vec::new())
        }
        Err(error) => fail(format!("not reloaded: {error}"), Vec::new()),
    }
}
