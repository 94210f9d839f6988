//! The emulated machine: starts QEMU, reads its output, and stops it.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::initramfs;
use crate::kernel::{Kernel, UnpackedKernel};
use crate::nic::{self, Nic};

pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) nics: Vec<Nic>,
    pub(crate) kernel_parameters: &'a str,
    /// Time limit for the boot and the command. After it, the machine is switched off.
    pub(crate) timeout: Duration,
    /// Printed before each line of the command's output.
    pub(crate) prefix: &'a str,
}

/// Number of console lines in the error message if the command reports no exit status.
const CONSOLE_TAIL_LINES: usize = 30;

impl Machine<'_> {
    /// Boots the machine and runs the command in it, as root and in the current folder. Prints the
    /// command's output and returns its exit status.
    pub(crate) fn run(&self, command: &[String], environment: &[(&str, &str)]) -> Result<u8> {
        let kernel = self.kernel.fetch()?;
        let work = WorkFolder::new()?;
        let initramfs = initramfs::build(&kernel, &work.0)?;
        let output = work.0.join("output");
        fs::create_dir(&output)?;
        self.write_settings(&output, command, environment)?;
        if let Some(build_config) = kernel.build_config() {
            fs::copy(build_config, output.join("config"))?;
        }
        let mut qemu = self.start_qemu(&kernel, &work.0, &initramfs, &output)?;
        let stdout = qemu.stdout.take().context("QEMU has no stdout")?;
        let prefix = self.prefix.to_owned();
        let reader = thread::spawn(move || forward_output(stdout, &prefix));
        let stderr = qemu.stderr.take().context("QEMU has no stderr")?;
        let stderr_reader = thread::spawn(move || forward_stderr(stderr));
        let deadline = Instant::now() + self.timeout;
        let qemu_status = loop {
            if let Some(status) = qemu.try_wait()? {
                break Some(status);
            }
            if Instant::now() >= deadline {
                let _ = qemu.kill();
                let _ = qemu.wait();
                break None;
            }
            thread::sleep(Duration::from_millis(50));
        };
        let _ = (reader.join(), stderr_reader.join());
        let status = fs::read_to_string(output.join("status"))
            .ok()
            .and_then(|status| status.trim().parse().ok());
        match (status, qemu_status) {
            (Some(status), _) => Ok(status),
            (None, qemu_status) => {
                let reason = match qemu_status {
                    None => format!(
                        "the machine was switched off after {} s; use a larger --timeout",
                        self.timeout.as_secs()
                    ),
                    Some(status) => format!(
                        "the machine stopped before the command had an exit status (QEMU: {status})"
                    ),
                };
                bail!("{reason}; the end of its console output:\n{}", tail(&console_path(&work.0)))
            }
        }
    }

    /// Writes run.sh and the file `settings`, which run.sh reads.
    fn write_settings(
        &self,
        output: &Path,
        command: &[String],
        environment: &[(&str, &str)],
    ) -> Result<()> {
        let folder = std::env::current_dir().context("cannot determine the current folder")?;
        let mut settings = format!("folder={}\n", quoted(&folder.display().to_string()));
        let quote_all = |words: Vec<String>| {
            words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
        };
        settings += &format!("command=({})\n", quote_all(command.to_vec()));
        settings += &format!(
            "nics=({})\n",
            quote_all(self.nics.iter().map(|nic| format!("{}={}", nic.mac, nic.name)).collect())
        );
        for (name, value) in environment {
            settings += &format!("export {name}={}\n", quoted(value));
        }
        fs::write(output.join("settings"), settings)?;
        let script = output.join("run.sh");
        fs::write(&script, include_str!("run.sh"))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    fn start_qemu(
        &self,
        kernel: &UnpackedKernel,
        work: &Path,
        initramfs: &Path,
        output: &Path,
    ) -> Result<Child> {
        let console = console_path(work);
        let bridges = work.join("bridges");
        fs::write(&bridges, nic::bridge_commands(&self.nics))?;
        // Run QEMU in its own network namespace: when the namespace ends, the kernel removes the
        // taps and bridges. Without root, a network namespace needs a user namespace.
        let mut qemu = Command::new("unshare");
        qemu.arg("--net");
        if !is_root()? {
            qemu.args(["--user", "--map-root-user"]);
        }
        // Without IPv6, bridges and taps send no unsolicited packets. With --pdeathsig, the kernel
        // kills QEMU when this process ends, even by SIGKILL.
        let start_script = r#"echo 1 2>/dev/null >/proc/sys/net/ipv6/conf/default/disable_ipv6
            ip -batch "$0" && exec setpriv --pdeathsig KILL -- qemu-system-x86_64 "$@""#;
        qemu.args(["--", "sh", "-c", start_script]).arg(bridges);
        qemu.args([
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "2G",
        ]);
        // Two NUMA nodes with one core each.
        for node in 0..2 {
            qemu.arg("-object").arg(format!("memory-backend-ram,id=memory{node},size=1G"));
            qemu.arg("-numa").arg(format!("node,nodeid={node},cpus={node},memdev=memory{node}"));
        }
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        qemu.arg("-serial").arg(format!("file:{}", console.display()));
        qemu.arg("-kernel").arg(kernel.image()?).arg("-initrd").arg(initramfs);
        // virtio_net as a module passes the address of a variable of the module, a packet header of
        // zeros, to the DMA API, which takes it for an address of the direct map. In zero-copy
        // mode, the device therefore reads each packet's header from unrelated memory, and the tap
        // device rejects all packets if that memory is not zero. Without KASLR, the wrong address
        // lies in the range of `memmap`, which stays zero. run.sh checks this.
        let parameters = "console=ttyS0 loglevel=4 panic=-1 oops=panic mitigations=off \
                    tsc=reliable no_timer_check random.trust_cpu=on net.ifnames=0 nokaslr \
                    memmap=64M$0x40000000";
        qemu.arg("-append").arg(format!("{parameters} {}", self.kernel_parameters));
        let shares = [
            ("root", Path::new("/"), true),
            ("modules", &*kernel.modules(), true),
            ("output", output, false),
        ];
        for (tag, path, read_only) in shares {
            let read_only = if read_only { ",readonly=on" } else { "" };
            let path = path.display();
            qemu.arg("-fsdev").arg(format!(
                "local,id={tag},path={path},security_model=none,multidevs=remap{read_only}"
            ));
            qemu.arg("-device").arg(format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
        }
        // Do not use QEMU's character device `stdio` for the output: QEMU's stdin is at end of
        // file, so `stdio` would close the port.
        qemu.args([
            "-device",
            "virtio-serial-pci",
            "-chardev",
            "file,id=output,path=/dev/stdout,append=on",
        ]);
        qemu.args(["-device", "virtserialport,chardev=output,name=stdout"]);
        if !self.nics.is_empty() {
            qemu.args(["-device", nic::NODE1_BUS]);
        }
        for (index, nic) in self.nics.iter().enumerate() {
            qemu.args(nic.arguments(index));
        }
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        qemu.spawn().context("cannot start unshare; run: apt-get install util-linux")
    }
}

fn console_path(work: &Path) -> PathBuf {
    work.join("console")
}

fn is_root() -> Result<bool> {
    Ok(fs::metadata("/proc/self").context("reading /proc/self")?.uid() == 0)
}

/// Prints the command's output, with `prefix` before each line. If the prefix is not empty, prints
/// only complete lines.
fn forward_output(output: impl Read, prefix: &str) -> io::Result<()> {
    let mut output = BufReader::new(output);
    loop {
        let available = output.fill_buf()?;
        let mut text = available.to_vec();
        output.consume(text.len());
        if !prefix.is_empty() && !text.ends_with(b"\n") {
            output.read_until(b'\n', &mut text)?;
        }
        if text.is_empty() {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            stdout.write_all(prefix.as_bytes())?;
            stdout.write_all(line)?;
        }
        stdout.flush()?;
    }
}

/// Prints QEMU's stderr, except warnings that QEMU's hubs are not connected to the host's network.
fn forward_stderr(stderr: impl Read) {
    let lines = BufReader::new(stderr).lines().map_while(Result::ok);
    for line in lines.filter(|line| !line.ends_with("is not connected to host network")) {
        crate::output::print_error(&line);
    }
}

/// Quotes a word for bash.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn tail(console: &Path) -> String {
    let bytes = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(CONSOLE_TAIL_LINES)..].join("\n")
}

/// A temporary folder, removed on drop.
struct WorkFolder(PathBuf);

impl WorkFolder {
    fn new() -> Result<Self> {
        let parent = std::env::temp_dir();
        // Remove the folders of earlier processes that were killed.
        for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_str().and_then(|name| name.strip_prefix("xdpfwd-vm-"));
            let owner = name.and_then(|name| name.split('-').next()?.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        // Use the first free number: this process can have several folders, and a folder of a
        // killed process with the same ID can remain.
        let path = |number| parent.join(format!("xdpfwd-vm-{}-{number}", std::process::id()));
        let created = (0..).map(path).find_map(|path| match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
            result => Some(result.map(|()| path)),
        });
        let created = created.context("no free name for a temporary folder")?;
        created.map(Self).with_context(|| format!("creating a folder in {}", parent.display()))
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn bash_reads_quoted_words_unchanged() {
        for word in ["plain", "two words", "it's", "$HOME `x` \"y\" \\", "", "a\nb"] {
            let output = Command::new("bash")
                .arg("-c")
                .arg(format!("printf %s {}", quoted(word)))
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }
}
