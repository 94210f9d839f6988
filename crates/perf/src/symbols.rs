//! The kernel's symbols, reduced to what the classification of call chains needs.

use std::fs;
use std::io;

use crate::functions::{Function, Role};

/// Addresses of the functions that decide where a call chain belongs.
///
/// Reading the symbols needs CAP_SYSLOG or the sysctl `kernel.kptr_restrict` 0, so read them before
/// the process drops its privileges.
#[derive(Clone, Debug)]
pub struct Symbols {
    /// The first address of each range whose functions mean the same, in ascending order.
    ranges: Vec<(u64, Function)>,
}

/// Why the symbols are not available.
#[derive(Debug, thiserror::Error)]
pub enum SymbolError {
    /// The kernel hides all addresses.
    #[error("the kernel hides the addresses of its symbols")]
    Hidden,
    /// The list cannot be read.
    #[error("cannot read /proc/kallsyms: {0}")]
    Io(#[from] io::Error),
}

impl Symbols {
    /// Reads the symbols of the kernel, its modules and loaded BPF programs. `port_programs` are
    /// the names of the XDP programs that deliver packets to the workers.
    pub fn read(port_programs: &[&str]) -> Result<Self, SymbolError> {
        // Symbols of removed modules may contain invalid UTF-8.
        let list = fs::read("/proc/kallsyms")?;
        Self::parse(&String::from_utf8_lossy(&list), port_programs)
    }

    /// Parses a list in the format of /proc/kallsyms: `ffffffff81000000 T _stext`, for a module
    /// `ffffffffc0000000 t name [module]`.
    pub fn parse(list: &str, port_programs: &[&str]) -> Result<Self, SymbolError> {
        let mut found = Vec::new();
        let mut end_of_text = None;
        for line in list.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let Some(address) = u64::from_str_radix(address, 16).ok().filter(|at| *at > 0) else {
                continue;
            };
            let module = words.next();
            match (name, module) {
                ("_etext", None) => end_of_text = Some(address),
                (_, Some("[bpf]")) => {
                    found.push((address, Function::of_bpf(name, port_programs), true));
                }
                (_, module) if matches!(kind, "t" | "T" | "w" | "W") => {
                    found.push((address, Function::of_kernel(name), module.is_some()));
                }
                _ => {}
            }
        }
        if found.is_empty() {
            return Err(SymbolError::Hidden);
        }
        if let Some(end) = end_of_text {
            // The kernel frees the code of its initialization, which follows, and may load BPF
            // programs there, or list none (sysctl net.core.bpf_jit_kallsyms).
            found.retain(|(address, _, is_loaded)| *is_loaded || *address < end);
            found.push((end, Function::BPF, true));
        }
        // Of several names of one address, a name that the table knows decides.
        found.sort_by_key(|(address, function, _)| (*address, *function == Function::default()));
        found.dedup_by_key(|(address, ..)| *address);
        let mut ranges: Vec<(u64, Function)> = Vec::new();
        for (address, function, _) in found {
            if ranges.last().is_none_or(|(_, previous)| *previous != function) {
                ranges.push((address, function));
            }
        }
        Ok(Self { ranges })
    }

    /// Returns what is known about the function that contains an address.
    pub(crate) fn find(&self, address: u64) -> Function {
        let next = self.ranges.partition_point(|(start, _)| *start <= address);
        next.checked_sub(1).map_or(Function::default(), |index| self.ranges[index].1)
    }

    /// Returns whether the list contains a function that runs softirqs, without which no chain can
    /// be classified.
    pub(crate) fn has_softirqs(&self) -> bool {
        self.ranges.iter().any(|(_, function)| function.role == Role::Softirq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Group;

    const LIST: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000100 T do_syscall_64
ffffffff81000200 t handle_softirqs
ffffffff81000300 T unknown_function
ffffffff81000400 T __memcpy
ffffffff81000400 W memcpy
ffffffff81000480 D data_in_text
ffffffff81000500 T _etext
ffffffff82000000 t packet_init
ffffffffc0000000 t veth_poll	[veth]
ffffffffc0001000 t bpf_prog_0123456789abcdef_xdpfwd	[bpf]
ffffffffc0002000 t bpf_prog_0123456789abcdef_other	[bpf]
";

    fn symbols() -> Symbols {
        Symbols::parse(LIST, &["xdpfwd"]).unwrap()
    }

    #[test]
    fn address_belongs_to_the_function_before_it() {
        let symbols = symbols();
        let role = |address| symbols.find(address).role;
        assert_eq!(role(0xffff_ffff_8100_00ff), Role::None);
        assert_eq!(role(0xffff_ffff_8100_0100), Role::SystemCall);
        assert_eq!(role(0xffff_ffff_8100_02ff), Role::Softirq);
        assert_eq!(role(0xffff_ffff_8100_0300), Role::None);
        assert_eq!(role(0xffff_ffff_c000_0fff), Role::VethPoll);
        assert_eq!(role(0xffff_ffff_c000_1000), Role::PortProgram);
        assert_eq!(role(0xffff_ffff_c000_2000), Role::Bpf);
        assert_eq!(symbols.find(0).role, Role::None);
        assert_eq!(symbols.find(0xffff_ffff_8100_04a0).group, Some(Group::Copy));
    }

    #[test]
    fn address_after_the_kernel_is_bpf_and_not_freed_initialization() {
        let symbols = symbols();
        assert_eq!(symbols.find(0xffff_ffff_8100_0500), Function::BPF);
        assert_eq!(symbols.find(0xffff_ffff_8200_0010), Function::BPF);
    }

    #[test]
    fn list_of_zeros_is_hidden() {
        let zeros = "0000000000000000 T _stext\n0000000000000000 t veth_poll [veth]\n";
        assert!(matches!(Symbols::parse(zeros, &[]), Err(SymbolError::Hidden)));
        assert!(matches!(Symbols::parse("", &[]), Err(SymbolError::Hidden)));
    }

    #[test]
    fn invalid_lines_are_skipped() {
        let list = format!("\u{fffd} x\nzz T a\n1 T\nffff T\n{LIST}");
        assert_eq!(Symbols::parse(&list, &["xdpfwd"]).unwrap().ranges, symbols().ranges);
    }

    #[test]
    fn symbols_of_this_kernel_have_softirqs_or_are_hidden() {
        match Symbols::read(&[]) {
            Ok(symbols) => assert!(symbols.has_softirqs()),
            Err(error) => assert!(matches!(error, SymbolError::Hidden), "{error}"),
        }
    }
}
