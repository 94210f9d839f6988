//! Builds the initramfs: busybox, init.sh, and the kernel modules that init.sh needs to mount the
//! host's file system.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::kernel::UnpackedKernel;
use crate::tool;

/// The kernel modules that init.sh needs, without their dependencies.
const MODULES: [&str; 3] = ["9p", "9pnet_virtio", "overlay"];

pub(crate) fn build(kernel: &UnpackedKernel, work: &Path) -> Result<std::path::PathBuf> {
    let root = work.join("initramfs");
    for folder in ["bin", "modules", "proc", "sys", "dev", "lower", "layer", "new"] {
        fs::create_dir_all(root.join(folder))?;
    }
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox =
        busybox.context("busybox is not installed; run: apt-get install busybox-static")?;
    fs::copy(busybox, root.join("bin/busybox")).with_context(|| format!("copying {busybox}"))?;
    for (index, module) in required_modules(kernel)?.iter().enumerate() {
        let bytes = if module.ends_with(".xz") {
            tool::output(Command::new("xz").args(["-dc", module]))?
        } else {
            fs::read(module).with_context(|| format!("reading {module}"))?
        };
        fs::write(root.join(format!("modules/{index:02}.ko")), bytes)?;
    }
    let init = root.join("init");
    fs::write(&init, include_str!("init.sh"))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let archive = work.join("initramfs.cpio");
    let file_list: String = files(&root, Path::new(""))?.join("\n") + "\n";
    let mut cpio = Command::new("cpio")
        .args(["--quiet", "-o", "-H", "newc", "-R", "0:0"])
        .current_dir(&root)
        .stdin(Stdio::piped())
        .stdout(fs::File::create(&archive)?)
        .spawn()
        .context("cannot start cpio; run: apt-get install cpio")?;
    std::io::Write::write_all(
        &mut cpio.stdin.take().context("cpio has no stdin")?,
        file_list.as_bytes(),
    )?;
    let status = cpio.wait()?;
    if !status.success() {
        bail!("cpio failed with {status}");
    }
    Ok(archive)
}

/// Returns the paths of [`MODULES`] and their dependencies, dependencies first. Omits modules that
/// are built into the kernel.
fn required_modules(kernel: &UnpackedKernel) -> Result<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut modules = Vec::new();
    for module in MODULES {
        let arguments = ["-S", &kernel.release, "--show-depends", module];
        let lines = tool::text(
            Command::new("modprobe").arg("-d").arg(kernel.modprobe_root()).args(arguments),
        )?;
        for path in lines.lines().filter_map(|line| line.trim().strip_prefix("insmod ")) {
            let path = path.split_whitespace().next().unwrap_or(path);
            if seen.insert(path.to_owned()) {
                modules.push(path.to_owned());
            }
        }
    }
    Ok(modules)
}

/// Returns the paths of all files and folders in `folder`, relative to `root`. A folder precedes
/// its contents, as the kernel requires.
fn files(root: &Path, folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = folder.join(entry.file_name());
        names.push(name.to_str().context("a file name in the initramfs is not UTF-8")?.to_owned());
        if entry.file_type()?.is_dir() {
            names.extend(files(root, &name)?);
        }
    }
    Ok(names)
}
