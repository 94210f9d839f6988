//! Execution of `ip` and `ethtool`.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use crate::Error;

pub(crate) fn command_line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

pub(crate) fn run(command: &mut Command) -> Result<String, Error> {
    // Ctrl-C must not end the tools that the lab needs for cleanup.
    let output = command
        .stdin(Stdio::null())
        .process_group(0)
        .output()
        .map_err(|cause| Error::Start { command: command_line(command), cause })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Command { command: command_line(command), status: output.status, stderr })
}

pub(crate) fn ip(arguments: &[&str]) -> Result<String, Error> {
    run(Command::new("ip").args(arguments))
}
