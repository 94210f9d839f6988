//! The control socket: a Unix socket on which a running data plane is asked things, one line for each question and one for the
//! answer. Who may ask is root, and the user that it runs as.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::control::Control;

/// Bytes of a question.
const LONGEST: u64 = 4096;

/// How long who asks may take to say what, and to read the answer.
const SAID_WITHIN: Duration = Duration::from_secs(2);

/// How long an answer may take: a reload reads files and compiles rules.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// Questions that wait to be answered.
const WAITING: usize = 8;

/// A socket that is listened on, by a thread of its own. Dropping it takes its file away.
pub struct ControlSocket {
    path: PathBuf,
    /// Of the file, to take away no other.
    inode: u64,
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
    /// Listens at a path: a file that only its owner may use. Each question wakes the control thread
    /// ([`Event::Woken`](crate::Event::Woken)), which finds it by [`next`](Self::next).
    ///
    /// A socket that a dead process has left there is replaced; one that is listened on is an error.
    pub fn open(path: &Path, control: &Control) -> io::Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
                fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            result => result?,
        };
        let owner_only = || {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
            Ok(fs::symlink_metadata(path)?.ino())
        };
        let inode = owner_only().inspect_err(|_: &io::Error| drop(fs::remove_file(path)))?;
        let (questions, requests) = mpsc::sync_channel(WAITING);
        let waker = control.waker();
        let serve = move || {
            // It ends with the process. One after the other: who is slow is cut off soon.
            for stream in listener.incoming().flatten() {
                if let Err(error) = serve(&stream, &questions, &waker) {
                    tracing::debug!(%error, "a question on the control socket was not answered");
                }
            }
        };
        thread::Builder::new().name("control-socket".into()).spawn(serve)?;
        Ok(Self { path: path.to_owned(), inode, requests })
    }

    /// The next question, if there is one.
    pub fn next(&self) -> Option<Request> {
        self.requests.try_recv().ok()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let own = fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode);
        if own {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether it is a socket that nobody listens on.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn serve(stream: &UnixStream, questions: &SyncSender<Request>, waker: &Arc<mio::Waker>) -> io::Result<()> {
    stream.set_read_timeout(Some(SAID_WITHIN))?;
    stream.set_write_timeout(Some(SAID_WITHIN))?;
    let peer = getsockopt(stream, PeerCredentials)?;
    let own = nix::unistd::geteuid().as_raw();
    // The file's mode says the same, from a moment after it is there.
    if peer.uid() != 0 && peer.uid() != own {
        return say(stream, r#"{"error":"only root and the user that it runs as may ask"}"#);
    }
    let mut question = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut question)?;
    if !question.ends_with('\n') {
        return say(stream, r#"{"error":"a question is a line of up to 4096 bytes"}"#);
    }
    let (answer, answered) = mpsc::sync_channel(1);
    let request = Request { question: question.trim_end().to_owned(), answer };
    if questions.try_send(request).is_err() {
        return say(stream, r#"{"error":"too many questions are waiting"}"#);
    }
    waker.wake()?;
    match answered.recv_timeout(ANSWERED_WITHIN) {
        Ok(line) => say(stream, &line),
        Err(RecvTimeoutError::Timeout) => say(stream, r#"{"error":"no answer in time: it is busy"}"#),
        Err(RecvTimeoutError::Disconnected) => say(stream, r#"{"error":"it is ending"}"#),
    }
}

fn say(mut stream: &UnixStream, line: &str) -> io::Result<()> {
    stream.write_all(line.as_bytes())?;
    stream.write_all(b"\n")
}
