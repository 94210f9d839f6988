// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// XDP programs that forward packets within the kernel, from fwd0 to fwd1 of the lab. `redirect`
// sends each packet out of one interface, with new MAC addresses. `redirect_fib` is a router: it
// looks up the route and the neighbor in the kernel's tables, and decrements the TTL. The programs
// whose names end with `_filter` first look up each packet in the same tables as xdpfwd's filter.
// All assume untagged IPv4 packets without options, and pass others to the kernel.

#include <linux/if_ether.h>
#include <linux/ip.h>

#include <bpf/bpf_endian.h>

#include "classify.h"

#define AF_INET 2

struct config {
	__u32 drops; // whether packets that match a rule are dropped; otherwise, they are forwarded
};

SEC(".rodata.config") const volatile struct config config;

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} egress SEC(".maps"); // fwd1, by the number of the interface and, for `redirect`, as entry 0

// The addresses of fwd1 and sink0 (crates/lab).
static const __u8 MAC_ADDRESSES[2 * ETH_ALEN] = {2, 0, 0, 0, 0, 4, 2, 0, 0, 0, 0, 3};

struct packet {
	struct ethhdr *ethernet;
	struct iphdr *ip;
};

static __always_inline bool parse(struct xdp_md *ctx, struct packet *packet)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	packet->ethernet = data;
	packet->ip = data + sizeof(struct ethhdr);
	/* The ports follow the header. */
	return (void *)(packet->ip + 1) + 4 <= end && packet->ethernet->h_proto == bpf_htons(ETH_P_IP) &&
	       packet->ip->ihl == 5;
}

static __always_inline bool is_dropped(const struct packet *packet)
{
	const struct iphdr *ip = packet->ip;
	const __be16 *ports = (void *)(ip + 1);
	struct key_v4 key;
	__u64 has_ports;

	/* TCP, UDP, SCTP */
	has_ports = ip->protocol == 6 || ip->protocol == 17 || ip->protocol == 132;
	/* classify.h defines the layout of the key. */
	key.word[0] = (__u64)bpf_ntohl(ip->saddr) << 32 | bpf_ntohl(ip->daddr);
	key.word[1] = (__u64)ip->protocol << 24 | has_ports << 16;
	if (has_ports)
		key.word[1] |= (__u64)bpf_ntohs(ports[0]) << 48 | (__u64)bpf_ntohs(ports[1]) << 32;
	key.word[2] = 0;
	return first_rule_v4(&key, 0) != NO_RULE && config.drops;
}

static __always_inline int redirect_packet(const struct packet *packet)
{
	__builtin_memcpy(packet->ethernet, MAC_ADDRESSES, sizeof(MAC_ADDRESSES));
	return bpf_redirect_map(&egress, 0, 0);
}

static __always_inline int route_packet(struct xdp_md *ctx, const struct packet *packet)
{
	struct iphdr *ip = packet->ip;
	struct bpf_fib_lookup fib = {
		.family = AF_INET,
		.tos = ip->tos,
		.l4_protocol = ip->protocol,
		.tot_len = bpf_ntohs(ip->tot_len),
		.ipv4_src = ip->saddr,
		.ipv4_dst = ip->daddr,
		.ifindex = ctx->ingress_ifindex,
	};
	__u32 sum;

	if (ip->ttl <= 1 || bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return XDP_PASS;
	/* RFC 1141: the TTL is the upper byte of its word. */
	sum = ip->check + bpf_htons(0x0100);
	ip->check = sum + (sum >= 0xffff);
	ip->ttl--;
	__builtin_memcpy(packet->ethernet->h_dest, fib.dmac, ETH_ALEN);
	__builtin_memcpy(packet->ethernet->h_source, fib.smac, ETH_ALEN);
	return bpf_redirect_map(&egress, fib.ifindex, 0);
}

SEC("xdp")
int redirect(struct xdp_md *ctx)
{
	struct packet packet;

	return parse(ctx, &packet) ? redirect_packet(&packet) : XDP_PASS;
}

SEC("xdp")
int redirect_filter(struct xdp_md *ctx)
{
	struct packet packet;

	if (!parse(ctx, &packet))
		return XDP_PASS;
	return is_dropped(&packet) ? XDP_DROP : redirect_packet(&packet);
}

SEC("xdp")
int redirect_fib(struct xdp_md *ctx)
{
	struct packet packet;

	return parse(ctx, &packet) ? route_packet(ctx, &packet) : XDP_PASS;
}

SEC("xdp")
int redirect_fib_filter(struct xdp_md *ctx)
{
	struct packet packet;

	if (!parse(ctx, &packet))
		return XDP_PASS;
	return is_dropped(&packet) ? XDP_DROP : route_packet(ctx, &packet);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
