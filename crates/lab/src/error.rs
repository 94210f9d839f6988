//! Errors of the lab.

use std::{io, process::ExitStatus};

/// An error of the lab. The message names the failed operation and, if possible, a remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process is not root.
    #[error(
        "{operation} needs root: run it with sudo, or as root in a container with CAP_SYS_ADMIN, \
         CAP_NET_ADMIN and CAP_BPF"
    )]
    Privilege {
        /// Operation that needs root.
        operation: String,
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
    /// A system call, or an operation on a file or thread, failed.
    #[error("{operation} failed: {cause}")]
    Io {
        /// The failed operation, in the -ing form.
        operation: String,
        /// Cause.
        cause: io::Error,
    },
    /// An invalid value.
    #[error("invalid {parameter}: {value}; {accepted}")]
    Value {
        /// Name of the parameter.
        parameter: &'static str,
        /// The rejected value.
        value: String,
        /// The accepted values, as an imperative: "use 1–64".
        accepted: String,
    },
    /// The kernel has no pktgen.
    #[error(
        "this kernel has no pktgen ({cause}): run `modprobe pktgen`, or use a kernel that was \
         built with CONFIG_NET_PKTGEN"
    )]
    NoPktgen {
        /// Cause: the error of `modprobe`.
        cause: String,
    },
    /// An operation on a BPF program or map failed.
    #[error("{operation} failed: {cause}; {hint}")]
    Bpf {
        /// The failed operation, in the -ing form.
        operation: String,
        /// Error of libbpf.
        cause: libbpf_rs::Error,
        /// Hint for the user.
        hint: &'static str,
    },
    /// An embedded BPF object lacks an expected program or map: a bug in the lab.
    #[error("the embedded BPF object has no {0}: bpf/ and src/ of crates/lab do not match")]
    Object(&'static str),
    /// A deadline passed.
    #[error("timed out after {seconds} s while waiting for {event}; {hint}")]
    Timeout {
        /// Awaited event.
        event: String,
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
        /// The end of its stderr, or of its stdout if stderr is empty.
        output: String,
    },
    /// A thread of the lab or of [`crate::Namespace::run`] panicked.
    #[error("the thread of {0} panicked; its message is on stderr")]
    Panicked(&'static str),
}

impl Error {
    /// `operation` is in the -ing form.
    pub(crate) fn io(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let operation = operation.into();
        move |cause| Self::Io { operation, cause }
    }

    pub(crate) fn nix(operation: impl Into<String>) -> impl FnOnce(nix::errno::Errno) -> Self {
        let operation = operation.into();
        move |errno| Self::Io { operation, cause: errno.into() }
    }

    pub(crate) fn bpf(
        operation: impl Into<String>,
        hint: &'static str,
    ) -> impl FnOnce(libbpf_rs::Error) -> Self {
        let operation = operation.into();
        move |cause| Self::Bpf { operation, cause, hint }
    }
}
