/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Code of both XDP programs (*.bpf.c): `keep` rules, redirection to sockets, and counters. */
#ifndef XDPFWD_REDIRECT_H
#define XDPFWD_REDIRECT_H

#include "keep.h"

/* The AF_XDP sockets, indexed by queue of this interface. The loader sets the number of entries. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct counters {
	__u64 redirected; /* to the AF_XDP socket of the queue */
	__u64 passed;	  /* to the kernel, because no socket serves the queue */
	__u64 kept;	  /* to the kernel, because of a `keep` rule */
	__u64 dropped[8]; /* by the filter; indexed by `enum reason` in filter.h */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

static __always_inline struct counters *program_counters(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counters, &zero);
}

/* Returns whether a `keep` rule matches the packet, and counts the packet if so. */
static __always_inline bool pass_if_kept(struct xdp_md *ctx, struct counters *count)
{
	const struct keep *rules;

	if (!has_keep_rules)
		return false;
	rules = keep_rules();
	if (!rules || !rules->rules || !is_kept(ctx, rules))
		return false;
	count->kept++;
	return true;
}

/* Redirects the packet to the socket of its queue or, without a socket, passes it to the kernel. */
static __always_inline int redirect_to_socket(struct xdp_md *ctx, struct counters *count)
{
	/* Returns XDP_PASS if no socket serves the queue, even if the queue is beyond the map. */
	int action = bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);

	if (action == XDP_REDIRECT)
		count->redirected++;
	else
		count->passed++;
	return action;
}

#endif
