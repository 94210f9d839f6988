//! Detection of XDP programs and AF_XDP sockets that already use an interface or queue.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process;

use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo, ProgInfoIter};
use libbpf_rs::{Xdp, XdpFlags};

use crate::host::interface::Interface;
use crate::host::link::{Link, Links};

/// An attached XDP program.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttachedProgram {
    /// The port's interface, or a bridge or bond above it. While an interface above has a program,
    /// the kernel attaches none to the port's interface.
    pub interface: String,
    /// Program ID.
    pub id: u32,
    /// Program name, if readable (CAP_SYS_ADMIN).
    pub name: Option<String>,
    /// Attach mode, as in `ip link`: `xdp` (native), `xdpgeneric` or `xdpoffload`.
    pub mode: &'static str,
    /// What keeps the program attached.
    pub holder: AttachmentHolder,
}

/// What keeps an XDP program attached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachmentHolder {
    /// A BPF link that these processes have open. The kernel detaches the program when the last of
    /// them ends.
    Processes(Vec<Process>),
    /// A BPF link that no visible process has open, with the link's ID.
    Link(u32),
    /// Nothing: the program was attached over netlink, and stays until it is explicitly detached.
    /// These processes have the program open and may have attached it.
    Netlink(Vec<Process>),
    /// The holder is not visible to this process.
    Unknown,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Process {
    /// Process ID.
    pub pid: u32,
    /// Name from /proc/PID/comm, up to 15 bytes.
    pub name: String,
    /// Whether no thread is in the network namespace of the calling thread. The process may still
    /// have sockets there.
    pub in_other_namespace: bool,
}

/// The processes that may hold an AF_XDP queue: all other processes that map AF_XDP rings. Only
/// kernels with CONFIG_XDP_SOCKETS_DIAG, which are few, report which process holds a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueHolders {
    /// Those in this thread's network namespace come first.
    pub processes: Vec<Process>,
    /// Whether there may be processes that cannot be inspected.
    pub some_hidden: bool,
}

pub(crate) fn find_attached_program(interface: &Interface) -> Option<AttachedProgram> {
    try_find_attached_program(interface).ok().flatten()
}

/// Like [`find_attached_program`], but fails if the interface cannot be queried.
fn try_find_attached_program(interface: &Interface) -> io::Result<Option<AttachedProgram>> {
    let mut found = query_program(interface.index)?.map(|found| (interface.clone(), found));
    if found.is_none() {
        for above in interfaces_above(interface)? {
            // The upper interface may have been deleted since it was listed.
            if let Ok(Some(program)) = query_program(above.index) {
                found = Some((above, program));
                break;
            }
        }
    }
    Ok(found.map(|(interface, (id, mode))| describe_program(interface, id, mode)))
}

/// Returns the interfaces directly above an interface. The kernel, when it attaches a program,
/// ignores programs further above.
fn interfaces_above(interface: &Interface) -> io::Result<Vec<Interface>> {
    let links = Links::read()?;
    let controller = links.get(interface.index).and_then(|link| link.controller);
    let is_above =
        |link: &&Link| link.lower == Some(interface.index) || controller == Some(link.index);
    let above = links.iter().filter(is_above);
    Ok(above
        .map(|link| Interface {
            name: link.name.clone(),
            link_name: link.name.clone(),
            index: link.index,
        })
        .collect())
}

fn describe_program(interface: Interface, id: u32, mode: &'static str) -> AttachedProgram {
    let name = ProgInfoIter::default().find(|program| program.id == id);
    let name = name.map(|program| program.name.to_string_lossy().into_owned());
    let link = HeldObject::Link { program: id, ifindex: interface.index };
    let holders = processes_holding(|object| object == link);
    let holder = if holders.is_empty() {
        let mut links = LinkInfoIter::default();
        let link = links.find(|link| {
            link.prog_id == id
                && matches!(&link.info, LinkTypeInfo::Xdp(xdp) if xdp.ifindex == interface.index)
        });
        match link {
            Some(link) => AttachmentHolder::Link(link.id),
            // A process that can read the name of a program can also list all links, so no link
            // exists.
            None if name.is_some() => AttachmentHolder::Netlink(processes_holding(
                |object| matches!(object, HeldObject::Program { id: program } if program == id),
            )),
            None => AttachmentHolder::Unknown,
        }
    } else {
        AttachmentHolder::Processes(holders)
    };
    AttachedProgram { interface: interface.name, id, name, mode, holder }
}

/// Returns the XDP program on an interface of this network namespace, or on an interface above it,
/// such as a bridge or bond. Fails if the interface cannot be queried.
pub fn attached_program(interface: &str) -> io::Result<Option<AttachedProgram>> {
    let found = Interface::find(interface, interface).map_err(io::Error::other)?;
    try_find_attached_program(&found)
}

impl AttachedProgram {
    /// Returns the command that detaches the program, or, if the holder is unknown, how to find the
    /// holder.
    pub fn fix(&self) -> String {
        match &self.holder {
            AttachmentHolder::Processes(processes) => {
                let pids: Vec<_> =
                    processes.iter().map(|process| process.pid.to_string()).collect();
                format!("kill {}", pids.join(" "))
            }
            AttachmentHolder::Link(link) => format!("bpftool link detach id {link}"),
            AttachmentHolder::Netlink(_) => {
                format!("ip link set dev {} {} off", self.interface, self.mode)
            }
            AttachmentHolder::Unknown => {
                format!("run as root to see the holder: xdpfwd doctor {}", self.interface)
            }
        }
    }
}

pub(crate) fn find_queue_holders() -> QueueHolders {
    let mut some_hidden = !sees_all_processes();
    let has_rings = |folder: &Path| match fs::read_to_string(folder.join("maps")) {
        Ok(maps) => maps.lines().any(is_af_xdp_ring),
        Err(error) => {
            some_hidden |= error.kind() == io::ErrorKind::PermissionDenied;
            false
        }
    };
    let mut processes: Vec<_> =
        find_processes(has_rings).into_iter().filter(|found| found.pid != process::id()).collect();
    processes.sort_by_key(|process| process.in_other_namespace);
    QueueHolders { processes, some_hidden }
}

/// Returns the ID and the attach mode of the interface's program. Of a native and an offloaded
/// program, returns the native one. A native and a generic program exclude each other.
fn query_program(ifindex: u32) -> io::Result<Option<(u32, &'static str)>> {
    // `Xdp::new` needs a file descriptor, but the query does not use it: pass stdin.
    let stdin = io::stdin();
    let ifindex = i32::try_from(ifindex).map_err(io::Error::other)?;
    let found = Xdp::new(stdin.as_fd()).query(ifindex, XdpFlags::NONE).map_err(io::Error::other)?;
    let modes = [
        (found.drv_prog_id, "xdp"),
        (found.skb_prog_id, "xdpgeneric"),
        (found.hw_prog_id, "xdpoffload"),
    ];
    Ok(modes.into_iter().find(|(id, _)| *id != 0))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeldObject {
    Link { program: u32, ifindex: u32 },
    Program { id: u32 },
}

impl HeldObject {
    /// Parses a file of /proc/PID/fdinfo; `None` unless it describes a BPF program or XDP link.
    fn parse(fdinfo: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut lines = fdinfo.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
        };
        let program = field("prog_id")?.parse().ok()?;
        match field("link_type") {
            Some("xdp") => Some(Self::Link { program, ifindex: field("ifindex")?.parse().ok()? }),
            Some(_) => None,
            None => Some(Self::Program { id: program }),
        }
    }
}

fn processes_holding(is_wanted: impl Fn(HeldObject) -> bool) -> Vec<Process> {
    find_processes(|folder| {
        let files = fs::read_dir(folder.join("fdinfo")).into_iter().flatten().flatten();
        let mut objects =
            files.filter_map(|file| HeldObject::parse(&fs::read_to_string(file.path()).ok()?));
        objects.any(&is_wanted)
    })
}

fn find_processes(mut is_wanted: impl FnMut(&Path) -> bool) -> Vec<Process> {
    let own_namespace = fs::read_link("/proc/thread-self/ns/net").ok();
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let folder = entry.path();
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if !is_wanted(&folder) {
            continue;
        }
        let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
        let name: String =
            name.trim_end().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let threads = fs::read_dir(folder.join("task")).into_iter().flatten().flatten();
        let namespaces =
            threads.filter_map(|thread| fs::read_link(thread.path().join("ns/net")).ok());
        let in_other_namespace = own_namespace.is_some()
            && !namespaces.into_iter().any(|namespace| Some(namespace) == own_namespace);
        processes.push(Process { pid, name, in_other_namespace });
    }
    processes.sort_by_key(|process| process.pid);
    processes
}

/// Returns whether this process is in the initial PID namespace, which contains every process. Its
/// inode is `PROC_PID_INIT_INO`.
fn sees_all_processes() -> bool {
    fs::read_link("/proc/self/ns/pid")
        .is_ok_and(|namespace| namespace.as_os_str() == "pid:[4026531836]")
}

/// Returns whether a line of /proc/PID/maps is the fill or completion ring of an AF_XDP socket.
/// Their file offsets (`XDP_UMEM_PGOFF_FILL_RING`, `XDP_UMEM_PGOFF_COMPLETION_RING`) differ from 0,
/// the offset of AF_PACKET rings.
/// <https://github.com/torvalds/linux/blob/v6.18/include/uapi/linux/if_xdp.h>
fn is_af_xdp_ring(line: &str) -> bool {
    // Fields: addresses, permissions, offset, device, inode, path.
    let mut fields = line.split_whitespace();
    let (offset, path) = (fields.nth(2), fields.nth(2));
    path.is_some_and(|path| path.starts_with("socket:["))
        && matches!(offset, Some("100000000" | "180000000"))
}

pub(crate) fn describe_attached(program: Option<&AttachedProgram>, interface: &str) -> String {
    match program {
        Some(program) => program.to_string(),
        None => format!(
            "an XDP program was attached to it, but is not visible now; \
             try again, and check `ip -d link show dev {interface}`"
        ),
    }
}

impl fmt::Display for AttachedProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, id, name, mode, holder } = self;
        write!(f, "XDP program {id}")?;
        if let Some(name) = name {
            write!(f, " \"{name}\"")?;
        }
        write!(f, " is attached to {interface}, ")?;
        let detach_command = format_args!("`ip link set dev {interface} {mode} off`");
        match holder {
            AttachmentHolder::Processes(processes) => {
                let pids: Vec<_> =
                    processes.iter().map(|process| process.pid.to_string()).collect();
                let (names, pids) = (join(processes), pids.join(" "));
                write!(f, "held by {names}; to detach it, end the holder: `kill {pids}`")
            }
            AttachmentHolder::Link(link) => write!(
                f,
                "through BPF link {link}, which no visible process holds (it is pinned to a file, \
                 or held in another container); detach it: `bpftool link detach id {link}`"
            ),
            AttachmentHolder::Netlink(users) if users.is_empty() => {
                write!(f, "and no process holds it; detach it: {detach_command}")
            }
            AttachmentHolder::Netlink(users) => {
                write!(
                    f,
                    "and stays attached until you detach it: {detach_command}; in use by {}",
                    join(users)
                )
            }
            AttachmentHolder::Unknown => write!(
                f,
                "and its holder is not visible to this process; run as root to see the holder. \
                 If no process holds the program, detach it: {detach_command}"
            ),
        }
    }
}

impl fmt::Display for QueueHolders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const FIND_OWNER: &str =
            "find the owner, if the kernel has CONFIG_XDP_SOCKETS_DIAG: `ss --xdp -p`";
        match &self.processes[..] {
            [] => {
                write!(f, "no other visible process has an AF_XDP socket; {FIND_OWNER}")?;
            }
            [process] => {
                let pid = process.pid;
                write!(
                    f,
                    "the owner is probably {process}, the only other visible process with an \
                     AF_XDP socket; if so, end it: `kill {pid}`"
                )?;
            }
            processes => {
                let names = join(processes);
                write!(f, "these processes have AF_XDP sockets: {names}; {FIND_OWNER}")?;
            }
        }
        if self.some_hidden {
            write!(f, " (some processes are not visible to this process)")?;
        }
        Ok(())
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = if self.in_other_namespace { ", in another network namespace" } else { "" };
        write!(f, "{} (pid {}{namespace})", self.name, self.pid)
    }
}

fn join(processes: &[Process]) -> String {
    processes.iter().map(Process::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, name: &str) -> Process {
        Process { pid, name: name.into(), in_other_namespace: false }
    }

    fn message(holder: AttachmentHolder) -> String {
        let name = Some("filter".into());
        AttachedProgram { interface: "eth1".into(), id: 7, name, mode: "xdpgeneric", holder }
            .to_string()
    }

    #[test]
    fn held_object_parse_accepts_only_xdp_links_and_programs() {
        let link = "pos:\t0\nflags:\t02000000\nmnt_id:\t15\nino:\t9\nlink_type:\txdp\nlink_id:\t3\nprog_tag:\tab\n\
                    prog_id:\t12\nifindex:\t2\n";
        assert_eq!(HeldObject::parse(link), Some(HeldObject::Link { program: 12, ifindex: 2 }));
        assert_eq!(HeldObject::parse(&link.replace("\txdp", "\ttcx")), None);
        let program = "pos:\t0\nflags:\t02000002\nprog_type:\t6\nprog_jited:\t1\nprog_id:\t12\n";
        assert_eq!(HeldObject::parse(program), Some(HeldObject::Program { id: 12 }));
        for other in [
            "",
            "pos:\t0\nmap_type:\t17\nmap_id:\t3\n",
            "prog_id:\tx\n",
            "link_type:\txdp\nprog_id:\t1\n",
        ] {
            assert_eq!(HeldObject::parse(other), None, "{other}");
        }
    }

    #[test]
    fn is_af_xdp_ring_accepts_only_fill_and_completion_rings() {
        let line = |offset: &str, path: &str| {
            format!("7f1c60000000-7f1c60011000 rw-s {offset} 00:08 34567   {path}")
        };
        assert!(is_af_xdp_ring(&line("100000000", "socket:[34567]")));
        assert!(is_af_xdp_ring(&line("180000000", "socket:[34567]")));
        assert!(
            !is_af_xdp_ring(&line("00000000", "socket:[34567]")),
            "AF_PACKET maps its rings at offset 0"
        );
        assert!(!is_af_xdp_ring(&line("100000000", "/tmp/large")));
        assert!(!is_af_xdp_ring("7f1c60000000-7f1c60011000 rw-p 00000000 00:00 0"));
        assert!(!is_af_xdp_ring(""));
    }

    #[test]
    fn attached_program_message_contains_detach_command() {
        let text =
            message(AttachmentHolder::Processes(vec![process(12, "first"), process(34, "second")]));
        assert!(text.starts_with(
            "XDP program 7 \"filter\" is attached to eth1, held by first (pid 12), second (pid 34)"
        ));
        assert!(text.ends_with("`kill 12 34`"), "{text}");
        let detach_command = "`ip link set dev eth1 xdpgeneric off`";
        let text = message(AttachmentHolder::Netlink(vec![]));
        assert!(text.contains("no process holds it") && text.contains(detach_command), "{text}");
        let text = message(AttachmentHolder::Netlink(vec![process(12, "loader")]));
        assert!(
            text.contains("in use by loader (pid 12)") && text.contains(detach_command),
            "{text}"
        );
        let text = message(AttachmentHolder::Link(5));
        assert!(
            text.contains("BPF link 5") && text.contains("`bpftool link detach id 5`"),
            "{text}"
        );
        let text = message(AttachmentHolder::Unknown);
        assert!(
            text.contains("not visible to this process") && text.contains(detach_command),
            "{text}"
        );
        assert!(describe_attached(None, "eth1").contains("try again"));
    }

    #[test]
    fn queue_holders_message_lists_possible_owners() {
        let text = |processes: &[Process], some_hidden| {
            QueueHolders { processes: processes.to_vec(), some_hidden }.to_string()
        };
        let (none_hidden, some_hidden) = (false, true);
        let other = Process { in_other_namespace: true, ..process(9, "b") };
        assert!(
            text(&[process(8, "a")], none_hidden)
                .starts_with("the owner is probably a (pid 8), the only")
        );
        let two_processes = text(&[process(8, "a"), other], none_hidden);
        assert!(
            two_processes.starts_with("these processes have AF_XDP sockets:")
                && two_processes.contains("a (pid 8), b (pid 9, in another network namespace)")
        );
        let no_process = text(&[], some_hidden);
        assert!(no_process.contains("no other visible process"));
        assert!(no_process.ends_with("(some processes are not visible to this process)"));
    }
}
