// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Two XDP programs that show the minimum cost of dropping packets. `drop_at_once` drops each packet
// without reading it. `look_up_and_drop` first looks up each packet in the same tables as xdpfwd's
// filter. It assumes untagged IPv4 packets without options, and does not check this.

#include <linux/if_ether.h>
#include <linux/ip.h>

#include <bpf/bpf_endian.h>

#include "classify.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps"); /* entry 0: dropped by a rule; 1: dropped without a matching rule */

static __always_inline int drop(__u32 counter)
{
	__u64 *count = bpf_map_lookup_elem(&verdicts, &counter);

	if (count)
		++*count;
	return XDP_DROP;
}

SEC("xdp")
int drop_at_once(struct xdp_md *ctx)
{
	return drop(1);
}

SEC("xdp")
int look_up_and_drop(struct xdp_md *ctx)
{
	const void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct iphdr *ip = data + sizeof(struct ethhdr);
	const __be16 *ports = (void *)(ip + 1);
	struct key_v4 key;
	__u64 has_ports;

	if ((void *)(ports + 2) > end)
		return XDP_PASS;
	/* TCP, UDP, SCTP */
	has_ports = ip->protocol == 6 || ip->protocol == 17 || ip->protocol == 132;
	/* classify.h defines the layout of the key. */
	key.word[0] = (__u64)bpf_ntohl(ip->saddr) << 32 | bpf_ntohl(ip->daddr);
	key.word[1] = (__u64)ip->protocol << 24 | has_ports << 16;
	if (has_ports)
		key.word[1] |= (__u64)bpf_ntohs(ports[0]) << 48 | (__u64)bpf_ntohs(ports[1]) << 32;
	key.word[2] = 0;
	return drop(first_rule_v4(&key, 0) == NO_RULE);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
