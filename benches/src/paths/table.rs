//! The packet paths that the benchmarks compare, and the copies that each makes of a packet.
//! docs/copies.md explains the copies; a test compares that page with this table.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    forwarders::{Environment, MissingReason, check_config},
    lab_config::LabConfig,
};

/// A way of moving packets between the kernel and xdpfwd.
#[derive(Debug)]
pub(crate) struct PacketPath {
    /// The name in tables, raw results and the option `--only`.
    pub(crate) name: &'static str,
    /// The key `io` of both ports.
    pub(crate) io: &'static str,
    /// The key `mode` of the engine; it has no effect on packet sockets.
    pub(crate) mode: &'static str,
    /// The copies of all bytes of a packet between gen0 and sink0, in their order.
    pub(crate) copies: &'static [Copy],
}

/// A copy of all bytes of a packet by a CPU.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) step: Step,
    /// The function that makes the copy.
    pub(crate) function: &'static str,
    /// Its source file, in the kernel or in xdpfwd.
    pub(crate) file: &'static str,
    pub(crate) core: Core,
    pub(crate) caches: Caches,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Between the driver and xdpfwd's frame.
    Receive,
    /// Between xdpfwd's frame and the driver.
    Transmit,
    /// By the interface at the other end of the veth pair: not part of forwarding.
    FarEnd,
}

/// The core that makes the copy in the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    /// The generator's core, which also runs the receive work of fwd0.
    Receiving,
    /// xdpfwd's core, which also runs the receive work of sink0.
    Forwarding,
}

/// Where the memory of a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caches {
    /// A burst of packets that the copying core has just written, and a buffer: in its caches.
    Warm,
    /// The copying core read the source before, but its L2 cache no longer has it.
    Cold,
    /// Another core wrote the source.
    SourceOfOtherCore,
    /// Another core has read the target.
    TargetOfOtherCore,
}

/// The copies that all paths through AF_XDP make, in copy mode and in skb mode.
const AF_XDP: &[Copy] = &[
    Copy {
        step: Step::Receive,
        function: "__xsk_rcv",
        file: "net/xdp/xsk.c",
        core: Core::Receiving,
        caches: Caches::TargetOfOtherCore,
    },
    Copy {
        step: Step::Transmit,
        function: "xsk_build_skb",
        file: "net/xdp/xsk.c",
        core: Core::Forwarding,
        caches: Caches::SourceOfOtherCore,
    },
    FAR_END,
];

/// The copies of packet sockets without rings.
const PACKET_SOCKET: &[Copy] = &[
    Copy {
        step: Step::Receive,
        function: "packet_recvmsg",
        file: "net/packet/af_packet.c",
        core: Core::Forwarding,
        // The generator recycles the pages of its packets and rewrites only their headers. Some
        // 2000 of them are in the socket's buffer.
        caches: Caches::Cold,
    },
    Copy {
        step: Step::Transmit,
        function: "packet_snd",
        file: "net/packet/af_packet.c",
        core: Core::Forwarding,
        caches: Caches::Warm,
    },
    FAR_END,
];

/// The copies of packet sockets with rings. xdpfwd copies between the rings and its frames.
const PACKET_MMAP: &[Copy] = &[
    Copy {
        step: Step::Receive,
        function: "tpacket_rcv",
        file: "net/packet/af_packet.c",
        core: Core::Receiving,
        caches: Caches::TargetOfOtherCore,
    },
    Copy {
        step: Step::Receive,
        function: "copy_out",
        file: "crates/packet/src/rings/memory.rs",
        core: Core::Forwarding,
        caches: Caches::SourceOfOtherCore,
    },
    Copy {
        step: Step::Transmit,
        function: "copy_in",
        file: "crates/packet/src/rings/memory.rs",
        core: Core::Forwarding,
        caches: Caches::Warm,
    },
    // Only over a veth: its other end must not keep the pages of the ring.
    Copy {
        step: Step::FarEnd,
        function: "skb_copy_ubufs",
        file: "net/core/skbuff.c",
        core: Core::Forwarding,
        caches: Caches::Warm,
    },
    FAR_END,
];

/// The sink's end of the veth pair has an XDP program, for which it needs other memory than that of
/// the socket buffer.
const FAR_END: Copy = Copy {
    step: Step::FarEnd,
    function: "skb_pp_cow_data",
    file: "net/core/skbuff.c",
    core: Core::Forwarding,
    caches: Caches::Warm,
};

/// All paths, in the order of the tables. A new path is a new entry.
pub(crate) const PATHS: [PacketPath; 7] = [
    PacketPath { name: "packet", io: "packet", mode: "auto", copies: PACKET_SOCKET },
    PacketPath { name: "packet-mmsg", io: "packet-mmsg", mode: "auto", copies: PACKET_SOCKET },
    PacketPath { name: "packet-mmap", io: "packet-mmap", mode: "auto", copies: PACKET_MMAP },
    PacketPath { name: "af_xdp-skb", io: "af_xdp", mode: "skb", copies: AF_XDP },
    PacketPath { name: "af_xdp-copy", io: "af_xdp", mode: "copy", copies: AF_XDP },
    PacketPath { name: "xsk-rs", io: "xsk-rs", mode: "copy", copies: AF_XDP },
    PacketPath { name: "zero-copy", io: "af_xdp", mode: "zero-copy", copies: &[] },
];

/// Returns the names of all paths.
pub(crate) fn names() -> Vec<&'static str> {
    PATHS.iter().map(|path| path.name).collect()
}

/// A path with its configuration file.
#[derive(Debug)]
pub(crate) struct PreparedPath {
    pub(crate) path: &'static PacketPath,
    pub(crate) config: PathBuf,
    /// Why xdpfwd does not measure the kernel's share, if it does not.
    pub(crate) no_kernel_ledger: Option<MissingReason>,
}

impl PacketPath {
    /// Returns the number of copies in a step.
    pub(crate) fn count(&self, step: Step) -> usize {
        self.copies.iter().filter(|copy| copy.step == step).count()
    }

    /// Writes a configuration that forwards without stages. Fails if xdpfwd or the lab does not
    /// support the path.
    pub(crate) fn prepare(
        &'static self,
        environment: &Environment,
    ) -> Result<PreparedPath, MissingReason> {
        if let Some(reason) = self.unsupported_by_lab() {
            return Err(reason.into());
        }
        let config = environment.scratch.join(format!("path-{}.toml", self.name));
        write(&config, &self.config(environment.core, "kernel_ledger = \"sampled\"\n"))?;
        let no_kernel_ledger = match check_config(&environment.xdpfwd, &config) {
            Ok(()) => None,
            Err(reason) => {
                write(&config, &self.config(environment.core, ""))?;
                check_config(&environment.xdpfwd, &config)?;
                Some(reason)
            }
        };
        Ok(PreparedPath { path: self, config, no_kernel_ledger })
    }

    /// Returns why the lab does not support the path, if it does not.
    pub(crate) fn unsupported_by_lab(&self) -> Option<&'static str> {
        (self.mode == "zero-copy").then_some("veth has no zero-copy")
    }

    fn config(&self, core: usize, kernel_ledger: &str) -> String {
        let both = |lab: LabConfig<'_>| LabConfig { both_directions: true, ..lab }.to_string();
        self.with_config(core, kernel_ledger, both)
    }

    /// Calls `build` with a configuration for this path: ports without stages. `keys` are further
    /// keys of the engine.
    pub(crate) fn with_config<T>(
        &self,
        core: usize,
        keys: &str,
        build: impl FnOnce(LabConfig<'_>) -> T,
    ) -> T {
        let engine = format!(
            "mode = \"{}\"
{keys}",
            self.mode
        );
        let port = format!("io = \"{}\"", self.io);
        build(LabConfig { core, engine: &engine, port: &port, ..LabConfig::default() })
    }
}

fn write(file: &Path, text: &str) -> Result<(), MissingReason> {
    fs::write(file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_names_are_unique() {
        let mut names = names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PATHS.len());
    }

    #[test]
    fn copies_of_table_equal_those_of_documentation() {
        let page = include_str!("../../../docs/copies.md");
        for path in &PATHS {
            let row = page
                .lines()
                .find(|line| line.starts_with(&format!("| `{}` |", path.name)))
                .unwrap_or_else(|| panic!("docs/copies.md has no row for `{}`", path.name));
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            for (cell, step) in [(2, Step::Receive), (3, Step::Transmit)] {
                let count = path.count(step).to_string();
                assert!(cells[cell].starts_with(&count), "{row}: expected {count} for {step:?}");
            }
            for copy in path.copies {
                for name in [copy.function, copy.file] {
                    assert!(page.contains(name), "docs/copies.md lacks {name}");
                }
            }
        }
    }
}
