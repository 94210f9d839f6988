//! Classifies call chains: which account a sample belongs to, and which group.

use crate::account::{Account, Group};
use crate::functions::{Function, Role};
use crate::symbols::Symbols;

/// The thread that a sample interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// A worker.
    Worker,
    /// The idle task of a core, or a thread that this process's PID namespace does not contain: the
    /// kernel reports both as 0.
    Idle,
    /// Any other thread.
    Other,
}

/// The sampled core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    /// The kernel's number.
    pub number: usize,
    /// Whether a worker runs on it.
    pub has_worker: bool,
    /// Whether its workers transmit only through veths: then the softirqs inside their system calls
    /// are the work of the far ends, also where no function in a chain names the veth.
    pub only_veths: bool,
    /// Whether softirqs on this core poll no veth but the other end of a veth that forwarded
    /// packets leave through. Then that work is the far end's, whatever it interrupts: also for
    /// packets that the kernel forwards without a worker. The NAPI threads of ports do not count
    /// as softirqs here.
    ///
    /// Except for the release of the sender's socket buffers: with a NIC, the forwarder does this
    /// work when the transmission completes, so it belongs to [`Account::Softirq`]. Without this
    /// field, it stays with the far end, as in measurements that cannot look into softirqs.
    pub polls_other_end: bool,
}

/// Returns the account and the group of a sample.
///
/// `chain` contains the addresses of a call chain as `perf_event_open` returns it, from the
/// innermost function outwards. Only its kernel addresses count.
pub fn classify(symbols: &Symbols, chain: &[u64], thread: Thread, core: Core) -> (Account, Group) {
    let kernel = chain.iter().filter(|address| is_kernel_code(**address));
    let functions: Vec<Function> = kernel.map(|address| symbols.find(*address)).collect();
    classify_functions(&functions, thread, core)
}

/// Returns whether an entry of a call chain is the address of kernel code. Entries from
/// `PERF_CONTEXT_MAX` (-4095) on only mark the start of user or kernel addresses.
fn is_kernel_code(address: u64) -> bool {
    (1 << 63..-4095_i64 as u64).contains(&address)
}

fn classify_functions(functions: &[Function], thread: Thread, core: Core) -> (Account, Group) {
    let is_softirq = |function: &Function| {
        matches!(function.role, Role::Softirq | Role::NetworkSoftirq | Role::NapiThread)
    };
    // The outermost function of the softirq: what it interrupted comes after it.
    let softirq = functions.iter().rposition(is_softirq);
    let Some(softirq) = softirq else {
        let account = match thread {
            Thread::Worker if functions.is_empty() => Account::User,
            Thread::Worker => Account::SystemCall,
            // Without the idle loop in the chain: a thread of another PID namespace, whose number
            // the kernel reports as 0.
            Thread::Idle
                if has_role(functions, Role::IdleLoop) && !has_role(functions, Role::Interrupt) =>
            {
                Account::Idle
            }
            Thread::Idle | Thread::Other => Account::Other,
        };
        return (account, group(functions));
    };
    let (inner, interrupted) = functions.split_at(softirq + 1);
    let is_receive_of_port =
        has_role(inner, Role::PortReceive) || has_role(inner, Role::PortProgram);
    // `inner` of one function is the softirq itself, before or after its work.
    let is_overhead = has_role(inner, Role::NetworkSoftirq) || inner.len() == 1;
    let is_network = has_role(inner, Role::NetworkSoftirq) || has_role(inner, Role::NapiThread);
    let is_in_system_call = thread == Thread::Worker
        && has_role(interrupted, Role::SystemCall)
        // A softirq after an interrupt is not caused by the system call that was interrupted.
        && !has_role(interrupted, Role::Interrupt);
    let is_far_end_of_worker = is_in_system_call
        && (has_role(inner, Role::VethPoll) || core.only_veths && is_overhead)
        && !is_receive_of_port;
    let is_release = core.polls_other_end && has_role(inner, Role::FreesSent);
    let is_far_end = !is_release
        && (is_far_end_of_worker || core.polls_other_end && is_poll_of_other_end(inner));
    let account = if is_far_end {
        Account::FarEnd
    } else if core.has_worker || is_network {
        Account::Softirq
    } else {
        Account::Other
    };
    (account, group(inner))
}

/// Returns whether a softirq polls a veth, other than in the thread of a port's NAPI. `inner` ends
/// with the outermost function of the softirq.
fn is_poll_of_other_end(inner: &[Function]) -> bool {
    // A NAPI thread runs the softirq of the other end inside, when it has sent packets there.
    let is_softirq = |function: &Function| function.role == Role::Softirq;
    let own = &inner[..inner.iter().position(is_softirq).map_or(0, |position| position + 1)];
    let in_napi_thread = inner.last().is_some_and(|function| function.role == Role::NapiThread);
    has_role(own, Role::VethPoll) || in_napi_thread && !own.is_empty()
}

fn has_role(functions: &[Function], role: Role) -> bool {
    functions.iter().any(|function| function.role == role)
}

/// Returns the group of the innermost function that has one, up to an interrupt: what the interrupt
/// has interrupted does not belong to its work.
fn group(functions: &[Function]) -> Group {
    let end = functions.iter().position(|function| function.role == Role::Interrupt);
    let functions = &functions[..end.unwrap_or(functions.len())];
    let Some(innermost) = functions.iter().position(|function| function.group.is_some()) else {
        return Group::Other;
    };
    let is_bpf = |function: &Function| matches!(function.role, Role::Bpf | Role::PortProgram);
    if is_bpf(&functions[innermost]) {
        // Programs of all kinds look alike; the function that runs the program tells them apart.
        let caller = functions[innermost..]
            .iter()
            .find(|function| !is_bpf(function) && function.group.is_some());
        if let Some(caller) = caller.filter(|caller| caller.role == Role::BpfCaller) {
            return caller.group.unwrap_or(Group::Other);
        }
    }
    functions[innermost].group.unwrap_or(Group::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Call chains recorded with `perf record -e cpu-clock -a -g`, each with the expected result.
    const RECORDED: &str = include_str!("../tests/data/chains.txt");

    const CORE: Core =
        Core { number: 0, has_worker: false, only_veths: false, polls_other_end: false };

    fn function(name: &str) -> Function {
        // A BPF program's name contains its tag; `bpf_prog_test_run_xdp` is a kernel function.
        let tag = name.strip_prefix("bpf_prog_").and_then(|rest| rest.split('_').next());
        if tag.is_some_and(|tag| tag.bytes().all(|digit| digit.is_ascii_hexdigit())) {
            Function::of_bpf(name, &["xdpfwd"])
        } else {
            Function::of_kernel(name)
        }
    }

    /// Each block of the file is a chain: `account group, thread, core`, then a function per
    /// line, from the innermost outwards.
    #[test]
    fn recorded_chains_have_expected_account_and_group() {
        let mut compared = 0;
        for block in RECORDED.split("\n\n").filter(|block| !block.trim().is_empty()) {
            let mut lines = block.lines().filter(|line| !line.starts_with('#')).map(str::trim);
            let Some(head) = lines.next() else { continue };
            let [expected, thread, core] = head.split(", ").collect::<Vec<_>>()[..] else {
                panic!("{head}")
            };
            let functions: Vec<Function> = lines.map(function).collect();
            let thread = match thread {
                "worker" => Thread::Worker,
                "idle" => Thread::Idle,
                "other" => Thread::Other,
                _ => panic!("{head}"),
            };
            let core = Core {
                has_worker: core == "core of a worker" || core == "forwarding core",
                only_veths: true,
                polls_other_end: core == "forwarding core",
                ..CORE
            };
            let (account, group) = classify_functions(&functions, thread, core);
            assert_eq!(format!("{} {}", account.name(), group.name()), expected, "{block}");
            compared += 1;
        }
        assert!(compared >= 30, "{compared}");
    }

    #[test]
    fn classify_ignores_user_addresses_and_markers() {
        let symbols = Symbols::parse("ffffffff81000000 T do_syscall_64\n", &[]).unwrap();
        let (kernel, user) = (-128_i64 as u64, -512_i64 as u64); // PERF_CONTEXT_KERNEL, …_USER
        let account = |chain: &[u64]| classify(&symbols, chain, Thread::Worker, CORE).0;
        assert_eq!(account(&[]), Account::User);
        assert_eq!(account(&[user, 0x7f00_0000_1000]), Account::User);
        assert_eq!(account(&[kernel, 0xffff_ffff_8100_0010]), Account::SystemCall);
    }

    /// Softirq time before and after the poll function belongs to the far end only if all ports are
    /// veths.
    #[test]
    fn softirq_without_poll_function_is_far_end_only_of_veths() {
        let chain = ["net_rx_action", "handle_softirqs", "__dev_direct_xmit", "do_syscall_64"];
        let chain = chain.map(function);
        let account =
            |only_veths| classify_functions(&chain, Thread::Worker, Core { only_veths, ..CORE }).0;
        assert_eq!(account(true), Account::FarEnd);
        assert_eq!(account(false), Account::Softirq);
    }

    /// Every sample has exactly one account, whatever the chain.
    #[test]
    fn chains_of_any_functions_are_classified() {
        let names = [
            "do_syscall_64",
            "handle_softirqs",
            "net_rx_action",
            "asm_sysvec_call_function",
            "veth_poll",
            "__xsk_rcv",
            "bpf_prog_0_xdpfwd",
            "bpf_prog_0_x",
            "bpf_trace_run2",
            "memcpy",
            "unknown",
        ];
        let mut state = 1_u64;
        for length in (0..12).cycle().take(10_000) {
            let functions: Vec<Function> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    function(names[(state >> 33) as usize % names.len()])
                })
                .collect();
            for thread in [Thread::Worker, Thread::Idle, Thread::Other] {
                let (account, _) = classify_functions(&functions, thread, CORE);
                let has_softirq = has_role(&functions, Role::Softirq)
                    || has_role(&functions, Role::NetworkSoftirq);
                match account {
                    Account::User => assert!(functions.is_empty() && thread == Thread::Worker),
                    Account::Softirq => assert!(has_softirq),
                    Account::FarEnd => assert!(has_softirq && thread == Thread::Worker),
                    Account::SystemCall => assert!(!has_softirq && thread == Thread::Worker),
                    Account::Idle => assert!(thread == Thread::Idle),
                    Account::Other => assert!(thread != Thread::Worker || has_softirq),
                }
            }
        }
    }
}
