//! `xdpfwd`: an AF_XDP packet forwarding engine. `xdpfwd --help` says how it is called.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use pipeline::Registry;

fn main() -> ExitCode {
    xdpfwd::main(&Registry::builtin())
}
