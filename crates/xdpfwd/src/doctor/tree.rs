//! The system files (such as /proc and /sys) of this machine or, in tests, of a fake machine.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder that contains `proc` and `sys`: `/`, or a test's folder.
#[derive(Clone, Debug)]
pub(crate) struct Tree(PathBuf);

impl Tree {
    pub(crate) fn this_machine() -> Self {
        Self("/".into())
    }

    #[cfg(test)]
    pub(crate) fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// Returns the content of a file without white space around it, or `None` if the file is
    /// missing or unreadable.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Returns the number in a file, or `None` if the file contains anything else.
    pub(crate) fn number<N: std::str::FromStr>(&self, path: &str) -> Option<N> {
        self.text(path)?.parse().ok()
    }

    /// Returns the sorted names of the files in a folder; none if the folder is missing.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Returns the last component of a symbolic link's target.
    pub(crate) fn link_target_name(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        Path::exists(&self.path(path))
    }
}

/// Parses a list of numbers in the kernel's format, such as `0-3,8`.
pub(crate) fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        // No core has a number above 65536.
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
    fn parse_list_accepts_only_the_kernel_format() {
        assert_eq!(parse_list("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(parse_list("5"), Some(vec![5]));
        assert_eq!(parse_list(""), Some(vec![]));
        for other in ["a", "3-1", "1-", "0-99999999999"] {
            assert_eq!(parse_list(other), None, "{other}");
        }
    }

    #[test]
    fn tree_returns_nothing_for_missing_files() {
        let tree = Tree::in_folder("/nowhere");
        assert_eq!(tree.text("/proc/version"), None);
        assert!(tree.names("/sys").is_empty());
        assert!(!tree.exists("/proc"));
        assert!(Tree::this_machine().text("/proc/version").unwrap().starts_with("Linux"));
    }
}
