//! Selects, downloads and unpacks kernels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{apt, tool};

/// A kernel pinned in `kernels.toml`. [`fetch`](Self::fetch) can use another release of the series:
/// the newest in the cache, or, if the Debian suite lacks the pinned release, the suite's newest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kernel {
    /// First two numbers of the release: `6.12` for `6.12.95+deb12-amd64`.
    pub(crate) series: String,
    /// As `uname -r` prints it.
    pub(crate) release: String,
    /// The Debian suite of the packages, such as `trixie-backports`.
    #[serde(rename = "suite")]
    pub(crate) debian_suite: String,
    /// Whether the drivers of virtio-net and igb support AF_XDP zero-copy.
    pub(crate) zero_copy: bool,
    packages: Vec<Package>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Package {
    /// With `{release}` as a placeholder.
    name: String,
    /// Checksum of the pinned release's package, in hexadecimal.
    sha256: String,
}

impl Package {
    fn name(&self, release: &str) -> String {
        self.name.replace("{release}", release)
    }
}

pub(crate) struct UnpackedKernel {
    /// As `uname -r` prints it; not always the pinned release.
    pub(crate) release: String,
    root: PathBuf,
}

impl UnpackedKernel {
    pub(crate) fn modules(&self) -> PathBuf {
        self.root.join("usr/lib/modules")
    }

    /// Folder for modprobe's option `-d`; contains `lib/modules`.
    pub(crate) fn modprobe_root(&self) -> PathBuf {
        self.root.join("usr")
    }

    pub(crate) fn image(&self) -> Result<PathBuf> {
        let paths = [
            self.modules().join(&self.release).join("vmlinuz"),
            self.root.join("boot").join(format!("vmlinuz-{}", self.release)),
        ];
        let found = paths.into_iter().find(|path| path.exists());
        found.with_context(|| format!("the packages of Linux {} contain no vmlinuz", self.release))
    }

    /// Returns the path of the build configuration; `None` if the packages lack it.
    pub(crate) fn build_config(&self) -> Option<PathBuf> {
        Some(self.root.join("boot").join(format!("config-{}", self.release)))
            .filter(|path| path.exists())
    }
}

/// Returns the kernels in `kernels.toml`.
pub(crate) fn pinned() -> Result<Vec<Kernel>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        kernel: Vec<Kernel>,
    }
    let file: File = toml::from_str(include_str!("../kernels.toml")).context("kernels.toml")?;
    Ok(file.kernel)
}

impl Kernel {
    /// Downloads and unpacks the kernel unless a release of its series is in the cache.
    pub(crate) fn fetch(&self) -> Result<UnpackedKernel> {
        let cache = apt::cache_folder()?.join("kernels");
        fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
        let cached = |release: &str| {
            let root = cache.join(release);
            root.exists().then(|| UnpackedKernel { release: release.to_owned(), root })
        };
        if let Some(unpacked) = cached(&self.release) {
            return Ok(unpacked);
        }
        // Prefer another release in the cache to a download, which needs a network.
        if let Some(replacement) =
            newest_cached(&self.series, &cache).and_then(|release| cached(&release))
        {
            crate::output::print_error(&format!(
                "xdpfwd-vm: using Linux {} from the cache instead of the pinned {}",
                replacement.release, self.release
            ));
            return Ok(replacement);
        }
        crate::output::print_error(&format!(
            "xdpfwd-vm: downloading Linux {} from {}",
            self.release, self.debian_suite
        ));
        let suite = apt::DebianSuite::update(&self.debian_suite)?;
        let release = self.available_release(&suite)?;
        if release != self.release {
            crate::output::print_error(&format!(
                "xdpfwd-vm: Linux {} is no longer in {}: using {release}, which only apt \
                 verifies; pin this release in crates/vm/kernels.toml",
                self.release, self.debian_suite
            ));
            if let Some(unpacked) = cached(&release) {
                return Ok(unpacked);
            }
        }
        self.unpack(&suite, &release, &cache)?;
        cached(&release)
            .context("another process removed the unpacked kernel from the cache; try again")
    }

    /// Returns the pinned release if the Debian suite has it, or else the newest release of the
    /// series in the suite.
    fn available_release(&self, suite: &apt::DebianSuite) -> Result<String> {
        let package =
            &self.packages.first().context("kernels.toml: a kernel has no packages")?.name;
        let (prefix, suffix) = package
            .split_once("{release}")
            .context("kernels.toml: a package name lacks {release}")?;
        let names = suite.package_names(&format!("{prefix}{}.", self.series))?;
        let releases: Vec<&str> = names
            .iter()
            .filter_map(|name| name.strip_prefix(prefix)?.strip_suffix(suffix))
            .filter(|release| is_standard_flavour(release))
            .collect();
        if releases.contains(&&*self.release) {
            return Ok(self.release.clone());
        }
        let newest = releases.into_iter().max_by_key(|release| version_numbers(release));
        let newest = newest.with_context(|| {
            format!(
                "{} has no Linux {}; pin another kernel in crates/vm/kernels.toml",
                self.debian_suite, self.series
            )
        })?;
        Ok(newest.to_owned())
    }

    /// Unpacks the packages into a temporary folder and renames it at the end, so a release's
    /// folder in the cache is always complete.
    fn unpack(&self, suite: &apt::DebianSuite, release: &str, cache: &Path) -> Result<()> {
        let work = cache.join(format!(".{release}.{}", std::process::id()));
        let _ = fs::remove_dir_all(&work);
        let (debs, root) = (work.join("debs"), work.join("root"));
        fs::create_dir_all(&debs)
            .and_then(|()| fs::create_dir_all(&root))
            .with_context(|| format!("creating {}", work.display()))?;
        let _guard = RemoveOnDrop(&work);
        let names: Vec<String> =
            self.packages.iter().map(|package| package.name(release)).collect();
        suite.download(&names, &debs)?;
        let files = fs::read_dir(&debs)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<Vec<_>>>()?;
        if files.len() != names.len() {
            bail!(
                "`apt-get download {}` downloaded {} files instead of {}",
                names.join(" "),
                files.len(),
                names.len()
            );
        }
        for deb in files {
            if release == self.release {
                self.verify_checksum(&deb)?;
            }
            tool::output(Command::new("dpkg").arg("-x").arg(&deb).arg(&root))?;
        }
        // Older packages contain /lib/modules instead of /usr/lib/modules.
        let old_folder = root.join("lib/modules");
        if old_folder.exists() {
            fs::create_dir_all(root.join("usr/lib"))?;
            fs::rename(&old_folder, root.join("usr/lib/modules"))?;
        }
        tool::output(Command::new("depmod").arg("-b").arg(root.join("usr")).arg(release))?;
        match fs::rename(&root, cache.join(release)) {
            Ok(()) => {}
            // Another process has unpacked the same kernel.
            Err(_) if cache.join(release).exists() => {}
            Err(error) => {
                let target = cache.join(release);
                return Err(error).with_context(|| format!("creating {}", target.display()));
            }
        }
        Ok(())
    }

    fn verify_checksum(&self, deb: &Path) -> Result<()> {
        let file = deb.file_name().unwrap_or_default().to_string_lossy();
        let package = file.split('_').next().unwrap_or_default();
        let pinned = self.packages.iter().find(|pinned| pinned.name(&self.release) == package);
        let pinned =
            pinned.with_context(|| format!("`{file}` is not one of the requested packages"))?;
        let output = tool::text(Command::new("sha256sum").arg(deb))?;
        let sum = output.split_whitespace().next().unwrap_or_default();
        if sum != pinned.sha256 {
            bail!("`{file}` has checksum {sum}, but crates/vm/kernels.toml pins {}", pinned.sha256);
        }
        Ok(())
    }
}

fn newest_cached(series: &str, cache: &Path) -> Option<String> {
    let names = fs::read_dir(cache)
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.starts_with(&format!("{series}.")))
        .max_by_key(|name| version_numbers(name))
}

struct RemoveOnDrop<'a>(&'a Path);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0);
    }
}

/// Returns whether the package of this release is a standard kernel: no cloud or real-time kernel,
/// and not the debug symbols of a kernel.
fn is_standard_flavour(release: &str) -> bool {
    release.ends_with("amd64") && !release.contains("cloud") && !release.contains("rt-")
}

/// Returns the numbers in a release, by which releases are compared.
fn version_numbers(release: &str) -> Vec<u64> {
    release
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_kernels_have_valid_entries() {
        let kernels = pinned().unwrap();
        assert!(kernels.len() >= 2);
        for kernel in kernels {
            assert!(kernel.release.starts_with(&format!("{}.", kernel.series)), "{kernel:?}");
            assert!(is_standard_flavour(&kernel.release), "{kernel:?}");
            for package in &kernel.packages {
                assert!(package.name.contains("{release}"), "{package:?}");
                assert_eq!(package.sha256.len(), 64, "{package:?}");
                assert!(package.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()), "{package:?}");
            }
        }
    }

    #[test]
    fn releases_are_ordered_by_number_and_only_standard_flavour_is_accepted() {
        let releases = ["7.2.9+deb13-amd64", "7.2.12+deb13-amd64", "7.2.2+deb13-amd64"];
        assert_eq!(
            releases.into_iter().max_by_key(|release| version_numbers(release)),
            Some("7.2.12+deb13-amd64")
        );
        assert!(!is_standard_flavour("7.2.12+deb13-cloud-amd64"));
        assert!(!is_standard_flavour("7.2.12+deb13-rt-amd64"));
        assert!(!is_standard_flavour("7.2.12+deb13-amd64-dbg"));
    }
}
