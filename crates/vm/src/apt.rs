//! Downloads Debian packages from suites that the host does not use, without changing the host's
//! apt configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tool;

/// Returns the cache folder. It is outside the repository, so all clones share it.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|home| !home.is_empty()) {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(
            std::env::var_os("HOME").context("no cache folder: set XDG_CACHE_HOME or HOME")?,
        )
        .join(".cache"),
    };
    let cache = base.join("xdpfwd-vm");
    fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    Ok(cache)
}

/// Package lists of a Debian suite, such as `trixie-backports`, in the cache.
pub(crate) struct DebianSuite {
    /// Options with which apt uses these lists.
    options: Vec<String>,
}

/// A package source of the host's apt.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    /// Such as `bookworm`.
    release: String,
    /// The path of the key file; empty if unknown.
    signed_by: String,
}

impl DebianSuite {
    /// Downloads the package lists of the suite and of the host's release.
    pub(crate) fn update(name: &str) -> Result<Self> {
        let source = host_source()?;
        let root = cache_folder()?.join("apt").join(name);
        let (lists, archives) = (root.join("lists"), root.join("archives"));
        for folder in [lists.join("partial"), archives.join("partial")] {
            fs::create_dir_all(&folder)
                .with_context(|| format!("creating {}", folder.display()))?;
        }
        let sources_list = root.join("sources.list");
        let signed_by = if source.signed_by.is_empty() {
            String::new()
        } else {
            format!("[signed-by={}] ", source.signed_by)
        };
        let line = |release: &str| format!("deb {signed_by}{} {release} main\n", source.uri);
        fs::write(&sources_list, line(&source.release) + &line(name))
            .with_context(|| format!("writing {}", sources_list.display()))?;
        let option = |key: &str, path: &Path| format!("-o{key}={}", path.display());
        let suite = Self {
            options: vec![
                option("Dir::Etc::SourceList", &sources_list),
                "-oDir::Etc::SourceParts=-".into(),
                option("Dir::State::Lists", &lists),
                option("Dir::Cache::Archives", &archives),
                "-oDir::Cache::pkgcache=".into(),
                "-oDir::Cache::srcpkgcache=".into(),
                // apt's sandbox user cannot write to the cache folder.
                "-oAPT::Sandbox::User=root".into(),
                "-oAcquire::http::Timeout=30".into(),
                "-oAcquire::Retries=2".into(),
            ],
        };
        tool::output(suite.apt_command("apt-get").args(["-qq", "update"])).with_context(|| {
            format!("cannot download the package lists of {name} (check the network connection)")
        })?;
        Ok(suite)
    }

    fn apt_command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command
    }

    pub(crate) fn package_names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = tool::text(self.apt_command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    pub(crate) fn download(&self, packages: &[String], into: &Path) -> Result<()> {
        tool::output(
            self.apt_command("apt-get").args(["-q", "download"]).args(packages).current_dir(into),
        )
        .map(drop)
    }

    /// Installs packages, with `sudo` if the process is not root.
    fn install(&self, suite_name: &str, packages: &[&str]) -> Result<()> {
        let install = ["-qq", "-y", "--no-install-recommends", "-t", suite_name, "install"];
        let mut command = self.apt_command("apt-get");
        if !is_root() {
            let options = &self.options;
            command = Command::new("sudo");
            // -n: fail instead of waiting at a password prompt that the user cannot see.
            command.args(["-n", "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(options);
        }
        tool::output(command.args(install).args(packages)).map(drop)
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Returns the package source of the host's Debian release.
fn host_source() -> Result<Source> {
    let format = "$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT) $(SIGNED_BY)";
    let targets = tool::text(Command::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
    ]))
    .context("cannot list the package sources: xdpfwd-vm needs Debian's apt")?;
    release_source(&targets).with_context(|| {
        format!(
            "apt has no package source of a Debian release; add one. Its sources are:\n{targets}"
        )
    })
}

/// Returns the first source of a Debian release in apt's list of sources. Skips updates, backports
/// and origins other than Debian.
fn release_source(targets: &str) -> Option<Source> {
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (origin, uri, release, component) =
            (words.next()?, words.next()?, words.next()?, words.next()?);
        let is_debian_release = origin == "Debian"
            && release.bytes().all(|byte| byte.is_ascii_lowercase())
            && component == "main";
        // Accept only the path of a key file, not an inline key.
        let signed_by = words.next().filter(|path| path.starts_with('/')).unwrap_or_default();
        is_debian_release.then(|| Source {
            uri: uri.into(),
            release: release.into(),
            signed_by: signed_by.into(),
        })
    })
}

/// Installs QEMU from Debian's backports, unless the installed QEMU supports igb. QEMU supports it
/// from version 8.0 on.
pub(crate) fn require_qemu() -> Result<()> {
    let has_igb = || {
        let devices = tool::text(Command::new("qemu-system-x86_64").args(["-device", "help"]));
        devices.is_ok_and(|devices| devices.contains("name \"igb\""))
    };
    if has_igb() {
        return Ok(());
    }
    let backports = format!("{}-backports", host_source()?.release);
    crate::output::print_error(&format!(
        "xdpfwd-vm: installing QEMU 8.0 or later from {backports}, because no \
         installed QEMU supports igb{}",
        if is_root() { "" } else { " (with sudo)" }
    ));
    DebianSuite::update(&backports)
        .and_then(|suite| suite.install(&backports, &["qemu-system-x86"]))
        .context(
            "cannot install a QEMU with igb; install qemu-system-x86 8.0 or later, from Debian \
             13 or from backports",
        )?;
    if !has_igb() {
        bail!(
            "`qemu-system-x86_64 -device help` lists no igb, although QEMU was installed \
             from {backports}; remove other versions of QEMU from PATH"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_source_returns_first_source_of_debian_release() {
        let targets = "Debian http://m/debian-security/ bookworm-security main /k.gpg\n\
                       Vendor http://vendor/ bookworm main /k.gpg\n\
                       Debian http://m/debian/ bookworm-updates main /k.gpg\n\
                       Debian http://m/debian/ bookworm non-free /k.gpg\n\
                       Debian http://m/debian/ bookworm main /k.gpg\n";
        let expected = Source {
            uri: "http://m/debian/".into(),
            release: "bookworm".into(),
            signed_by: "/k.gpg".into(),
        };
        assert_eq!(release_source(targets), Some(expected));
        assert_eq!(
            release_source("Debian http://m/debian/ trixie main $(SIGNED_BY)\n").unwrap().signed_by,
            ""
        );
        assert_eq!(release_source(""), None);
    }
}
