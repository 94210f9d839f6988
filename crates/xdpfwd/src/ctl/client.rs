//! The client side of `ctl`.

use std::fmt;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use super::{Command, Request, default_socket, escape, ledger, listing, receive, text};
use crate::cli::{Ctl, USAGE};
use crate::output;
use crate::program;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);

/// Exit status: the user lacks permission.
const PRIVILEGE: u8 = 3;

#[derive(Debug)]
struct Denied(String);

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Denied {}

pub(crate) fn run(cli: &Ctl) -> ExitCode {
    if super::command::is_builtin(&cli.command) && !cli.arguments.is_empty() {
        program::print_error(anyhow!("`ctl {}` takes no arguments", cli.command).as_ref());
        return ExitCode::from(USAGE);
    }
    let takes_window = matches!(cli.command.as_str(), "rules" | "inspect");
    if !takes_window && !cli.window.selects_all() {
        program::print_error(
            anyhow!(
                "`ctl {}` takes none of the options --from, --count and --matching: only `rules` \
                 and `inspect` do",
                cli.command
            )
            .as_ref(),
        );
        return ExitCode::from(USAGE);
    }
    if cli.interval.is_some() && cli.command != "ledger" {
        program::print_error(
            anyhow!("`ctl {}` does not take --interval: only `ledger` does", cli.command).as_ref(),
        );
        return ExitCode::from(USAGE);
    }
    match output::ignore_closed(query(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            program::print_error(error.as_ref());
            exit_code(&error)
        }
    }
}

/// Returns the exit code for an error of this module.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(if error.is::<Denied>() { PRIVILEGE } else { 1 })
}

fn query(cli: &Ctl) -> Result<()> {
    match cli.interval {
        Some(interval) => ledger_of_interval(cli, interval),
        None => request(&connect(&cli.socket)?, cli),
    }
}

fn connect(path: &Path) -> Result<UnixStream> {
    let program = program::name();
    let connected = UnixStream::connect(path);
    if connected.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
        return Err(Denied(format!(
            "cannot connect to {}: only root and the user of the running {} may use this socket",
            path.display(),
            program
        ))
        .into());
    }
    let stream = connected.map_err(|error| {
        let is_default = *path == *Path::new(&default_socket(program));
        let hint = if is_default { "" } else { ", or pass another --socket" };
        let path = path.display().to_string();
        anyhow!(
            "no {program} listens on {path}: {error}; start it with [engine] control = {path:?}{hint}"
        )
    })?;
    receive::check_server(&stream, &path.display().to_string()).map_err(Denied)?;
    Ok(stream)
}

/// Sends a command without arguments over a new connection. Returns the answer, with all texts
/// escaped.
pub(crate) fn fetch(path: &Path, command: &str) -> Result<Value> {
    let request = Request { command: command.to_owned(), arguments: Vec::new() };
    let line = exchange(&connect(path)?, &request)?;
    let answer: Value = serde_json::from_str(&line).map_err(receive::describe)?;
    check_error(&answer)?;
    Ok(escape::value(answer))
}

/// Sends a request, and returns the line of the answer.
fn exchange(stream: &UnixStream, request: &Request) -> Result<String> {
    let sent = send(stream, request)?;
    let line = receive::read_line(stream)?;
    if line.is_empty() {
        sent.context("cannot send the request")?;
        bail!("{} closed the connection without a response", program::name());
    }
    Ok(line)
}

/// Sends a request. If the write itself fails, returns its error inside: the server's response may
/// state why.
fn send(mut stream: &UnixStream, request: &Request) -> Result<io::Result<()>> {
    stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
    let request = serde_json::to_string(request)? + "\n";
    Ok(stream.write_all(request.as_bytes()))
}

fn request(stream: &UnixStream, cli: &Ctl) -> Result<()> {
    let arguments = match cli.window.selects_all() {
        true => cli.arguments.clone(),
        false => cli.window.to_arguments(),
    };
    let request = Request { command: cli.command.clone(), arguments };
    let command = Command::named(&cli.command);
    if let Some(command @ (Command::Rules | Command::Inspect)) = command {
        // The error of a failed write is that of the read that follows.
        let _ = send(stream, &request)?;
        let mut stdout = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        check_error(&listing::print(stream, command, cli.json, &mut stdout)?)?;
        return stdout.flush().map_err(output::write_failed);
    }
    let line = exchange(stream, &request)?;
    let answer: Value = serde_json::from_str(&line).map_err(receive::describe)?;
    check_error(&answer)?;
    output::print(&match command {
        _ if cli.json => escape::json(&line) + "\n",
        Some(Command::Ledger) => ledger::text(&ledger::parse(escape::value(answer))?, "start"),
        Some(command) => text::answer(command, &escape::value(answer)),
        None => text::custom_answer(&answer["answer"]),
    })
}

/// Prints the costs between two readings.
fn ledger_of_interval(cli: &Ctl, interval: Duration) -> Result<()> {
    let read = || ledger::parse(fetch(&cli.socket, &cli.command)?);
    let before = read()?;
    thread::sleep(interval);
    let now = read()?;
    if now.elapsed_seconds <= before.elapsed_seconds {
        bail!("{} restarted during the interval; run the command again", program::name());
    }
    let costs = now.since(&before);
    output::print(&match cli.json {
        true => ledger::interval_json(&costs)? + "\n",
        false => ledger::text(&costs, "interval"),
    })
}

/// Fails with the error that an answer contains, if any.
fn check_error(answer: &Value) -> Result<()> {
    let Some(error) = answer["error"].as_str() else { return Ok(()) };
    if answer["denied"] == true {
        return Err(Denied(escape::text(error)).into());
    }
    let problems = answer["problems"].as_array().into_iter().flatten();
    let lines = problems.filter_map(Value::as_str).map(|problem| format!("\n{problem}"));
    bail!(escape::text(&(error.to_owned() + &lines.collect::<String>())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::ignore_closed;

    #[test]
    fn request_to_server_that_has_closed_is_an_error() {
        for command in ["reload", "status", "stats", "ledger", "sa", "rules", "inspect", "custom"] {
            let (client, server) = UnixStream::pair().unwrap();
            drop(server);
            let cli = Ctl {
                command: command.to_owned(),
                arguments: Vec::new(),
                socket: "/run/none.sock".into(),
                window: Default::default(),
                interval: None,
                json: false,
            };
            let result = request(&client, &cli);
            assert!(ignore_closed(result).is_err(), "{command}");
        }
    }
}
