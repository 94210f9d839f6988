//! Reloads the configuration at run time.

use xdpfwd_engine::{Handle, ReloadError};

use crate::app::App;
use crate::cli::Run;
use crate::config::{self, Diagnostics, ThisMachine};

pub(crate) struct ReloadSuccess {
    /// Stages whose counters restart from zero.
    pub(crate) restarted_stages: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

pub(crate) struct ReloadFailure {
    pub(crate) message: String,
    /// Errors of the configuration, each with its position in a file; empty if it is valid.
    pub(crate) problems: Vec<String>,
}

/// Replaces the stages, logs the outcome and runs the program's hooks. If the configuration is
/// invalid, the old stages keep running.
pub(crate) fn run(handle: &Handle, cli: &Run, app: &App) -> Result<ReloadSuccess, ReloadFailure> {
    let lines =
        |diagnostics: &Diagnostics| diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>();
    let fail = |message: String, problems| {
        tracing::error!("{message}");
        Err(ReloadFailure { message, problems })
    };
    let not_reloaded = |message: String, problems| {
        app.run_rollback_hooks(handle, &message);
        fail(message, problems)
    };
    let (plan, warnings) =
        match config::load(cli.config(), &app.registry, &ThisMachine::default(), cli.file_policy())
        {
            Ok(loaded) => loaded,
            Err(errors) => {
                errors.log(cli.log_format);
                let message = "not reloaded: the configuration is invalid; the running stages stay";
                return not_reloaded(message.to_owned(), lines(&errors));
            }
        };
    warnings.log(cli.log_format);
    match handle.with(|data_plane| data_plane.reload(plan)) {
        Ok(Ok(restarted_stages)) => {
            tracing::info!(afresh = restarted_stages.join(", "), "reloaded");
            app.run_commit_hooks(handle);
            Ok(ReloadSuccess { restarted_stages, warnings: lines(&warnings) })
        }
        Ok(Err(error @ (ReloadError::Unconfirmed(_) | ReloadError::StillOffloaded { .. }))) => {
            // The stages were replaced, although the reload is incomplete.
            app.run_commit_hooks(handle);
            fail(format!("partly reloaded: {error}"), Vec::new())
        }
        Ok(Err(error)) => not_reloaded(format!("not reloaded: {error}"), Vec::new()),
        Err(error) => not_reloaded(format!("not reloaded: {error}"), Vec::new()),
    }
}
