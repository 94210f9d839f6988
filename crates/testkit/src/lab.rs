//! Helpers for tests in network namespaces, which need root.

use std::process::Output;

use xdpfwd_lab::{Chain, ChainBuilder, Namespace};

use crate::process::{run, stderr};

/// Builds the lab: a chain of network namespaces. Panics on failure, with a hint that such tests
/// need root.
#[track_caller]
pub fn chain(builder: ChainBuilder) -> Chain {
    builder
        .build()
        .unwrap_or_else(|error| panic!("{error}\n(tests named root_* need root: `make test`)"))
}

/// Runs a shell script with `sh -e` and returns its stdout. Panics if it fails.
#[track_caller]
pub fn sh(namespace: &Namespace, script: &str) -> String {
    run(namespace.command("sh").args(["-ec", script]))
}

/// Runs `ip` with arguments that are separated by single spaces. Panics if it fails.
#[track_caller]
pub fn ip(namespace: &Namespace, arguments: &str) {
    run(namespace.command("ip").args(arguments.split(' ')));
}

/// Runs `ping`. Panics only if it cannot be started.
#[track_caller]
pub fn try_ping(from: &Namespace, to: &str, arguments: &[&str]) -> Output {
    let mut command = from.command("ping");
    command
        .args(arguments)
        .arg(to)
        .output()
        .unwrap_or_else(|error| panic!("cannot run ping: {error}; `make test` installs it"))
}

/// Panics unless `ping` succeeds without packet loss.
#[track_caller]
pub fn ping(from: &Namespace, to: &str, arguments: &[&str]) {
    let output = try_ping(from, to, arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains(" 0% packet loss"),
        "{text}{}",
        stderr(&output)
    );
}
