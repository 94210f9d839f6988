//! The control socket: a Unix socket on which a running data plane is asked things, one line for
//! each question and one for the answer. Who may ask is root, and the user that it runs as.

use std::fs;
use std::io::{self, Read as _, Write as _};
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

/// Bytes of a question.
const LONGEST: usize = 4096;

/// How long who asks may take to say what, and to read the answer.
const SAID_WITHIN: Duration = Duration::from_secs(2);

/// How long an answer may take: a reload reads files and compiles rules.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// Questions that wait to be answered.
const WAITING: usize = 8;

/// A socket that is listened on, by a thread of its own. Dropping it takes its file away.
pub struct ControlSocket {
    path: PathBuf,
    /// Device and inode of the file, to take away no other.
    identity: (u64, u64),
    requests: Receiver<Request>,
}

/// A question, and the way back.
#[derive(Debug)]
pub struct Request {
    /// What was asked, without the line's end.
    pub question: String,
    answer: SyncSender<String>,
}

impl Request {
    /// Answers with one line.
    pub fn answer(self, line: String) {
        // If nobody waits for it any more, it is dropped.
        let _ = self.answer.send(line);
    }
}

impl ControlSocket {
    /// Listens at a path: a file that only its owner may use. Each question wakes the control
    /// thread ([`Event::Woken`](crate::Event::Woken)), which finds it by [`next`](Self::next).
    ///
    /// A socket that a dead process has left there is replaced; one that is listened on is an
    /// error.
    pub fn open(path: &Path, control: &Control) -> io::Result<Self> {
        // Owner only from the first moment on.
        let bind = || {
            let before = umask(Mode::from_bits_truncate(0o177));
            let bound = UnixListener::bind(path);
            umask(before);
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
        let (questions, requests) = mpsc::sync_channel(WAITING);
        let waker = control.waker();
        let serve = move || {
            // It ends with the process. One after the other: who is slow is cut off soon.
            for stream in listener.incoming() {
                if let Err(error) = stream.and_then(|stream| serve(&stream, &questions, &waker)) {
                    tracing::debug!(%error, "a question on the control socket was not answered");
                    // Without descriptors left it would fail again at once.
                    thread::sleep(Duration::from_millis(10));
                }
            }
        };
        thread::Builder::new().name("control-socket".into()).spawn(serve)?;
        Ok(Self { path: path.to_owned(), identity, requests })
    }

    /// The next question, if there is one.
    pub fn next(&self) -> Option<Request> {
        self.requests.try_recv().ok()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let own = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if own {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether it is a socket that nobody listens on.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn serve(
    stream: &UnixStream,
    questions: &SyncSender<Request>,
    waker: &Arc<mio::Waker>,
) -> io::Result<()> {
    let peer = getsockopt(stream, PeerCredentials)?;
    let own = nix::unistd::geteuid().as_raw();
    // The file's mode says the same, from a moment after it is there.
    if peer.uid() != 0 && peer.uid() != own {
        return say(
            stream,
            r#"{"error":"only root and the user that it runs as may ask","denied":true}"#,
        );
    }
    let Some(question) = hear(stream)? else {
        return say(stream, r#"{"error":"a question is a line of up to 4096 bytes"}"#);
    };
    let (answer, answered) = mpsc::sync_channel(1);
    let request = Request { question, answer };
    if questions.try_send(request).is_err() {
        return say(stream, r#"{"error":"too many questions are waiting"}"#);
    }
    waker.wake()?;
    match answered.recv_timeout(ANSWERED_WITHIN) {
        Ok(line) => say(stream, &line),
        Err(RecvTimeoutError::Timeout) => {
            say(stream, r#"{"error":"no answer in time: it is busy"}"#)
        }
        Err(RecvTimeoutError::Disconnected) => say(stream, r#"{"error":"it is ending"}"#),
    }
}

/// The line that is said in time; `None` if it has no end, or is too long.
fn hear(mut stream: &UnixStream) -> io::Result<Option<String>> {
    let deadline = Instant::now() + SAID_WITHIN;
    let (mut heard, mut part) = (Vec::new(), [0; LONGEST]);
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut part)? {
            0 => return Ok(None),
            length => heard.extend_from_slice(&part[..length]),
        }
        if let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
            return Ok(Some(String::from_utf8_lossy(&heard[..end]).into_owned()));
        }
        if heard.len() >= LONGEST {
            return Ok(None);
        }
    }
}

/// Says a line, if it is read in time.
fn say(mut stream: &UnixStream, line: &str) -> io::Result<()> {
    let deadline = Instant::now() + SAID_WITHIN;
    let text = format!("{line}\n");
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(rest)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => rest = &rest[written..],
        }
    }
    Ok(())
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}
