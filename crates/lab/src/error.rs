//! What can go wrong in the lab.

use std::{io, process::ExitStatus};

/// Why the lab could not do what was asked. Each message names the thing, its value, and what would
/// help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not root.
    #[error(
        "{what} needs root: run it with sudo, or as root in a container with CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_BPF"
    )]
    Privilege {
        /// What needs it.
        what: String,
    },
    /// A tool such as `ip` said no.
    #[error("`{command}` failed with {status}: {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// A program could not be started at all.
    #[error(
        "can't start `{command}`: {cause}; is it installed (Debian: apt-get install iproute2 ethtool util-linux)?"
    )]
    Start {
        /// The command line.
        command: String,
        /// Why.
        cause: io::Error,
    },
    /// A file, a thread or a system call.
    #[error("{what}: {cause}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// Why it failed.
        cause: io::Error,
    },
    /// A value outside what is accepted.
    #[error("{what} {value} is not accepted: {accepted}")]
    Value {
        /// Name of the parameter.
        what: &'static str,
        /// What was given.
        value: String,
        /// What would be accepted.
        accepted: String,
    },
    /// A BPF program or map.
    #[error("{what}: {cause}; {hint}")]
    Bpf {
        /// What was tried.
        what: String,
        /// What libbpf said.
        cause: libbpf_rs::Error,
        /// Where to look.
        hint: &'static str,
    },
    /// An embedded BPF object lacks what the code expects. A mistake of ours.
    #[error("the embedded BPF object has no {0}: bpf/ and src/ of crates/lab are out of step")]
    Object(&'static str),
    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds} s; {hint}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// For how long, in seconds.
        seconds: f64,
        /// What to look at.
        hint: String,
    },
    /// The forwarder ended when it should have been running.
    #[error("`{command}` ended too early with {status}; it said:\n{output}")]
    Ended {
        /// Its command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its stderr (of its stdout, if stderr is empty).
        output: String,
    },
    /// A thread of the lab panicked. A mistake of ours.
    #[error("the thread of {0} panicked; its message is on stderr")]
    Panicked(&'static str),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |cause| Self::Io { what, cause }
    }

    pub(crate) fn nix(what: impl Into<String>) -> impl FnOnce(nix::errno::Errno) -> Self {
        let what = what.into();
        move |errno| Self::Io { what, cause: errno.into() }
    }

    pub(crate) fn bpf(
        what: impl Into<String>,
        hint: &'static str,
    ) -> impl FnOnce(libbpf_rs::Error) -> Self {
        let what = what.into();
        move |cause| Self::Bpf { what, cause, hint }
    }
}
