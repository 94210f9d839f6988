//! The server side of `ctl`; runs on the control thread.

use std::io;
use std::path::Path;

use xdpfwd_engine::{Control, ControlSocket, DataPlane, Handle, Plan, Report};
use xdpfwd_pipeline::PortId;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Command, Request, Window, views};
use crate::app::App;
use crate::cli::Run;
use crate::error_text::with_causes;
use crate::{reload, report};

/// The server of the control socket. It has no socket if none is configured, or if opening it
/// failed.
pub(crate) struct Server {
    socket: Option<ControlSocket>,
}

/// The response to `ctl status`.
#[derive(Serialize)]
struct Status<'a> {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    program: &'static str,
    version: &'static str,
    pid: u32,
    config: String,
    workers: usize,
    elapsed_seconds: f64,
    ports: Vec<Value>,
    paths: Vec<Value>,
    fallback: Option<&'a xdpfwd_engine::Fallback>,
    faults: Vec<String>,
}

impl Server {
    /// Opens the configured socket. A failure is only logged, because forwarding does not need the
    /// socket.
    pub(crate) fn new(plan: &Plan, control: &Control) -> Self {
        let open = |path: &Path| match ControlSocket::open(path, control) {
            Ok(socket) => Some(socket),
            Err(error) => {
                let path = path.display();
                tracing::warn!(
                    %error,
                    %path,
                    "no control socket, so `ctl` cannot connect; check that the directory of the \
                     path exists and that no other process listens on the path"
                );
                None
            }
        };
        Self { socket: plan.control.as_deref().and_then(open) }
    }

    pub(crate) fn answer_all(&self, handle: &Handle, cli: &Run, app: &App) {
        let Some(socket) = &self.socket else { return };
        while let Some(request) = socket.next() {
            let answer = match serde_json::from_str::<Request>(&request.line) {
                Ok(parsed) => match listing(&parsed, handle) {
                    Some(Ok(write)) => {
                        request.reply_with(write);
                        continue;
                    }
                    Some(Err(error)) => json!({ "error": error }),
                    None => answer(&parsed, handle, cli, app),
                },
                Err(error) => json!({ "error": format!("invalid request: {error}") }),
            };
            request.reply(answer.to_string());
        }
    }
}

type WriteAnswer = Box<dyn FnOnce(&mut dyn io::Write) -> io::Result<()> + Send>;

/// Returns a closure that writes the answer to the command `rules` or `inspect`, outside the
/// control thread. Returns `None` if the request is another command.
fn listing(request: &Request, handle: &Handle) -> Option<Result<WriteAnswer, String>> {
    let write = match Command::named(&request.command)? {
        Command::Rules => views::write_rules,
        Command::Inspect => views::write_tables,
        _ => return None,
    };
    let window = match Window::from_arguments(&request.arguments) {
        Ok(window) => window,
        Err(error) => return Some(Err(format!("`{}`: {error}", request.command))),
    };
    let listing = handle.with(DataPlane::list).map_err(|error| error.to_string());
    Some(
        listing.map(|listing| -> WriteAnswer {
            Box::new(move |output| write(&listing, &window, output))
        }),
    )
}

fn answer(request: &Request, handle: &Handle, cli: &Run, app: &App) -> Value {
    let Request { command: name, arguments } = request;
    let Some(command) = Command::named(name) else {
        let Some(custom) = app.ctl.iter().find(|custom| custom.name == name) else {
            return json!({ "error": format!("unknown command {name:?}") });
        };
        return match custom.run(handle, arguments) {
            Ok(answer) => {
                json!({ "schema": xdpfwd_engine::SCHEMA, "type": name, "answer": answer })
            }
            Err(error) => json!({ "error": with_causes(error.as_ref()) }),
        };
    };
    if !arguments.is_empty() {
        return json!({ "error": format!("`{name}` takes no arguments") });
    }
    if command == Command::Reload {
        return match reload::run(handle, cli, app) {
            Ok(reloaded) => {
                let (restarted, warnings) = (reloaded.restarted_stages, reloaded.warnings);
                json!({ "schema": xdpfwd_engine::SCHEMA, "type": "reload", "afresh": restarted, "warnings": warnings })
            }
            Err(failure) => json!({ "error": failure.message, "problems": failure.problems }),
        };
    }
    let result = handle.with(|data_plane| match command {
        Command::Status => serde_json::to_value(status(data_plane, cli, app)),
        Command::Stats => report::json_value(&data_plane.report(), app),
        Command::Ledger => report::json_value(&data_plane.report(), app).map(views::ledger),
        Command::Sa => Ok(views::sas(&data_plane.inspect_plans())),
        // `Reload` is handled above, and the others by `listing`.
        Command::Reload | Command::Rules | Command::Inspect => Ok(Value::Null),
    });
    match result {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => json!({ "error": error.to_string() }),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

fn status(data_plane: &mut DataPlane, cli: &Run, app: &App) -> Value {
    let Report { elapsed_seconds, workers, faults, ports, .. } = data_plane.report();
    let ports = ports.into_iter().map(|port| {
        json!({
            "name": port.name,
            "interface": port.interface,
            "io": port.io,
            "queues": port.queues,
            "mode": port.mode,
            "state": port.state,
            "down_reason": port.down_reason,
        })
    });
    let name =
        |id: PortId| data_plane.ports().get(usize::from(id.0)).map_or("?", |port| &*port.name);
    let paths = data_plane.paths().iter().map(|path| {
        let stages = path
            .stages
            .iter()
            .map(|stage| json!({ "name": stage.name, "place": stage.place(), "summary": stage.plan.summary() }));
        json!({ "path": format!("{}->{}", name(path.from), name(path.to)), "stages": stages.collect::<Vec<_>>() })
    });
    let status = Status {
        schema: xdpfwd_engine::SCHEMA,
        kind: "status",
        program: app.name,
        version: app.version,
        pid: std::process::id(),
        config: cli.config().display().to_string(),
        workers,
        elapsed_seconds,
        ports: ports.collect(),
        paths: paths.collect(),
        fallback: data_plane.fallback(),
        faults,
    };
    serde_json::to_value(status).unwrap_or_default()
}
