// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// The XDP program of xdpfwd, one instance per interface. See README.md beside this file.

#include "filter.h"
#include "keep.h"

/* The AF_XDP socket that serves each queue of this interface. The loader sets the number of entries. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct counters {
	__u64 redirected; /* given to the AF_XDP socket of the queue */
	__u64 passed;	  /* given to the kernel: no socket serves the queue */
	__u64 kept;	  /* given to the kernel: a rule of `keep` says so */
	__u64 dropped[REASON_MASK + 1]; /* by the filter */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

SEC("xdp")
int xdpfwd(struct xdp_md *ctx)
{
	__u32 zero = 0, queue = ctx->rx_queue_index;
	struct counters *count = bpf_map_lookup_elem(&counters, &zero);
	const struct keep *rules = keep_of_port();
	int action;

	if (!count || !rules) /* never: both maps have an entry 0 */
		return XDP_PASS;
	if (rules->rules && is_kept(ctx, rules)) {
		count->kept++;
		return XDP_PASS;
	}
	/* What no socket would get is not the filter's either. */
	if (filter.present && bpf_map_lookup_elem(&xsks, &queue)) {
		__u32 reason = judge(ctx);

		if (reason < REASONS) {
			barrier_var(reason); /* for the verifier to see the mask */
			count->dropped[reason & REASON_MASK]++;
			return XDP_DROP;
		}
	}
	/* The flags are what is returned if no socket serves the queue, or the queue is beyond the map. */
	action = bpf_redirect_map(&xsks, queue, XDP_PASS);
	if (action == XDP_REDIRECT)
		count->redirected++;
	else
		count->passed++;
	return action;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
