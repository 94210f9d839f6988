//! The parsed configuration: all values, checked for type and range. Names are resolved later.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use xdpfwd_engine::{Io, KeepRule, KernelLedgerMode, Mode, PortLoss, Qdisc};
use xdpfwd_pipeline::Idle;
use xdpfwd_xsk::{HugePages, Umem};

use super::findings::Findings;
use super::table::{ParsedKey, Rule, Table};
use super::words::{is_printable, quoted};

pub(super) struct File<'i> {
    pub(super) engine: EngineTable,
    pub(super) umem: UmemTable,
    pub(super) ports: Tables<PortTable>,
    pub(super) paths: Tables<PathTable>,
    pub(super) stages: Tables<StageTable<'i>>,
    /// The file has no table and no key.
    pub(super) is_empty: bool,
}

/// The TOML tables with one heading, such as `[[port]]`.
pub(super) struct Tables<T> {
    pub(super) tables: Vec<T>,
    /// `false` if a table or its name is invalid. Then names that `tables` lacks must not be
    /// reported as undefined, because the invalid table may define them.
    pub(super) is_complete: bool,
}

/// `[engine]`
pub(super) struct EngineTable {
    pub(super) mode: ParsedKey<Mode>,
    pub(super) cores: ParsedKey<Vec<Spanned<u16>>>,
    pub(super) busy_poll: ParsedKey<bool>,
    pub(super) idle: ParsedKey<Idle>,
    pub(super) ledger: ParsedKey<bool>,
    pub(super) kernel_ledger: ParsedKey<KernelLedgerMode>,
    pub(super) on_port_loss: ParsedKey<PortLoss>,
    pub(super) control: ParsedKey<String>,
}

/// `[umem]`
pub(super) struct UmemTable {
    pub(super) frame_size: ParsedKey<u32>,
    pub(super) frames: ParsedKey<u32>,
    pub(super) huge_pages: ParsedKey<HugePages>,
}

/// `[[port]]`
pub(super) struct PortTable {
    pub(super) span: Range<usize>,
    pub(super) name: ParsedKey<String>,
    pub(super) interface: ParsedKey<String>,
    pub(super) queues: ParsedKey<u16>,
    pub(super) keep: ParsedKey<Vec<Spanned<KeepRule>>>,
    pub(super) promiscuous: ParsedKey<bool>,
    pub(super) io: ParsedKey<Io>,
    pub(super) qdisc: ParsedKey<Qdisc>,
}

/// `[[path]]`
pub(super) struct PathTable {
    pub(super) span: Range<usize>,
    pub(super) from: ParsedKey<String>,
    pub(super) to: ParsedKey<String>,
    pub(super) stages: ParsedKey<Vec<Spanned<String>>>,
}

/// `[stage.NAME]`
pub(super) struct StageTable<'i> {
    pub(super) span: Range<usize>,
    pub(super) name: Spanned<String>,
    /// The value of `kind`, of any type.
    pub(super) kind: Option<Spanned<DeValue<'i>>>,
    /// The remaining keys. `kind` determines which are valid.
    pub(super) kind_keys: Spanned<DeValue<'i>>,
}

const MODES: [(&str, Mode); 4] =
    [("auto", Mode::Auto), ("zero-copy", Mode::ZeroCopy), ("copy", Mode::Copy), ("skb", Mode::Skb)];
const IDLE: [(&str, Idle); 2] = [("poll", Idle::Poll), ("spin", Idle::Spin)];
const KERNEL_LEDGER: [(&str, KernelLedgerMode); 3] = [
    ("off", KernelLedgerMode::Off),
    ("sampled", KernelLedgerMode::Sampled),
    ("exact", KernelLedgerMode::Exact),
];
const PORT_LOSS: [(&str, PortLoss); 2] = [("wait", PortLoss::Wait), ("exit", PortLoss::Exit)];
const HUGE_PAGES: [(&str, HugePages); 3] =
    [("auto", HugePages::Auto), ("on", HugePages::On), ("off", HugePages::Off)];
const IO: [(&str, Io); 5] = [
    ("af_xdp", Io::AfXdp),
    ("packet", Io::Packet),
    ("packet-mmsg", Io::PacketMmsg),
    ("packet-mmap", Io::PacketMmap),
    ("xsk-rs", Io::XskRs),
];
const QDISC: [(&str, Qdisc); 2] = [("bypass", Qdisc::Bypass), ("use", Qdisc::Use)];

/// CONFIG_NR_CPUS is at most 8192 on the architectures that have AF_XDP.
const LAST_CORE: u16 = 8191;

/// Every accepted character is safe in a shell without quotes, because port names are also used on
/// command lines. The name `route` is reserved for routing.
const PORT_NAME: Rule = Rule {
    accepts: |name| is_name(name) && name != "route",
    expected: "a string in quotes, 1 to 32 characters of a-z, A-Z, 0-9, - and _, but not \"route\"",
};

pub(super) const NAME_DESCRIPTION: &str = "1 to 32 characters of a-z, A-Z, 0-9, - and _";

/// Names that the kernel accepts (net/core/dev.c, `dev_valid_name`).
const INTERFACE_NAME: Rule = Rule {
    accepts: |name| {
        // The kernel also accepts most invisible characters, but they have no legitimate use.
        let forbidden =
            |character: char| matches!(character, '/' | ':' | ' ') || !is_printable(character);
        (1..=15).contains(&name.len()) && !matches!(name, "." | "..") && !name.contains(forbidden)
    },
    expected: "the name of an interface in quotes, 1 to 15 printable bytes, none of them `/`, `:` \
               or white space",
};

/// An absolute path that fits into a Unix socket address (unix(7)).
const SOCKET_PATH: Rule = Rule {
    accepts: |path| path.starts_with('/') && path.len() < 108 && !path.contains('\0'),
    expected: "an absolute path in quotes, up to 107 bytes, like \"/run/xdpfwd.sock\"",
};

/// Accepts any string, because the ports are looked up later.
const PORT_REFERENCE: Rule = Rule { accepts: |_| true, expected: "the name of a port in quotes" };

impl<'i> File<'i> {
    pub(super) fn read(root: Spanned<DeTable<'i>>, findings: &mut Findings<'_>) -> Self {
        let mut root = Table::root(root);
        let is_empty = root.is_empty();
        let engine = EngineTable::read(single("[engine]", root.take("engine"), findings), findings);
        let umem = UmemTable::read(single("[umem]", root.take("umem"), findings), findings);
        let mut ports = Tables::read("[[port]]", root.take("port"), PortTable::read, findings);
        ports.is_complete &= ports.tables.iter().all(|port| port.name.value().is_some());
        let mut paths = Tables::read("[[path]]", root.take("path"), PathTable::read, findings);
        let mut stages = StageTable::read_all(root.take("stage"), findings);
        if !root.finish(findings) {
            // The unknown table may be a misspelled `[[port]]`, `[[path]]` or `[stage]`, so each
            // empty list may be incomplete.
            ports.is_complete &= !ports.tables.is_empty();
            paths.is_complete &= !paths.tables.is_empty();
            stages.is_complete &= !stages.tables.is_empty();
        }
        Self { engine, umem, ports, paths, stages, is_empty }
    }
}

impl EngineTable {
    fn read(table: Option<Table<'_>>, findings: &mut Findings<'_>) -> Self {
        let Some(mut table) = table else {
            let (mode, cores, idle, control) =
                (ParsedKey::Absent, ParsedKey::Absent, ParsedKey::Absent, ParsedKey::Absent);
            return Self {
                mode,
                cores,
                busy_poll: ParsedKey::Absent,
                idle,
                ledger: ParsedKey::Absent,
                kernel_ledger: ParsedKey::Absent,
                on_port_loss: ParsedKey::Absent,
                control,
            };
        };
        let engine = Self {
            mode: table.choice("mode", &MODES, findings),
            cores: table.integers("cores", 0..=LAST_CORE, "the number of a core", findings),
            busy_poll: table.boolean("busy_poll", findings),
            idle: table.choice("idle", &IDLE, findings),
            ledger: table.boolean("ledger", findings),
            kernel_ledger: table.choice("kernel_ledger", &KERNEL_LEDGER, findings),
            on_port_loss: table.choice("on_port_loss", &PORT_LOSS, findings),
            control: table.text("control", &SOCKET_PATH, findings),
        };
        table.finish(findings);
        engine
    }
}

impl UmemTable {
    fn read(table: Option<Table<'_>>, findings: &mut Findings<'_>) -> Self {
        let Some(mut table) = table else {
            return Self {
                frame_size: ParsedKey::Absent,
                frames: ParsedKey::Absent,
                huge_pages: ParsedKey::Absent,
            };
        };
        let umem = Self {
            frame_size: table.one_of("frame_size", &[2048, 4096], findings),
            frames: table.integer("frames", Umem::MIN_FRAMES..=Umem::MAX_FRAMES, findings),
            huge_pages: table.choice("huge_pages", &HUGE_PAGES, findings),
        };
        table.finish(findings);
        umem
    }
}

impl PortTable {
    /// Returns whether the port has packet sockets; false if `io` is invalid.
    pub(super) fn uses_packet_sockets(&self) -> bool {
        self.io.or(Io::default()).is_some_and(Io::uses_packet_sockets)
    }

    fn read(mut table: Table<'_>, findings: &mut Findings<'_>) -> Self {
        let port = Self {
            span: table.span(),
            name: table.required_text("name", &PORT_NAME, findings),
            interface: table.required_text("interface", &INTERFACE_NAME, findings),
            queues: table.integer("queues", 1..=u16::MAX, findings),
            keep: table.words("keep", KeepRule::ACCEPTED, findings),
            promiscuous: table.boolean("promiscuous", findings),
            io: table.choice("io", &IO, findings),
            qdisc: table.choice("qdisc", &QDISC, findings),
        };
        table.finish(findings);
        port
    }
}

impl PathTable {
    fn read(mut table: Table<'_>, findings: &mut Findings<'_>) -> Self {
        let path = Self {
            span: table.span(),
            from: table.required_text("from", &PORT_REFERENCE, findings),
            to: table.required_text("to", &PORT_REFERENCE, findings),
            stages: table.texts("stages", "the name of a stage", findings),
        };
        table.finish(findings);
        path
    }
}

impl<'i> StageTable<'i> {
    fn read_all(stages: Option<Spanned<DeValue<'i>>>, findings: &mut Findings<'_>) -> Tables<Self> {
        let mut parsed = Tables { tables: Vec::new(), is_complete: true };
        let Some(stages) = stages else { return parsed };
        let Some(stages) = Table::new("[stage.NAME]", stages, findings) else {
            parsed.is_complete = false;
            return parsed;
        };
        let mut entries: Vec<_> = stages.into_entries().collect();
        if let Some((key, _)) = entries
            .iter()
            .find(|(name, value)| name.get_ref() == "kind" && !value.get_ref().is_table())
        {
            let message = "a stage needs a name: write [stage.NAME] above its keys".to_owned();
            findings.error(&key.span(), message);
            parsed.is_complete = false;
            entries.retain(|(_, value)| value.get_ref().is_table());
        }
        for (name, value) in entries {
            if !is_name(name.get_ref()) {
                let message = format!(
                    "stage {}: its name must be {NAME_DESCRIPTION}",
                    quoted(name.get_ref())
                );
                findings.error(&name.span(), message);
            }
            let Some(mut table) = Table::new("[stage.NAME]", value, findings) else {
                parsed.is_complete = false;
                continue;
            };
            let name = Spanned::new(name.span(), name.into_inner().into_owned());
            let (span, kind) = (table.span(), table.take("kind"));
            parsed.tables.push(Self { span, name, kind, kind_keys: table.into_unread() });
        }
        parsed
    }
}

impl<T> Tables<T> {
    fn read<'i>(
        heading: &str,
        value: Option<Spanned<DeValue<'i>>>,
        read: impl Fn(Table<'i>, &mut Findings<'_>) -> T,
        findings: &mut Findings<'_>,
    ) -> Self {
        let mut parsed = Self { tables: Vec::new(), is_complete: true };
        let Some(value) = value else { return parsed };
        let span = value.span();
        let DeValue::Array(elements) = value.into_inner() else {
            let excerpt = findings.excerpt(&span);
            let message =
                format!("`{excerpt}` is not a list of tables: write {heading} above each table");
            findings.error(&span, message);
            parsed.is_complete = false;
            return parsed;
        };
        for element in elements {
            match Table::new(heading, element, findings) {
                Some(table) => parsed.tables.push(read(table, findings)),
                None => parsed.is_complete = false,
            }
        }
        parsed
    }
}

/// Reads the only table with this heading. Returns `None` if it is missing or invalid.
fn single<'i>(
    heading: &str,
    value: Option<Spanned<DeValue<'i>>>,
    findings: &mut Findings<'_>,
) -> Option<Table<'i>> {
    Table::new(heading, value?, findings)
}

pub(super) fn stage_heading(name: &str) -> String {
    if is_name(name) { format!("[stage.{name}]") } else { format!("[stage.{}]", quoted(name)) }
}

pub(super) fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
