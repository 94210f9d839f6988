//! The text of a configuration file, with line and column lookup.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::diagnostic::{Diagnostic, Position};
use super::words::MAX_EXCERPT;

#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    text: String,
    /// Maximum characters of an excerpt.
    max_excerpt: usize,
}

/// Maximum characters of an excerpt if the file is not a configuration: it may be secret.
const MAX_FOREIGN_EXCERPT: usize = 3;

/// Maximum letters of a word that is shown even if the file is not a configuration: the word
/// may be a misspelled table name.
const MAX_FOREIGN_WORD: usize = 6;

/// Returns whether one of the lines begins like a table of a configuration.
fn is_configuration(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_start();
        let header = line.trim_start_matches('[').trim_start();
        // Without brackets, `port` and `path` are also keys of other files.
        let tables = ["engine", "umem", "stage", "port", "path"];
        let tables = if line.starts_with('[') { &tables[..] } else { &tables[..3] };
        tables
            .iter()
            .filter_map(|table| header.strip_prefix(table))
            .any(|rest| rest.trim_start().starts_with(['.', ']', '=']))
    })
}

/// Maximum size of a file. A larger file is a mistake, such as a device.
const MAX_BYTES: usize = 1 << 20;

/// Maximum time to wait for more data from a pipe.
const PIPE_TIMEOUT_MS: u16 = 5_000;

impl Source {
    /// If the content is not valid text, the error has the position of the first invalid byte.
    pub(crate) fn read(path: &Path) -> Result<Self, Diagnostic> {
        let name = path.display().to_string();
        match read_bytes(path) {
            Ok(bytes) => Self::from_bytes(name, bytes),
            Err(error) => {
                let message = match error.kind() {
                    ErrorKind::NotFound => {
                        "file not found; expected the path of a TOML file".to_owned()
                    }
                    ErrorKind::IsADirectory => {
                        "is a directory; expected the path of a TOML file".to_owned()
                    }
                    _ => format!(
                        "cannot be read: {error}; expected the path of a readable TOML file"
                    ),
                };
                Err(Diagnostic::error(&name, None, message))
            }
        }
    }

    fn from_bytes(name: String, bytes: Vec<u8>) -> Result<Self, Diagnostic> {
        // The TOML parser would report each of the many zero bytes of a UTF-16 text.
        let zero = bytes.iter().position(|&byte| byte == 0);
        let not_utf8 = str::from_utf8(&bytes).err().map(|error| error.valid_up_to());
        let oversize = (bytes.len() > MAX_BYTES).then_some(MAX_BYTES);
        let Some(first_error) = [zero, not_utf8, oversize].into_iter().flatten().min() else {
            return Ok(Self::new(name, String::from_utf8_lossy(&bytes).into_owned()));
        };
        let valid_prefix = Self::new(
            name,
            String::from_utf8_lossy(bytes.get(..first_error).unwrap_or_default()).into_owned(),
        );
        let message = match bytes.get(first_error) {
            // The size limit may have cut a character, which has up to 4 bytes. Report the size,
            // not the incomplete character.
            _ if oversize.is_some_and(|limit| first_error + 4 > limit) => {
                format!("the file is longer than {MAX_BYTES} bytes, the limit for a configuration")
            }
            byte => {
                format!(
                    "byte 0x{:02x} is not UTF-8 text; save the file as UTF-8",
                    byte.copied().unwrap_or_default()
                )
            }
        };
        let position = valid_prefix.position(valid_prefix.text.len());
        Err(Diagnostic::error(&valid_prefix.name, Some(position), message))
    }

    /// Omits a byte order mark, which would count as a column.
    pub(crate) fn new(name: String, text: String) -> Self {
        let text = match text.strip_prefix('\u{feff}') {
            Some(without_bom) => without_bom.to_owned(),
            None => text,
        };
        let max_excerpt = if is_configuration(&text) { MAX_EXCERPT } else { MAX_FOREIGN_EXCERPT };
        Self { name, text, max_excerpt }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns the line and column of a byte offset, at most the position of the end.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let boundary = (0..=offset.min(self.text.len()))
            .rev()
            .find(|&offset| self.text.is_char_boundary(offset));
        let prefix = &self.text[..boundary.unwrap_or_default()];
        let line_start = prefix.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: prefix.bytes().filter(|&byte| byte == b'\n').count() + 1,
            column: prefix[line_start..].chars().count() + 1,
        }
    }

    /// Returns the first line of the text at the span, up to 40 characters, with `…` if the text is
    /// longer. If the file is not a configuration, the excerpt is very short, because the file may
    /// be secret.
    pub(crate) fn excerpt(&self, span: &Range<usize>) -> String {
        let Some(text) = self.text.get(span.clone()) else { return String::new() };
        let line = text.lines().next().unwrap_or_default();
        let is_word =
            text.len() <= MAX_FOREIGN_WORD && text.bytes().all(|byte| byte.is_ascii_alphabetic());
        let max_excerpt = if is_word { MAX_FOREIGN_WORD } else { self.max_excerpt };
        let mut excerpt: String = line.chars().take(max_excerpt).collect();
        if excerpt.len() < text.len() {
            excerpt.push('…');
        }
        excerpt
    }
}

/// Reads at most one byte more than the size limit.
fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    // Without O_NONBLOCK, opening a pipe blocks until it has a writer, possibly forever.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let mut bytes = Vec::new();
    loop {
        let remaining = (MAX_BYTES + 1).saturating_sub(bytes.len());
        match (&file).take(remaining as u64).read_to_end(&mut bytes) {
            // The pipe is empty, but a process can still write to it.
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait_for_data(&file)?,
            Err(error) => return Err(error),
            Ok(_) => return Ok(bytes),
        }
    }
}

fn wait_for_data(file: &File) -> io::Result<()> {
    let mut pipe = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    match poll(&mut pipe, PollTimeout::from(PIPE_TIMEOUT_MS)) {
        Ok(0) => Err(io::Error::other(format!("no data within {} s", PIPE_TIMEOUT_MS / 1000))),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("f.toml".into(), text.into())
    }

    #[test]
    fn position_counts_lines_and_characters_from_one() {
        let source = source("a = 1\r\n# größer\nb");
        let position =
            |needle: &str| source.position(source.text.find(needle).unwrap()).to_string();
        assert_eq!(position("a"), "1:1");
        assert_eq!(position("1"), "1:5");
        assert_eq!(position("r\n"), "2:8", "ö and ß are one column each");
        assert_eq!(position("b"), "3:1");
        assert_eq!(source.position(usize::MAX).to_string(), "3:2");
    }

    #[test]
    fn byte_order_mark_takes_no_column() {
        let source = source("\u{feff}a = 1");
        assert_eq!(source.position(0).to_string(), "1:1");
        assert_eq!(source.excerpt(&(0..1)), "a");
    }

    #[test]
    fn excerpt_ends_at_first_line_end() {
        let source = source("\"\"\"one\ntwo\"\"\"\n[engine]");
        assert_eq!(source.excerpt(&(0..13)), "\"\"\"one…");
        assert_eq!(source.excerpt(&(0..6)), "\"\"\"one");
        assert_eq!(source.excerpt(&(5..99)), "");
    }

    /// The file may be a key file, or `/etc/shadow`.
    #[test]
    fn excerpt_of_other_file_has_few_characters() {
        for text in ["0123456789abcdef", "root:$6$salt$hash:19000", "port = 5\npassword = hunter12"]
        {
            let excerpt = source(text).excerpt(&(0..text.len()));
            assert_eq!(excerpt.chars().count(), 4, "{excerpt}");
        }
        assert_eq!(source("[enigne]").excerpt(&(1..7)), "enigne");
    }

    #[test]
    fn non_utf8_error_has_position() {
        let error = Source::from_bytes("f.toml".into(), b"ok\n\xc3\xa9 \xff".to_vec()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "f.toml:2:3: byte 0xff is not UTF-8 text; save the file as UTF-8"
        );
        let error =
            Source::from_bytes("f.toml".into(), b"\xef\xbb\xbf[\0e\0\xff".to_vec()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "f.toml:1:2: byte 0x00 is not UTF-8 text; save the file as UTF-8"
        );
    }

    #[test]
    fn oversized_file_error_has_position_of_the_limit() {
        let message = |bytes: &[u8]| {
            Source::from_bytes("f.toml".into(), bytes.to_vec()).unwrap_err().to_string()
        };
        let full = [b"\n".as_slice(), &[b'#'; MAX_BYTES - 1]].concat();
        assert!(Source::from_bytes("f.toml".into(), full.clone()).is_ok());
        let expected = "f.toml:2:1048576: the file is longer than 1048576 bytes, the limit for a \
                        configuration";
        assert_eq!(message(&[&full, b"#".as_slice()].concat()), expected);
        let cut = [&full[..MAX_BYTES - 1], b"\xc3\xa9"].concat();
        assert!(message(&cut).ends_with("the limit for a configuration"), "{}", message(&cut));
        let cut = [&full[..MAX_BYTES], b"\xc3"].concat();
        assert_eq!(message(&cut), expected);
    }

    #[test]
    fn pipe_is_read_until_no_writer_is_left() {
        let path = std::env::temp_dir().join(format!("xdpfwd-pipe-{}", std::process::id()));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let without_writer = Source::read(&path).map(|source| source.text);
        let writer = {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut pipe = File::options().write(true).open(path).unwrap();
                for piece in ["a = ", "1"] {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    io::Write::write_all(&mut pipe, piece.as_bytes()).unwrap();
                }
            })
        };
        // The pipe reads as empty until the writer opens it.
        let read = (0..1000).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            Source::read(&path).ok().map(|source| source.text).filter(|text| !text.is_empty())
        });
        writer.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((without_writer.unwrap().as_str(), read.as_deref()), ("", Some("a = 1")));
    }
}
