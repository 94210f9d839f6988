// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// The XDP program without a filter. Each interface has an instance of the program. See README.md.

#include "redirect.h"

SEC("xdp")
int xdpfwd(struct xdp_md *ctx)
{
	struct counters *count = program_counters();

	if (!count) /* cannot happen: the map has an entry 0 */
		return XDP_PASS;
	return pass_if_kept(ctx, count) ? XDP_PASS : redirect_to_socket(ctx, count);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
