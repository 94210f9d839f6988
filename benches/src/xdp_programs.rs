//! Compares with XDP programs: compiles and attaches them, and chooses the core that runs them.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::AsFd as _,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use libbpf_rs::Object;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use xdpfwd_bench::machine::tool_output;
use xdpfwd_lab::Chain;
use xdpfwd_xsk::{AttachMode, XdpLink, attach_xdp};

use crate::{forwarders::Environment, obstacle::Obstacle};

const THREAD_DEADLINE: Duration = Duration::from_secs(2);

/// Compiles `benches/peers/NAME.bpf.c`. Returns the object.
pub(crate) fn compile_bpf(environment: &Environment, name: &str) -> Result<PathBuf, Obstacle> {
    let object = environment.scratch.join(format!("{name}.bpf.o"));
    let bpf = environment.sources.join("../../bpf");
    let output = Command::new("clang")
        .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror"])
        .arg(format!("-I/usr/include/{}-linux-gnu", tool_output("uname", &["-m"])))
        .arg(format!("-I{}", bpf.display()))
        .arg("-c")
        .arg(environment.sources.join(format!("{name}.bpf.c")))
        .arg("-o")
        .arg(&object)
        .output();
    let output = match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Obstacle::NotInstalled("clang is not installed; run: make deps".into()));
        }
        output => output.context("cannot start clang")?,
    };
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(Obstacle::Failed(anyhow!("cannot compile {name}.bpf.c: {reason}")));
    }
    Ok(object)
}

/// Attaches a program to fwd0 in native mode. Call it in the namespace of fwd0.
pub(crate) fn attach(object: &Object, name: &str) -> Result<XdpLink> {
    let program =
        object.progs().find(|program| program.name() == name).context("no such program")?;
    Ok(attach_xdp(program.as_fd(), nix::net::if_::if_nametoindex("fwd0")?, AttachMode::Native)?)
}

/// Makes the kernel receive packets of fwd0 in a thread on `core`.
pub(crate) fn receive_in_thread(chain: &Chain, core: usize) -> Result<()> {
    let before = napi_threads();
    let script = "echo 1 > /sys/class/net/fwd0/threaded";
    let output =
        chain.fwd().command("sh").args(["-ec", script]).output().context("cannot start sh")?;
    if !output.status.success() {
        bail!(
            "cannot receive in a kernel thread: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let mut cores = CpuSet::new();
    cores.set(core).with_context(|| format!("invalid core {core}"))?;
    let start = Instant::now();
    loop {
        // Threads that existed before belong to interfaces of this name in other namespaces.
        let mut threads = napi_threads();
        threads.retain(|pid, _| !before.contains_key(pid));
        for pid in threads.keys() {
            sched_setaffinity(Pid::from_raw(*pid), &cores)
                .with_context(|| format!("pinning the kernel thread {pid} to core {core}"))?;
        }
        if !threads.is_empty() {
            return Ok(());
        }
        if start.elapsed() > THREAD_DEADLINE {
            bail!("the kernel started no thread napi/fwd0-…; it needs Linux 5.12 or later");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Returns the threads that receive for interfaces named fwd0, in any namespace.
fn napi_threads() -> BTreeMap<i32, String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(process.path().join("comm")).ok()?;
            name.starts_with("napi/fwd0").then_some((pid, name))
        })
        .collect()
}
