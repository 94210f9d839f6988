// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Measures what each core spends its time on (kernel_ledger = "exact"): at every change between
// user space, system call, softirq and thread, adds the time since the last change to an account.
// Not an XDP program; crates/perf loads it.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <stdbool.h>

// The order of Account::ALL in crates/perf/src/account.rs.
enum account { USER, SYSTEM_CALL, SOFTIRQ, FAR_END, IDLE, OTHER, ACCOUNTS };

enum thread { THREAD_OTHER, THREAD_IDLE, THREAD_WORKER, THREAD_NAPI };

// From linux/interrupt.h.
enum { NET_TX_SOFTIRQ = 2, NET_RX_SOFTIRQ = 3 };

// The state of a core. crates/perf/src/exact.rs writes the initial value and reads the sums: same
// order, all members of 64 bits.
struct core {
	__u64 has_worker;
	__u64 only_veths; // the workers transmit only through veths
	__u64 last;       // time of the last change, CLOCK_MONOTONIC in nanoseconds
	__u64 account;    // the account since then
	__u64 events;
	__u64 is_known; // the next three members are valid
	__u64 thread;   // the running thread
	__u64 in_system_call;
	__u64 softirq; // the number of the running softirq + 1, or 0
	__u64 nanoseconds[ACCOUNTS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct core);
} cores SEC(".maps");

// The workers by thread id: whether the worker is in a system call while it does not run.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} workers SEC(".maps");

// The members that the program reads; libbpf finds their offsets in the running kernel.
struct task_struct {
	int pid;
	char comm[16];
} __attribute__((preserve_access_index));

static __always_inline bool is_network(__u64 softirq)
{
	return softirq == NET_TX_SOFTIRQ + 1 || softirq == NET_RX_SOFTIRQ + 1;
}

static __always_inline __u64 current_account(const struct core *core)
{
	if (core->softirq) {
		if (core->thread == THREAD_WORKER && core->in_system_call && core->only_veths &&
		    is_network(core->softirq))
			return FAR_END;
		return core->has_worker || is_network(core->softirq) ? SOFTIRQ : OTHER;
	}
	switch (core->thread) {
	case THREAD_WORKER:
		return core->in_system_call ? SYSTEM_CALL : USER;
	case THREAD_NAPI:
		return SOFTIRQ;
	case THREAD_IDLE:
		return IDLE;
	default:
		return OTHER;
	}
}

static __always_inline __u64 kind_of_thread(__u32 tid)
{
	if (!tid)
		return THREAD_IDLE;
	return bpf_map_lookup_elem(&workers, &tid) ? THREAD_WORKER : THREAD_OTHER;
}

// Returns the core's state before an event. `in_system_call` and `softirq` are used at the first
// event: the state that the event ends.
static __always_inline struct core *before_event(bool in_system_call, __u64 softirq)
{
	__u32 zero = 0;
	struct core *core = bpf_map_lookup_elem(&cores, &zero);

	if (core && !core->is_known) {
		core->is_known = 1;
		core->thread = kind_of_thread((__u32)bpf_get_current_pid_tgid());
		core->in_system_call = in_system_call;
		core->softirq = softirq;
		core->account = current_account(core);
	}
	return core;
}

static __always_inline void after_event(struct core *core)
{
	__u64 now = bpf_ktime_get_ns();

	// An interrupt can run this program inside of itself, and so set a later time.
	if (now > core->last) {
		if (core->account < ACCOUNTS)
			core->nanoseconds[core->account] += now - core->last;
		core->last = now;
	}
	core->account = current_account(core);
	core->events++;
}

SEC("tp_btf/sys_enter")
int on_system_call(void *ctx)
{
	struct core *core = before_event(false, 0);

	if (core) {
		core->in_system_call = 1;
		after_event(core);
	}
	return 0;
}

SEC("tp_btf/sys_exit")
int on_return(void *ctx)
{
	struct core *core = before_event(true, 0);

	if (core) {
		core->in_system_call = 0;
		after_event(core);
	}
	return 0;
}

SEC("tp_btf/softirq_entry")
int on_softirq(__u64 *ctx)
{
	struct core *core = before_event(false, 0);

	if (core) {
		core->softirq = (ctx[0] & 0xff) + 1;
		after_event(core);
	}
	return 0;
}

SEC("tp_btf/softirq_exit")
int on_softirq_end(__u64 *ctx)
{
	struct core *core = before_event(false, (ctx[0] & 0xff) + 1);

	if (core) {
		core->softirq = 0;
		after_event(core);
	}
	return 0;
}

// The arguments are: bool preempt, struct task_struct *prev, struct task_struct *next.
SEC("tp_btf/sched_switch")
int on_switch(__u64 *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx[1];
	struct task_struct *next = (struct task_struct *)ctx[2];
	struct core *core = before_event(true, 0);
	__u32 tid;
	__u64 *in_system_call;

	if (!core)
		return 0;
	tid = prev->pid;
	in_system_call = bpf_map_lookup_elem(&workers, &tid);
	if (in_system_call)
		*in_system_call = core->in_system_call;
	tid = next->pid;
	core->thread = kind_of_thread(tid);
	core->in_system_call = 0;
	if (core->thread == THREAD_WORKER) {
		in_system_call = bpf_map_lookup_elem(&workers, &tid);
		core->in_system_call = in_system_call ? *in_system_call : 0;
	} else if (core->thread == THREAD_OTHER && next->comm[0] == 'n' && next->comm[1] == 'a' &&
		   next->comm[2] == 'p' && next->comm[3] == 'i' && next->comm[4] == '/') {
		core->thread = THREAD_NAPI;
	}
	after_event(core);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
