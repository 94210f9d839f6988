//! Errors of the lab.

use std::{io, process::ExitStatus};

/// An error of the lab. Each message names the failed operation, the value, and a remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not root.
    #[error(
        "{what} needs root: run it with sudo, or as root in a container with CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_BPF"
    )]
    Privilege {
        /// Operation that needs root.
        what: String,
    },
    /// A tool such as `ip` failed.
    #[error("`{command}` failed with {status}: {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// Exit status.
        status: ExitStatus,
        /// The tool's stderr.
        stderr: String,
    },
    /// A program could not be started.
    #[error(
        "can't start `{command}`: {cause}; is it installed (Debian: apt-get install iproute2 ethtool util-linux)?"
    )]
    Start {
        /// The command line.
        command: String,
        /// Why.
        cause: io::Error,
    },
    /// An operation on a file or thread, or a system call, failed.
    #[error("{what}: {cause}")]
    Io {
        /// Operation and its object.
        what: String,
        /// Cause.
        cause: io::Error,
    },
    /// A value that is not accepted.
    #[error("{what} {value} is not accepted: {accepted}")]
    Value {
        /// Name of the parameter.
        what: &'static str,
        /// The rejected value.
        value: String,
        /// Accepted values.
        accepted: String,
    },
    /// An operation on a BPF program or map failed.
    #[error("{what}: {cause}; {hint}")]
    Bpf {
        /// Operation.
        what: String,
        /// Error of libbpf.
        cause: libbpf_rs::Error,
        /// Hint for the user.
        hint: &'static str,
    },
    /// An embedded BPF object lacks an expected program or map: a bug in the lab.
    #[error("the embedded BPF object has no {0}: bpf/ and src/ of crates/lab are out of step")]
    Object(&'static str),
    /// A deadline passed.
    #[error("{what} did not happen within {seconds} s; {hint}")]
    Timeout {
        /// Awaited event.
        what: String,
        /// Deadline in seconds.
        seconds: f64,
        /// Hint for the user.
        hint: String,
    },
    /// The forwarder ended unexpectedly.
    #[error("`{command}` ended too early with {status}; it said:\n{output}")]
    Ended {
        /// The command line.
        command: String,
        /// Exit status.
        status: ExitStatus,
        /// The end of its stderr (of its stdout, if stderr is empty).
        output: String,
    },
    /// A thread of the lab panicked: a bug in the lab.
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
