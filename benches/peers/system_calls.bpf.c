// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Counts the system calls of one process: not an XDP program, but one on the tracepoint that each
// system call passes.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC(".rodata.config") const volatile __u32 process;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} calls SEC(".maps");

SEC("raw_tp/sys_enter")
int count(void *ctx)
{
	__u32 zero = 0;
	__u64 *sum;

	if (bpf_get_current_pid_tgid() >> 32 != process)
		return 0;
	sum = bpf_map_lookup_elem(&calls, &zero);
	if (sum)
		++*sum;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
