//! The control socket: a Unix socket, with one line per request and reply. Only root and the user
//! that xdpfwd runs as may connect.

use std::fs;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::{Mode, umask};

use crate::run::control::Control;

/// Maximum bytes of a request with its line end.
const MAX_REQUEST_LENGTH: usize = 4096;

/// Time limit for a client to send its request, and again to read the reply.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time limit for the control thread's reply. Long, because a reload reads files and compiles
/// rules.
const CONTROL_THREAD_TIMEOUT: Duration = Duration::from_secs(30);

const MAX_QUEUED_REQUESTS: usize = 8;

/// Maximum number of simultaneous long replies. Each holds the counters of all rows of a table.
const MAX_LONG_REPLIES: usize = 4;

/// Time for which a client may stop reading a long reply, for example in a pager.
const LONG_REPLY_TIMEOUT: Duration = Duration::from_secs(600);

/// A control socket, served by its own thread. Dropping it removes the file.
pub struct ControlSocket {
    path: PathBuf,
    /// Device and inode of the socket file, so that drop removes no other file.
    identity: (u64, u64),
    requests: Receiver<Request>,
}

/// A request and its reply channel.
#[derive(Debug)]
pub struct Request {
    /// The request's text, without the line end.
    pub line: String,
    reply: SyncSender<Reply>,
}

enum Reply {
    Line(String),
    Long(WriteReply),
}

type WriteReply = Box<dyn FnOnce(&mut dyn io::Write) -> io::Result<()> + Send>;

impl Request {
    /// Sends one line to the client.
    pub fn reply(self, line: String) {
        // Fails if the client has disconnected.
        let _ = self.reply.send(Reply::Line(line));
    }

    /// Runs `write`, which writes one line without the line end, on a thread of its own. Use this
    /// for a long reply: even if the client reads it slowly, neither the control thread nor other
    /// clients wait.
    pub fn reply_with(
        self,
        write: impl FnOnce(&mut dyn io::Write) -> io::Result<()> + Send + 'static,
    ) {
        let _ = self.reply.send(Reply::Long(Box::new(write)));
    }
}

impl ControlSocket {
    /// Creates a socket file that only its owner and root may use, and listens on it. Each request
    /// wakes the control thread with [`Event::Woken`](crate::Event::Woken). The control thread then
    /// gets the request from [`next`](Self::next).
    ///
    /// Replaces a socket file on which no process listens; fails if one listens.
    pub fn open(path: &Path, control: &Control) -> io::Result<Self> {
        // With this umask, only the owner has access from the start.
        let bind = || {
            let previous = umask(Mode::from_bits_truncate(0o177));
            let bound = UnixListener::bind(path);
            umask(previous);
            bound
        };
        let listener = match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
                fs::remove_file(path)?;
                bind()?
            }
            result => result?,
        };
        let file = fs::symlink_metadata(path)?;
        let identity = (file.dev(), file.ino());
        let (sender, requests) = mpsc::sync_channel(MAX_QUEUED_REQUESTS);
        let waker = control.waker();
        let serve = move || {
            // The thread ends with the process. It serves one client at a time; timeouts limit slow
            // clients.
            let long_replies = Arc::new(());
            for stream in listener.incoming() {
                let served =
                    stream.and_then(|stream| serve_client(stream, &sender, &waker, &long_replies));
                if let Err(error) = served {
                    tracing::debug!(%error, "cannot serve a client of the control socket");
                    // If file descriptors run out, every accept fails immediately: avoid a busy
                    // loop.
                    thread::sleep(Duration::from_millis(10));
                }
            }
        };
        thread::Builder::new().name("control-socket".into()).spawn(serve)?;
        Ok(Self { path: path.to_owned(), identity, requests })
    }

    /// Returns the next queued request, if any.
    pub fn next(&self) -> Option<Request> {
        self.requests.try_recv().ok()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let is_own_file = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if is_own_file {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Returns whether `path` is a socket file on which no process listens.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn serve_client(
    client: UnixStream,
    sender: &SyncSender<Request>,
    waker: &Arc<mio::Waker>,
    long_replies: &Arc<()>,
) -> io::Result<()> {
    let stream = &client;
    let peer = getsockopt(stream, PeerCredentials)?;
    let own_uid = nix::unistd::geteuid().as_raw();
    // A second check: the socket file's mode already excludes other users.
    if peer.uid() != 0 && peer.uid() != own_uid {
        return write_line(
            stream,
            concat!(
                r#"{"error":"permission denied: only root and the process owner may connect","#,
                r#""denied":true}"#
            ),
        );
    }
    let Some(line) = read_line(stream)? else {
        return write_line(
            stream,
            r#"{"error":"invalid request: expected one line of at most 4096 bytes"}"#,
        );
    };
    let (reply, replies) = mpsc::sync_channel(1);
    let request = Request { line, reply };
    if sender.try_send(request).is_err() {
        return write_line(
            stream,
            r#"{"error":"too many requests are waiting (at most 8); try again"}"#,
        );
    }
    waker.wake()?;
    match replies.recv_timeout(CONTROL_THREAD_TIMEOUT) {
        Ok(Reply::Line(line)) => write_line(stream, &line),
        Ok(Reply::Long(write)) => write_long_reply(client, write, long_replies),
        Err(RecvTimeoutError::Timeout) => {
            write_line(stream, r#"{"error":"no reply within 30 s: the control thread is busy"}"#)
        }
        Err(RecvTimeoutError::Disconnected) => write_line(stream, r#"{"error":"shutting down"}"#),
    }
}

/// Starts a thread that writes a long reply. Each of these threads has a clone of `long_replies`:
/// the reference count, minus the original, is their number.
fn write_long_reply(
    client: UnixStream,
    write: WriteReply,
    long_replies: &Arc<()>,
) -> io::Result<()> {
    let running = Arc::clone(long_replies);
    if Arc::strong_count(long_replies) > MAX_LONG_REPLIES + 1 {
        return write_line(
            &client,
            r#"{"error":"4 other clients are reading long replies; wait until one has ended"}"#,
        );
    }
    client.set_write_timeout(Some(LONG_REPLY_TIMEOUT))?;
    let reply = move || {
        let mut client = BufWriter::with_capacity(1 << 16, client);
        let written = write(&mut client).and_then(|()| client.write_all(b"\n"));
        if let Err(error) = written.and_then(|()| client.flush()) {
            tracing::debug!(%error, "cannot write a long reply to a client of the control socket");
        }
        drop(running);
    };
    thread::Builder::new().name("control-reply".into()).spawn(reply).map(drop)
}

/// Reads a line; returns `None` if it is too long or incomplete. Fails at the timeout.
fn read_line(mut stream: &UnixStream) -> io::Result<Option<String>> {
    let deadline = Instant::now() + CLIENT_TIMEOUT;
    let (mut bytes, mut part) = (Vec::new(), [0; MAX_REQUEST_LENGTH]);
    loop {
        stream.set_read_timeout(Some(remaining(deadline)?))?;
        match stream.read(&mut part[..MAX_REQUEST_LENGTH - bytes.len()])? {
            0 => return Ok(None),
            length => bytes.extend_from_slice(&part[..length]),
        }
        if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            return Ok(Some(String::from_utf8_lossy(&bytes[..end]).into_owned()));
        }
        if bytes.len() >= MAX_REQUEST_LENGTH {
            return Ok(None);
        }
    }
}

fn write_line(mut stream: &UnixStream, line: &str) -> io::Result<()> {
    let deadline = Instant::now() + CLIENT_TIMEOUT;
    let text = format!("{line}\n");
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        stream.set_write_timeout(Some(remaining(deadline)?))?;
        match stream.write(rest)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => rest = &rest[written..],
        }
    }
    Ok(())
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    if remaining.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(remaining) }
}
