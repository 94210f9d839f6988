// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// The XDP program with a filter, which drops packets before they reach a socket. Each interface has
// an instance of the program. New rules replace the instance. See README.md.

#include "filter.h"
#include "redirect.h"

SEC("xdp")
int xdpfwd(struct xdp_md *ctx)
{
	struct counters *count = program_counters();
	__u32 queue = ctx->rx_queue_index;

	if (!count) /* cannot happen: the map has an entry 0 */
		return XDP_PASS;
	if (pass_if_kept(ctx, count))
		return XDP_PASS;
	/* Filter only packets for a queue with a socket; all others pass to the kernel. */
	if (bpf_map_lookup_elem(&xsks, &queue)) {
		__u32 reason = filter_packet(ctx);

		if (reason < REASONS) {
			barrier_var(reason); /* keeps the compiler from removing the mask, which the verifier needs */
			count->dropped[reason & REASON_MASK]++;
			return XDP_DROP;
		}
	}
	return redirect_to_socket(ctx, count);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
