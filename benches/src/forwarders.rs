//! The compared forwarders, and the commands that start them in the lab. A [`Chain`] is the lab's
//! chain of network namespaces, not a chain of stages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use xdpfwd_lab::{Chain, Forwarder, Traffic, mac};

use crate::{
    lab_config::LabConfig,
    launch::{READY_DEADLINE, STOP_DEADLINE, wait_until_ready},
};

/// Maximum time until a forwarder that cannot start has ended.
const FAILURE_TIME: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForwarderKind {
    /// xdpfwd with these values of `io` and `idle`.
    Xdpfwd { io: &'static str, idle: &'static str },
    /// benches/peers/bare_loop.c.
    BareLoop,
    /// `dpdk-testpmd` on net_af_xdp, with or without preferred busy polling.
    Testpmd { busy_poll: bool },
    /// A kernel bridge.
    Bridge,
    /// The kernel's IPv4 forwarding.
    IpForward,
    /// `xdp-bench redirect`.
    XdpRedirect,
    /// `xdp-bench redirect-cpu`, to the forwarder's core.
    XdpRedirectCpu,
}

/// In the order of the table and of the runs. xdpfwd and the bare loop run directly one after the
/// other, because their ratio is the main result.
pub(crate) const ALL: [ForwarderKind; 12] = [
    ForwarderKind::Xdpfwd { io: "af_xdp", idle: "poll" },
    ForwarderKind::BareLoop,
    ForwarderKind::Xdpfwd { io: "xsk-rs", idle: "poll" },
    ForwarderKind::Xdpfwd { io: "packet", idle: "poll" },
    ForwarderKind::Xdpfwd { io: "packet-mmsg", idle: "poll" },
    ForwarderKind::Xdpfwd { io: "packet-mmap", idle: "poll" },
    ForwarderKind::Testpmd { busy_poll: true },
    ForwarderKind::Testpmd { busy_poll: false },
    ForwarderKind::Bridge,
    ForwarderKind::IpForward,
    ForwarderKind::XdpRedirectCpu,
    ForwarderKind::XdpRedirect,
];

#[derive(Clone, Debug)]
pub(crate) struct Environment {
    pub(crate) xdpfwd: PathBuf,
    /// benches/peers.
    pub(crate) sources: PathBuf,
    pub(crate) scratch: PathBuf,
    /// Core of the generator.
    pub(crate) generator: usize,
    /// Core of the forwarder.
    pub(crate) core: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct PreparedForwarder {
    pub(crate) kind: ForwarderKind,
    /// Shell commands to run in the forwarder's namespace.
    setup: Vec<String>,
    /// `None` if the kernel forwards.
    command: Option<Vec<String>>,
}

pub(crate) struct RunningForwarder {
    /// `None` if the kernel forwards.
    pub(crate) forwarder: Option<Forwarder>,
}

/// Why a forwarder is missing, and how to install it.
pub(crate) type MissingReason = String;

impl ForwarderKind {
    /// Returns the name in tables, raw results and the option `--only`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Xdpfwd { io: "af_xdp", idle: "spin" } => "xdpfwd-spin",
            Self::Xdpfwd { io: "xsk-rs", .. } => "xdpfwd-xsk-rs",
            Self::Xdpfwd { io: "packet", .. } => "xdpfwd-packet",
            Self::Xdpfwd { io: "packet-mmsg", .. } => "xdpfwd-packet-mmsg",
            Self::Xdpfwd { io: "packet-mmap", .. } => "xdpfwd-packet-mmap",
            Self::Xdpfwd { .. } => "xdpfwd",
            Self::BareLoop => "bare-loop",
            Self::Testpmd { busy_poll: true } => "testpmd",
            Self::Testpmd { busy_poll: false } => "testpmd-no-busy-poll",
            Self::Bridge => "bridge",
            Self::IpForward => "ip-forward",
            Self::XdpRedirect => "xdp-redirect",
            Self::XdpRedirectCpu => "xdp-redirect-cpu",
        }
    }

    fn uses_packet_sockets(self) -> bool {
        matches!(self, Self::Xdpfwd { io: "packet" | "packet-mmsg" | "packet-mmap", .. })
    }

    /// Describes how the forwarder's conditions differ from xdpfwd's.
    ///
    /// For a forwarder in the kernel, the text always says what happens to the MAC addresses.
    pub(crate) fn differences(self) -> &'static str {
        match self {
            _ if self.uses_packet_sockets() => "the kernel also processes every frame",
            Self::Xdpfwd { .. } | Self::BareLoop => "",
            Self::Testpmd { .. } => {
                "its main thread, which prints a line per second, runs on the generator's core"
            }
            Self::Bridge => {
                "in softirq on the forwarder's core, by RPS; no MAC swap; socket buffers are \
                 allocated on the generator's core"
            }
            // "As bridge" refers to the line of `bridge` in the table.
            Self::IpForward => {
                "as bridge; rewrites TTL, checksum and MAC addresses instead of swapping them"
            }
            Self::XdpRedirectCpu => "in the kernel, on the forwarder's core (cpumap); no MAC swap",
            Self::XdpRedirect => {
                "in the kernel, ON THE GENERATOR'S CORE, which it slows down; swaps MAC addresses"
            }
        }
    }

    pub(crate) fn supports_two_queues(self) -> bool {
        self != Self::BareLoop
    }

    /// Finds or compiles the program and writes its configuration.
    pub(crate) fn prepare(
        self,
        environment: &Environment,
        queues: u16,
    ) -> Result<PreparedForwarder, MissingReason> {
        let core = environment.core.to_string();
        let prepared = |setup: Vec<String>, command: Option<Vec<String>>| PreparedForwarder {
            kind: self,
            setup,
            command,
        };
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        // Process packets from fwd0 on the forwarder's core. The RPS mask has hexadecimal groups of
        // 32 bits.
        let rps = format!(
            "for q in /sys/class/net/fwd0/queues/rx-*; do echo {:x}{} > $q/rps_cpus; done",
            1u32 << (environment.core % 32),
            ",00000000".repeat(environment.core / 32)
        );
        match self {
            Self::Xdpfwd { io, idle } => {
                let config = environment.scratch.join(format!("{}-{queues}.toml", self.name()));
                let text = xdpfwd_config(io, idle, environment.core, queues);
                fs::write(&config, text)
                    .map_err(|error| format!("cannot write {}: {error}", config.display()))?;
                let (program, config) = (path_text(&environment.xdpfwd), path_text(&config));
                check_config(&environment.xdpfwd, Path::new(&config))
                    .map_err(|reason| format!("xdpfwd rejects io = \"{io}\": {reason}"))?;
                Ok(prepared(
                    vec![],
                    Some(words(&format!("{program} --config {config} --json --interval 1"))),
                ))
            }
            Self::BareLoop => {
                let program = compile(
                    environment,
                    "bare_loop",
                    &["bare_loop.c"],
                    &["-march=native"],
                    &["-lxdp", "-lbpf"],
                )?;
                Ok(prepared(
                    vec![],
                    Some(vec![path_text(&program), "fwd0".into(), "fwd1".into(), core]),
                ))
            }
            Self::Testpmd { busy_poll } => {
                let program = find("dpdk-testpmd", "dpdk-dev")?;
                let budget = if busy_poll { 64 } else { 0 };
                // On a veth, a net_af_xdp device has a single queue, which start_queue selects.
                let devices: Vec<String> = (0..queues)
                    .flat_map(|queue| [(2 * queue, "fwd0", queue), (2 * queue + 1, "fwd1", queue)])
                    .map(|(device, interface, queue)| {
                        format!(
                            "--vdev net_af_xdp{device},iface={interface},start_queue={queue},\
                             queue_count=1,busy_budget={budget}"
                        )
                    })
                    .collect();
                Ok(prepared(
                    vec![],
                    Some(words(&format!(
                        "{program} -l {generator},{core} --main-lcore {generator} --no-huge \
                         -m 1024 --no-pci --no-telemetry --file-prefix xdpfwd-bench-{} {} -- \
                         --forward-mode=macswap --nb-cores=1 --burst=64 --rxd=2048 --txd=2048 \
                         --total-num-mbufs=32768 --no-mlockall --auto-start --stats-period=1",
                        std::process::id(),
                        devices.join(" "),
                        generator = environment.generator,
                    ))),
                ))
            }
            Self::Bridge => Ok(prepared(
                vec![
                    "if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; then \
                     echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables; fi"
                        .into(),
                    "ip link add br0 type bridge stp_state 0 mcast_snooping 0 && \
                     ip link set fwd0 master br0 && ip link set fwd1 master br0"
                        .into(),
                    "bridge fdb replace 02:00:00:00:00:04 dev fwd1 master static && \
                     ip link set br0 up"
                        .into(),
                    rps,
                ],
                None,
            )),
            Self::IpForward => {
                Ok(prepared(ROUTE.into_iter().map(str::to_owned).chain([rps]).collect(), None))
            }
            Self::XdpRedirect => {
                let program = find("xdp-bench", "xdp-tools")?;
                Ok(prepared(vec![], Some(words(&format!("{program} redirect fwd0 fwd1")))))
            }
            Self::XdpRedirectCpu => {
                let program = find("xdp-bench", "xdp-tools")?;
                Ok(prepared(
                    vec![],
                    Some(words(&format!(
                        "{program} redirect-cpu --cpu {core} --program-mode no-touch \
                         --remote-action redirect --redirect-device fwd1 fwd0"
                    ))),
                ))
            }
        }
    }

    /// Returns the traffic to send: the same for all except `IpForward`, a router, which needs its
    /// MAC address as destination.
    pub(crate) fn traffic(self) -> Traffic {
        self.address(Traffic::new())
    }

    /// Changes traffic so that the forwarder passes it on to the sink.
    pub(crate) fn address(self, traffic: Traffic) -> Traffic {
        match self {
            Self::IpForward => routed(traffic),
            _ => traffic,
        }
    }

    /// Returns the interfaces that have an XDP program when the forwarder is ready.
    fn xdp_interfaces(self) -> &'static [&'static str] {
        match self {
            Self::Bridge | Self::IpForward => &[],
            _ if self.uses_packet_sockets() => &[],
            Self::XdpRedirect | Self::XdpRedirectCpu => &["fwd0"],
            _ => &["fwd0", "fwd1"],
        }
    }
}

/// Addresses traffic to a router in the forwarder's namespace, which [`ROUTE`] sets up.
pub(crate) fn routed(traffic: Traffic) -> Traffic {
    traffic.destination_mac(mac(2)).addresses([10, 77, 0, 1].into(), [10, 78, 0, 2].into())
}

/// Shell commands that make the forwarder's namespace a router, with a neighbor behind fwd1 that is
/// the gateway for all addresses. Without the check of the reverse path, packets from any source may
/// arrive on fwd0.
pub(crate) const ROUTE: [&str; 5] = [
    "ip address add 10.77.0.254/24 dev fwd0 && ip address add 10.78.0.254/24 dev fwd1",
    "ip neighbour replace 10.78.0.2 lladdr 02:00:00:00:00:04 dev fwd1 nud permanent",
    "ip route add default via 10.78.0.2 dev fwd1",
    "for i in all fwd0; do echo 0 > /proc/sys/net/ipv4/conf/$i/rp_filter; done",
    "echo 1 > /proc/sys/net/ipv4/ip_forward",
];

impl PreparedForwarder {
    pub(crate) fn command_lines(&self) -> String {
        let mut lines = self.setup.clone();
        lines.extend(self.command.as_ref().map(|words| words.join(" ")));
        lines.join("; ")
    }

    /// Checks that the forwarder starts; otherwise it counts as missing.
    pub(crate) fn check_start(&self) -> Result<(), MissingReason> {
        let start = || -> Result<()> {
            let chain = Chain::builder().build()?;
            let mut running = self.start(&chain)?;
            thread::sleep(FAILURE_TIME);
            running.check()?;
            running.stop().map(drop)
        };
        start().map_err(|error| {
            let reason = brief(&error);
            match self.kind {
                // xdp-tools 1.3 needs the tracepoint xdp_redirect_map_err, which Linux 6.18 lacks.
                ForwarderKind::XdpRedirect | ForwarderKind::XdpRedirectCpu => {
                    format!(
                        "xdp-bench does not load on this kernel ({reason}); build a newer version \
                         from https://github.com/xdp-project/xdp-tools and put it first in PATH"
                    )
                }
                _ => format!("does not start on this machine: {reason}"),
            }
        })
    }

    pub(crate) fn start(&self, chain: &Chain) -> Result<RunningForwarder> {
        for line in &self.setup {
            set_up(chain, line).with_context(|| self.kind.name())?;
        }
        let Some(command) = &self.command else { return Ok(RunningForwarder { forwarder: None }) };
        let mut forwarder = Forwarder::spawn(chain.fwd(), command)?;
        forwarder.wait_for_xdp(chain.fwd(), self.kind.xdp_interfaces(), READY_DEADLINE)?;
        match self.kind {
            ForwarderKind::Xdpfwd { .. } => wait_until_ready(&mut forwarder)?,
            ForwarderKind::Testpmd { .. } => drop(
                forwarder.wait_for_line(READY_DEADLINE, |line| line.contains("NIC statistics"))?,
            ),
            // bare_loop and xdp-bench are ready shortly after attaching their last XDP program,
            // within the warm-up.
            _ => {}
        }
        Ok(RunningForwarder { forwarder: Some(forwarder) })
    }
}

impl RunningForwarder {
    pub(crate) fn check(&mut self) -> Result<()> {
        self.forwarder
            .as_mut()
            .map_or(Ok(()), |forwarder| forwarder.check_running().map_err(Into::into))
    }

    /// Stops the forwarder. Returns the final report if it is xdpfwd.
    pub(crate) fn stop(mut self) -> Result<Option<serde_json::Value>> {
        let Some(forwarder) = &mut self.forwarder else { return Ok(None) };
        forwarder.stop(STOP_DEADLINE)?;
        let report = forwarder.last_line(|line| line.contains(r#""type":"final""#));
        Ok(report.and_then(|line| serde_json::from_str(&line).ok()))
    }
}

/// Runs a shell command in the forwarder's namespace.
pub(crate) fn set_up(chain: &Chain, line: &str) -> Result<()> {
    let output =
        chain.fwd().command("sh").args(["-ec", line]).output().context("cannot start sh")?;
    if !output.status.success() {
        bail!("`{line}`: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Returns the error's first line with "failed", "error" or "cause:", otherwise its last line.
pub(crate) fn brief(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let informative = lines.iter().find(|line| {
        let line = line.to_lowercase();
        line.contains("failed") || line.contains("error") || line.contains("cause:")
    });
    (*informative.or(lines.last()).unwrap_or(&"no reason was printed")).to_owned()
}

/// Checks a configuration. Returns the reason if xdpfwd rejects it, or if the check fails.
pub(crate) fn check_config(xdpfwd: &Path, config: &Path) -> Result<(), MissingReason> {
    match rejection(xdpfwd, config) {
        Ok(None) => Ok(()),
        Ok(Some(reason)) => Err(reason),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// Returns why xdpfwd rejects a configuration, if it does. Fails if xdpfwd cannot check it.
pub(crate) fn rejection(xdpfwd: &Path, config: &Path) -> Result<Option<MissingReason>> {
    let output = Command::new(xdpfwd).arg("--config").arg(config).arg("--check").output();
    let output =
        output.with_context(|| format!("cannot start {}; run: make build", xdpfwd.display()))?;
    if output.status.success() {
        return Ok(None);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let error = stderr.lines().find(|line| !line.contains("warning:"));
    let error = error.with_context(|| {
        format!("{} --check ended with {} and no message", xdpfwd.display(), output.status)
    })?;
    Ok(Some(error.trim_start_matches(&path_text(config)).to_owned()))
}

/// Returns a configuration with which xdpfwd does the work of the bare loop: one core, MAC
/// addresses swapped.
fn xdpfwd_config(io: &str, idle: &str, core: usize, queues: u16) -> String {
    let config = LabConfig {
        core,
        engine: &format!("idle = \"{idle}\""),
        port: &format!("queues = {queues}\nio = \"{io}\""),
        stages: &["swap"],
        both_directions: true,
        tables: "[stage.swap]\nkind = \"mac-swap\"",
    };
    config.to_string()
}

pub(crate) fn compile(
    environment: &Environment,
    name: &str,
    sources: &[&str],
    flags: &[&str],
    libraries: &[&str],
) -> Result<PathBuf, MissingReason> {
    let program = environment.scratch.join(name);
    let sources = sources.iter().map(|source| environment.sources.join(source));
    let output = Command::new("cc")
        .args(["-O3", "-Wall", "-Wextra", "-Werror"])
        .args(flags)
        .args(sources)
        .arg("-o")
        .arg(&program)
        .args(libraries)
        .output()
        .map_err(|error| format!("cannot start cc: {error}; run: apt-get install gcc libc6-dev"))?;
    if output.status.success() {
        return Ok(program);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let reason = stderr
        .lines()
        .find(|line| line.contains("error"))
        .unwrap_or("no reason was printed")
        .to_owned();
    Err(format!(
        "cannot compile {name}: {reason}; if a header is missing, run: \
         apt-get install gcc libxdp-dev libbpf-dev"
    ))
}

/// Finds a program in `PATH`. The error names the Debian package to install.
pub(crate) fn find(program: &str, package: &str) -> Result<String, MissingReason> {
    let path = std::env::var("PATH").unwrap_or_default();
    let directories = path.split(':').chain(["/usr/sbin", "/sbin"]);
    directories
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.is_file())
        .map(|path| path_text(&path))
        .ok_or_else(|| format!("{program} is not installed; run: apt-get install {package}"))
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Returns an environment for tests, in which a program such as `true` takes the place of xdpfwd.
#[cfg(test)]
pub(crate) fn test_environment(xdpfwd: &str, scratch: &Path) -> Environment {
    Environment {
        xdpfwd: xdpfwd.into(),
        sources: Path::new(env!("CARGO_MANIFEST_DIR")).join("peers"),
        scratch: scratch.into(),
        generator: 0,
        core: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarder_names_are_unique() {
        let mut names: Vec<_> = ALL.iter().map(|kind| kind.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn missing_program_error_names_its_package() {
        let missing = find("no-such-program", "dpdk-dev").unwrap_err();
        assert!(
            missing.contains("no-such-program") && missing.contains("apt-get install dpdk-dev")
        );
    }

    #[test]
    fn prepare_with_unsupported_io_returns_error_of_xdpfwd() {
        let scratch =
            std::env::temp_dir().join(format!("xdpfwd-bench-test-{}", std::process::id()));
        fs::create_dir_all(&scratch).unwrap();
        let rejecting_program = scratch.join("rejecting");
        fs::write(
            &rejecting_program,
            "#!/bin/sh\necho \"$2:9:6: io = \\\"x\\\": must be \\\"af_xdp\\\"\" >&2\nexit 2\n",
        )
        .unwrap();
        Command::new("chmod").args(["+x", &path_text(&rejecting_program)]).status().unwrap();
        let environment = Environment {
            xdpfwd: rejecting_program,
            sources: "peers".into(),
            scratch: scratch.clone(),
            generator: 0,
            core: 1,
        };
        let missing = ForwarderKind::Xdpfwd { io: "xsk-rs", idle: "poll" }
            .prepare(&environment, 1)
            .unwrap_err();
        fs::remove_dir_all(&scratch).unwrap();
        assert_eq!(missing, "xdpfwd rejects io = \"xsk-rs\": :9:6: io = \"x\": must be \"af_xdp\"");
    }
}
