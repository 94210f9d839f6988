//! The kernel functions that decide where a call chain belongs.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::account::Group;

/// Properties of a kernel function that classify the call chains that contain it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Function {
    /// The group of chains in which this is the innermost function with a group.
    pub(crate) group: Option<Group>,
    pub(crate) role: Role,
}

/// The part of a function in a call chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    #[default]
    None,
    /// Runs inside a system call.
    SystemCall,
    /// Runs a softirq of any kind, or is the thread that does.
    Softirq,
    /// Runs the network's softirqs.
    NetworkSoftirq,
    /// The thread of an interface's NAPI, which polls instead of softirqs.
    NapiThread,
    /// Entry of an interrupt.
    Interrupt,
    /// The idle loop of a core.
    IdleLoop,
    /// The poll function of a veth.
    VethPoll,
    /// Delivers a packet to a socket, as the receive work of a port.
    PortReceive,
    /// Frees a socket buffer of the sender, or completes its transmission.
    FreesSent,
    /// A BPF program.
    Bpf,
    /// A BPF program of this crate's user: the receive work of a port.
    PortProgram,
    /// Runs BPF programs that are not XDP programs.
    BpfCaller,
}

/// Function names and what they mean. A name that ends with `*` is a prefix; the longest name that
/// matches decides.
///
/// The names are those of Linux 5.9 to 7.2. A suffix of the compiler (`.isra.0`) and the prefix
/// `__pi_` (code that runs without relocation) are removed before the comparison. Helpers such as
/// locks and clocks are absent, so that their callers decide.
#[rustfmt::skip]
const FUNCTIONS: &[Row] = {
    use Group::*;
    use Role::{BpfCaller, FreesSent, IdleLoop, Interrupt, NapiThread, NetworkSoftirq, PortReceive, Softirq, SystemCall, VethPoll};
    const NONE: Role = Role::None;
    &[
    // The context of the chain.
    ("do_syscall_64",               None, SystemCall),
    ("entry_SYSCALL_64*",           None, SystemCall),
    ("x64_sys_call",                None, SystemCall),
    ("__x64_sys_*",                 None, SystemCall),
    ("handle_softirqs",             None, Softirq),
    ("__do_softirq",                None, Softirq),
    ("run_ksoftirqd",               None, Softirq),
    ("net_rx_action",               Some(NetworkStack), NetworkSoftirq),
    ("net_tx_action",               Some(DriverTransmit), NetworkSoftirq),
    ("napi_threaded_poll*",         Some(NetworkStack), NapiThread),
    ("asm_sysvec_*",                None, Interrupt),
    ("sysvec_*",                    None, Interrupt),
    ("asm_common_interrupt",        None, Interrupt),
    ("common_interrupt*",           None, Interrupt),
    ("do_idle",                     None, IdleLoop),
    ("cpu_startup_entry",           None, IdleLoop),

    // AF_XDP, receiving.
    ("__xsk_rcv*",                  Some(AfXdpReceive), PortReceive),
    ("xsk_rcv*",                    Some(AfXdpReceive), PortReceive),
    ("xsk_generic_rcv",             Some(AfXdpReceive), PortReceive),
    ("xsk_flush",                   Some(AfXdpReceive), PortReceive),
    ("__xsk_map_*",                 Some(AfXdpReceive), PortReceive),
    ("xsk_map_*",                   Some(AfXdpReceive), PortReceive),
    ("xdp_do_redirect",             Some(AfXdpReceive), PortReceive),
    ("__xdp_do_redirect_xsk",       Some(AfXdpReceive), PortReceive),
    ("xdp_do_generic_redirect",     Some(AfXdpReceive), PortReceive),
    ("xdp_do_flush",                Some(AfXdpReceive), PortReceive),
    ("xp_alloc*",                   Some(AfXdpReceive), NONE),
    ("xp_free",                     Some(AfXdpReceive), NONE),
    ("xsk_buff_*",                  Some(AfXdpReceive), NONE),
    ("xsk_recvmsg",                 Some(AfXdpReceive), NONE),
    ("xsk_poll",                    Some(AfXdpReceive), NONE),

    // AF_XDP, transmitting.
    ("xsk_sendmsg",                 Some(AfXdpTransmit), NONE),
    ("__xsk_sendmsg*",              Some(AfXdpTransmit), NONE),
    ("xsk_generic_xmit",            Some(AfXdpTransmit), NONE),
    ("__xsk_generic_xmit",          Some(AfXdpTransmit), NONE),
    ("xsk_build_skb*",              Some(AfXdpTransmit), NONE),
    ("xsk_skb_*",                   Some(AfXdpTransmit), NONE),
    ("xsk_destruct_skb",            Some(AfXdpTransmit), FreesSent),
    ("xsk_consume_skb",             Some(AfXdpTransmit), NONE),
    ("xsk_cq_*",                    Some(AfXdpTransmit), NONE),
    ("xsk_tx_*",                    Some(AfXdpTransmit), NONE),
    ("xsk_wakeup",                  Some(AfXdpTransmit), NONE),
    ("xsk_zc_xmit",                 Some(AfXdpTransmit), NONE),
    ("xskq_*",                      Some(AfXdpTransmit), NONE),
    ("xp_raw_get_*",                Some(AfXdpTransmit), NONE),

    // Packet sockets.
    ("packet_*",                    Some(PacketSocket), NONE),
    ("packet_rcv*",                 Some(PacketSocket), PortReceive),
    ("tpacket_*",                   Some(PacketSocket), NONE),
    ("tpacket_rcv",                 Some(PacketSocket), PortReceive),
    ("tpacket_destruct_skb",        Some(PacketSocket), FreesSent),
    ("__packet_*",                  Some(PacketSocket), NONE),
    ("prb_*",                       Some(PacketSocket), NONE),
    ("fanout_demux*",               Some(PacketSocket), NONE),
    ("___sys_recvmsg",              Some(PacketSocket), NONE),
    ("____sys_recvmsg",             Some(PacketSocket), NONE),
    ("do_recvmmsg",                 Some(PacketSocket), NONE),
    ("___sys_sendmsg",              Some(PacketSocket), NONE),
    ("____sys_sendmsg",             Some(PacketSocket), NONE),
    ("__sys_sendmmsg",              Some(PacketSocket), NONE),

    // Queueing disciplines and drivers, transmitting.
    ("__dev_direct_xmit",           Some(DriverTransmit), NONE),
    ("__dev_queue_xmit",            Some(DriverTransmit), NONE),
    ("__dev_xmit_skb",              Some(DriverTransmit), NONE),
    ("dev_hard_start_xmit",         Some(DriverTransmit), NONE),
    ("sch_direct_xmit",             Some(DriverTransmit), NONE),
    ("__qdisc_run",                 Some(DriverTransmit), NONE),
    ("pfifo_fast_*",                Some(DriverTransmit), NONE),
    ("fq_codel_*",                  Some(DriverTransmit), NONE),
    ("netdev_core_pick_tx",         Some(DriverTransmit), NONE),
    ("netdev_start_xmit",           Some(DriverTransmit), NONE),
    ("netif_skb_features",          Some(DriverTransmit), NONE),
    ("validate_xmit_*",             Some(DriverTransmit), NONE),
    ("start_xmit",                  Some(DriverTransmit), NONE),
    ("veth_xmit",                   Some(DriverTransmit), NONE),
    ("veth_forward_skb",            Some(DriverTransmit), NONE),
    ("veth_ndo_xdp_xmit",           Some(DriverTransmit), NONE),
    ("veth_xdp_xmit",               Some(DriverTransmit), NONE),
    ("veth_xdp_tx*",                Some(DriverTransmit), NONE),
    ("__dev_forward_skb*",          Some(DriverTransmit), NONE),
    ("____dev_forward_skb",         Some(DriverTransmit), NONE),
    ("tun_net_xmit",                Some(DriverTransmit), NONE),
    ("virtnet_xdp_xmit",            Some(DriverTransmit), NONE),
    ("virtnet_xsk_xmit*",           Some(DriverTransmit), NONE),
    ("igb_xmit_*",                  Some(DriverTransmit), NONE),
    ("ice_xmit_*",                  Some(DriverTransmit), NONE),
    ("i40e_xmit_*",                 Some(DriverTransmit), NONE),
    ("ixgbe_xmit_*",                Some(DriverTransmit), NONE),
    ("mlx5e_xmit*",                 Some(DriverTransmit), NONE),
    ("mlx5e_xsk_tx*",               Some(DriverTransmit), NONE),
    ("bq_*",                        Some(DriverTransmit), NONE),
    ("dev_map_enqueue*",            Some(DriverTransmit), NONE),

    // Socket buffers and their memory.
    ("__alloc_skb",                 Some(SocketBuffers), NONE),
    ("alloc_skb_*",                 Some(SocketBuffers), NONE),
    ("build_skb*",                  Some(SocketBuffers), NONE),
    ("__build_skb*",                Some(SocketBuffers), NONE),
    ("napi_alloc_skb",              Some(SocketBuffers), NONE),
    ("napi_build_skb",              Some(SocketBuffers), NONE),
    ("napi_skb_*",                  Some(SocketBuffers), NONE),
    ("napi_consume_skb",            Some(SocketBuffers), NONE),
    ("napi_pp_put_page",            Some(SocketBuffers), NONE),
    ("__napi_build_skb",            Some(SocketBuffers), NONE),
    ("__napi_alloc_skb",            Some(SocketBuffers), NONE),
    ("skb_defer_free_flush",        Some(SocketBuffers), FreesSent),
    ("__napi_kfree_skb*",           Some(SocketBuffers), NONE),
    ("__xdp_build_skb_*",           Some(SocketBuffers), NONE),
    ("xdp_build_skb_*",             Some(SocketBuffers), NONE),
    ("sock_alloc_send_*",           Some(SocketBuffers), NONE),
    ("sock_wfree",                  Some(SocketBuffers), FreesSent),
    ("sock_rfree",                  Some(SocketBuffers), NONE),
    ("__sock_wfree",                Some(SocketBuffers), FreesSent),
    ("skb_release_*",               Some(SocketBuffers), FreesSent),
    ("skb_free_*",                  Some(SocketBuffers), NONE),
    ("skb_clone",                   Some(SocketBuffers), NONE),
    ("__skb_clone",                 Some(SocketBuffers), NONE),
    ("skb_set_owner_w",             Some(SocketBuffers), NONE),
    ("skb_put",                     Some(SocketBuffers), NONE),
    ("skb_push",                    Some(SocketBuffers), NONE),
    ("skb_pull",                    Some(SocketBuffers), NONE),
    ("skb_orphan*",                 Some(SocketBuffers), NONE),
    ("skb_tx_error",                Some(SocketBuffers), NONE),
    ("skb_scrub_packet",            Some(SocketBuffers), NONE),
    ("skb_pp_*",                    Some(SocketBuffers), NONE),
    ("pskb_expand_head",            Some(SocketBuffers), NONE),
    ("kfree_skb*",                  Some(SocketBuffers), NONE),
    ("sk_skb_reason_drop",          Some(SocketBuffers), NONE),
    ("consume_skb",                 Some(SocketBuffers), NONE),
    ("__consume_stateless_skb",     Some(SocketBuffers), NONE),
    ("dev_kfree_skb*",              Some(SocketBuffers), NONE),
    ("kfree_skbmem",                Some(SocketBuffers), FreesSent),
    ("__kfree_skb",                 Some(SocketBuffers), NONE),
    ("kmalloc_reserve",             Some(SocketBuffers), NONE),
    ("kmem_cache_*",                Some(SocketBuffers), NONE),
    ("__kmem_cache_*",              Some(SocketBuffers), NONE),
    ("__kmalloc*",                  Some(SocketBuffers), NONE),
    ("kmalloc_*",                   Some(SocketBuffers), NONE),
    ("kfree",                       Some(SocketBuffers), NONE),
    ("___slab_alloc",               Some(SocketBuffers), NONE),
    ("__slab_alloc*",               Some(SocketBuffers), NONE),
    ("__slab_free",                 Some(SocketBuffers), NONE),
    ("slab_update_freelist",        Some(SocketBuffers), NONE),
    ("__page_frag_*",               Some(SocketBuffers), NONE),
    ("page_frag_*",                 Some(SocketBuffers), NONE),
    ("__napi_alloc_frag_align",     Some(SocketBuffers), NONE),
    ("__page_pool_*",               Some(SocketBuffers), NONE),
    ("page_pool_*",                 Some(SocketBuffers), NONE),
    ("xdp_return_*",                Some(SocketBuffers), NONE),
    ("__xdp_return",                Some(SocketBuffers), NONE),

    // NAPI, drivers' receive functions and protocols.
    ("__napi_poll",                 Some(NetworkStack), NetworkSoftirq),
    ("napi_complete_done",          Some(NetworkStack), NONE),
    ("napi_busy_loop*",             Some(NetworkStack), NONE),
    ("__napi_busy_loop",            Some(NetworkStack), NONE),
    ("veth_poll",                   Some(NetworkStack), VethPoll),
    ("veth_xdp_rcv*",               Some(NetworkStack), NONE),
    ("veth_convert_skb_to_xdp_buff", Some(NetworkStack), NONE),
    ("virtnet_poll*",               Some(NetworkStack), NONE),
    ("virtnet_receive*",            Some(NetworkStack), NONE),
    ("receive_buf",                 Some(NetworkStack), NONE),
    ("igb_poll",                    Some(NetworkStack), NONE),
    ("ice_napi_poll",               Some(NetworkStack), NONE),
    ("ice_clean_*",                 Some(NetworkStack), NONE),
    ("i40e_napi_poll",              Some(NetworkStack), NONE),
    ("i40e_clean_*",                Some(NetworkStack), NONE),
    ("ixgbe_poll",                  Some(NetworkStack), NONE),
    ("ixgbe_clean_*",               Some(NetworkStack), NONE),
    ("mlx5e_napi_poll",             Some(NetworkStack), NONE),
    ("mlx5e_poll_*",                Some(NetworkStack), NONE),
    ("process_backlog",             Some(NetworkStack), NONE),
    ("netif_receive_skb*",          Some(NetworkStack), NONE),
    ("__netif_receive_skb*",        Some(NetworkStack), NONE),
    ("netif_rx*",                   Some(NetworkStack), NONE),
    ("enqueue_to_backlog",          Some(NetworkStack), NONE),
    ("get_rps_cpu",                 Some(NetworkStack), NONE),
    ("do_xdp_generic",              Some(NetworkStack), NONE),
    ("netif_receive_generic_xdp",   Some(NetworkStack), NONE),
    ("bpf_prog_run_generic_xdp",    Some(NetworkStack), NONE),
    ("gro_*",                       Some(NetworkStack), NONE),
    ("napi_gro_*",                  Some(NetworkStack), NONE),
    ("dev_gro_receive",             Some(NetworkStack), NONE),
    ("inet_*",                      Some(NetworkStack), NONE),
    ("inet6_*",                     Some(NetworkStack), NONE),
    ("eth_type_trans",              Some(NetworkStack), NONE),
    ("ip_*",                        Some(NetworkStack), NONE),
    ("__ip_*",                      Some(NetworkStack), NONE),
    ("ip6_*",                       Some(NetworkStack), NONE),
    ("ipv6_*",                      Some(NetworkStack), NONE),
    ("udp_*",                       Some(NetworkStack), NONE),
    ("__udp*",                      Some(NetworkStack), NONE),
    ("tcp_*",                       Some(NetworkStack), NONE),
    ("__tcp_*",                     Some(NetworkStack), NONE),
    ("arp_*",                       Some(NetworkStack), NONE),
    ("icmp*",                       Some(NetworkStack), NONE),
    ("neigh_*",                     Some(NetworkStack), NONE),
    ("fib_*",                       Some(NetworkStack), NONE),
    ("nf_*",                        Some(NetworkStack), NONE),
    ("nft_*",                       Some(NetworkStack), NONE),
    ("bpf_xdp_fib_lookup",          Some(NetworkStack), NONE),
    ("bpf_skb_fib_lookup",          Some(NetworkStack), NONE),
    ("bpf_ipv4_fib_lookup",         Some(NetworkStack), NONE),
    ("bpf_ipv6_fib_lookup",         Some(NetworkStack), NONE),
    ("br_*",                        Some(NetworkStack), NONE),
    ("__skb_flow_dissect",          Some(NetworkStack), NONE),
    ("__skb_get_hash*",             Some(NetworkStack), NONE),

    // BPF programs of other kinds than XDP.
    ("bpf_trace_run*",              Some(Other), BpfCaller),
    ("trace_call_bpf",              Some(Other), BpfCaller),
    ("__bpf_trace_*",               Some(Other), BpfCaller),
    ("__cgroup_bpf_*",              Some(Other), BpfCaller),
    ("__bpf_prog_run_*",            Some(Other), BpfCaller),
    ("bpf_prog_run_clear_cb",       Some(Other), BpfCaller),
    ("cls_bpf_classify",            Some(NetworkStack), BpfCaller),
    ("tcf_classify*",               Some(NetworkStack), BpfCaller),
    ("tcx_run",                     Some(NetworkStack), BpfCaller),
    ("sk_filter_trim_cap",          Some(NetworkStack), BpfCaller),

    // Copies.
    ("memcpy*",                     Some(Copy), NONE),
    ("__memcpy*",                   Some(Copy), NONE),
    ("memmove*",                    Some(Copy), NONE),
    ("__memmove*",                  Some(Copy), NONE),
    ("rep_movs_alternative",        Some(Copy), NONE),
    ("copy_user_*",                 Some(Copy), NONE),
    ("_copy_to_iter",               Some(Copy), NONE),
    ("_copy_from_iter*",            Some(Copy), NONE),
    ("_copy_to_user",               Some(Copy), NONE),
    ("_copy_from_user",             Some(Copy), NONE),
    ("copy_page_*",                 Some(Copy), NONE),
    ("skb_copy_*",                  Some(Copy), NONE),
    ("skb_store_bits",              Some(Copy), NONE),
    ("__skb_datagram_iter",         Some(Copy), NONE),
    ("simple_copy_to_iter",         Some(Copy), NONE),
    ("memcpy_to_page",              Some(Copy), NONE),

    // Waking and switching threads.
    ("schedule*",                   Some(Scheduler), NONE),
    ("__schedule",                  Some(Scheduler), NONE),
    ("preempt_schedule*",           Some(Scheduler), NONE),
    ("__cond_resched",              Some(Scheduler), NONE),
    ("exit_to_user_mode_loop",      Some(Scheduler), NONE),
    ("finish_task_switch",          Some(Scheduler), NONE),
    ("pick_next_*",                 Some(Scheduler), NONE),
    ("__pick_next_*",               Some(Scheduler), NONE),
    ("try_to_wake_up",              Some(Scheduler), NONE),
    ("ttwu_*",                      Some(Scheduler), NONE),
    ("enqueue_task*",               Some(Scheduler), NONE),
    ("dequeue_task*",               Some(Scheduler), NONE),
    ("dequeue_entit*",              Some(Scheduler), NONE),
    ("enqueue_entity",              Some(Scheduler), NONE),
    ("select_task_rq*",             Some(Scheduler), NONE),
    ("update_curr*",                Some(Scheduler), NONE),
    ("__wake_up*",                  Some(Scheduler), NONE),
    ("wake_up_*",                   Some(Scheduler), NONE),
    ("autoremove_wake_function",    Some(Scheduler), NONE),
    ("default_wake_function",       Some(Scheduler), NONE),
    ("ep_poll_callback",            Some(Scheduler), NONE),
    ("sock_def_readable",           Some(Scheduler), NONE),
    ("sock_def_write_space",        Some(Scheduler), NONE),
    ("do_sched_yield",              Some(Scheduler), NONE),
    ("sched_*",                     Some(Scheduler), NONE),
    ("sched_clock*",                None, NONE),
    ("do_nanosleep",                Some(Scheduler), NONE),
    ("hrtimer_nanosleep",           Some(Scheduler), NONE),
    ("poll_schedule_timeout",       Some(Scheduler), NONE),
    ("do_sys_poll",                 Some(Scheduler), NONE),
    ("ep_poll",                     Some(Scheduler), NONE),
    ("do_epoll_wait",               Some(Scheduler), NONE),
    ]
};

type Row = (&'static str, Option<Group>, Role);

/// Returns the rows of the table whose names start with the same byte as `name`. A kernel has
/// 100,000 names; comparing each with the whole table would take half a second.
fn with_same_start(name: &str) -> &'static [Row] {
    static BY_FIRST_BYTE: OnceLock<BTreeMap<u8, Vec<Row>>> = OnceLock::new();
    let table = BY_FIRST_BYTE.get_or_init(|| {
        let mut table: BTreeMap<u8, Vec<Row>> = BTreeMap::new();
        for row in FUNCTIONS {
            table.entry(row.0.as_bytes()[0]).or_default().push(*row);
        }
        table
    });
    name.bytes().next().and_then(|first| table.get(&first)).map_or(&[], Vec::as_slice)
}

impl Function {
    /// Code without a symbol, or a BPF program.
    pub(crate) const BPF: Self = Self { group: Some(Group::XdpProgram), role: Role::Bpf };

    /// Returns what the table knows about a function of the kernel or of a module.
    pub(crate) fn of_kernel(name: &str) -> Self {
        let name = name.strip_prefix("__pi_").unwrap_or(name);
        let name = name.split('.').next().unwrap_or(name);
        let matches = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        };
        // Of patterns of equal length, the one without `*` is the longer name.
        let length = |pattern: &str| {
            pattern.trim_end_matches('*').len() * 2 + usize::from(!pattern.ends_with('*'))
        };
        let (_, group, role) = with_same_start(name)
            .iter()
            .filter(|(pattern, ..)| matches(pattern))
            .max_by_key(|(pattern, ..)| length(pattern))
            .copied()
            .unwrap_or_default();
        Self { group, role }
    }

    /// Returns what the name of a BPF program or trampoline tells. `port_programs` are the names of
    /// the XDP programs that receive for a port.
    pub(crate) fn of_bpf(name: &str, port_programs: &[&str]) -> Self {
        // "bpf_prog_700d0c40b7716728_generate": prefix, tag, name.
        let program = name.strip_prefix("bpf_prog_").and_then(|rest| rest.split_once('_'));
        match program {
            Some((_, program)) if port_programs.contains(&program) => {
                Self { role: Role::PortProgram, ..Self::BPF }
            }
            _ => Self::BPF,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_name_decides_and_suffixes_are_ignored() {
        let group = |name| Function::of_kernel(name).group;
        assert_eq!(group("packet_sendmsg"), Some(Group::PacketSocket));
        assert_eq!(Function::of_kernel("packet_sendmsg").role, Role::None);
        assert_eq!(Function::of_kernel("packet_rcv_fanout").role, Role::PortReceive);
        assert_eq!(group("skb_copy_bits"), Some(Group::Copy));
        assert_eq!(group("slab_update_freelist.isra.0"), Some(Group::SocketBuffers));
        assert_eq!(group("__netif_receive_skb_core.constprop.0"), Some(Group::NetworkStack));
        assert_eq!(group("__pi_memcpy"), Some(Group::Copy));
        assert_eq!(Function::of_kernel("xdp_do_redirect_frame"), Function::default());
        assert_eq!(Function::of_kernel("_raw_spin_lock"), Function::default());
        assert_eq!(Function::of_kernel("do_syscall_64").role, Role::SystemCall);
    }

    #[test]
    fn names_of_the_table_are_distinct() {
        let mut names: Vec<_> = FUNCTIONS.iter().map(|(name, ..)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), FUNCTIONS.len());
    }

    #[test]
    fn program_of_a_port_is_told_from_other_programs() {
        let role = |name| Function::of_bpf(name, &["xdpfwd", "xdpfwd_filter"]).role;
        assert_eq!(role("bpf_prog_700d0c40b7716728_xdpfwd"), Role::PortProgram);
        assert_eq!(role("bpf_prog_700d0c40b7716728_xdpfwd_filter"), Role::PortProgram);
        assert_eq!(role("bpf_prog_700d0c40b7716728_generate"), Role::Bpf);
        assert_eq!(role("bpf_trampoline_6442"), Role::Bpf);
    }
}
