//! The files of /proc and /sys: this machine's, or a folder with those of another one, for tests of
//! what cannot be made here.

use std::fs;
use std::path::{Path, PathBuf};

/// Where `/proc` and `/sys` lie.
#[derive(Clone, Debug)]
pub(crate) struct Tree(PathBuf);

impl Tree {
    /// This machine's.
    pub(crate) fn real() -> Self {
        Self("/".into())
    }

    /// Files below a folder, which has `proc` and `sys` in it.
    #[cfg(test)]
    pub(crate) fn at(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// A file's text, without the line's end; `None` if there is none, or it cannot be read.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A file's number.
    pub(crate) fn number<N: std::str::FromStr>(&self, path: &str) -> Option<N> {
        self.text(path)?.parse().ok()
    }

    /// The names in a folder, in order; none if there is no such folder.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The last part of what a link points to.
    pub(crate) fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// Whether there is such a file or folder.
    pub(crate) fn has(&self, path: &str) -> bool {
        Path::exists(&self.path(path))
    }
}

/// A list of numbers as the kernel writes it: `0-3,8`.
pub(crate) fn list(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        // As many as there can be cores; what is more is no list of them.
        if last < first || last > 1 << 16 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(list("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(list("5"), Some(vec![5]));
        assert_eq!(list(""), Some(vec![]));
        for other in ["a", "3-1", "1-", "0-99999999999"] {
            assert_eq!(list(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_read() {
        let tree = Tree::at("/nowhere");
        assert_eq!(tree.text("/proc/version"), None);
        assert!(tree.names("/sys").is_empty());
        assert!(!tree.has("/proc"));
        assert!(Tree::real().text("/proc/version").unwrap().starts_with("Linux"));
    }
}
