//! Errors of the lab.

use std::{io, process::ExitStatus};

/// An error of the lab. Each message names the failed operation, the value, and a remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not root.
    #[error(
        "{what} needs root: run it with sudo, or as root in a container with CAP_SYS_ADMIN, \
         CAP_NET_ADMIN and CAP_BPF"
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
        "cannot start `{command}`: {cause}; if it is missing, run: \
         apt-get install iproute2 ethtool util-linux"
    )]
    Start {
        /// The command line.
        command: String,
        /// Cause.
        cause: io::Error,
    },
    /// An operation on a file or thread, or a system call, failed.
    #[error("{what} failed: {cause}")]
    Io {
        /// Failed operation, in the -ing form.
        what: String,
        /// Cause.
        cause: io::Error,
    },
    /// An invalid value.
    #[error("invalid {what}: {value}; {accepted}")]
    Value {
        /// Name of the parameter.
        what: &'static str,
        /// The rejected value.
        value: String,
        /// Accepted values, as an imperative: "use 1–64".
        accepted: String,
    },
    /// An operation on a BPF program or map failed.
    #[error("{what} failed: {cause}; {hint}")]
    Bpf {
        /// Failed operation, in the -ing form.
        what: String,
        /// Error of libbpf.
        cause: libbpf_rs::Error,
        /// Hint for the user.
        hint: &'static str,
    },
    /// An embedded BPF object lacks an expected program or map: a bug in the lab.
    #[error("the embedded BPF object has no {0}: bpf/ and src/ of crates/lab do not match")]
    Object(&'static str),
    /// A deadline passed.
    #[error("timed out after {seconds} s while waiting for {what}; {hint}")]
    Timeout {
        /// Awaited event.
        what: String,
        /// Deadline in seconds.
        seconds: f64,
        /// Hint for the user.
        hint: String,
    },
    /// The forwarder ended unexpectedly.
    #[error("`{command}` ended unexpectedly with {status}; the end of its output:\n{output}")]
    Ended {
        /// The command line.
        command: String,
        /// Exit status.
        status: ExitStatus,
        /// The end of its stderr (of its stdout, if stderr is empty).
        output: String,
    },
    /// A thread of the lab panicked: a bug in the lab.
    #[error("the thread of {0} panicked: a bug in the lab; its message is on stderr")]
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
