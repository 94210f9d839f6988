//! `xdpfwd`: an AF_XDP packet forwarding engine. `xdpfwd --help` describes its usage.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    xdpfwd::main(&xdpfwd_stages::builtin())
}
