/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The `keep` rules of a port: frames that match a rule pass to the kernel. Only frames to this host
 * can match. Transit traffic never matches, whatever its TCP or UDP ports. README.md describes the
 * rules.
 */
#ifndef XDPFWD_KEEP_H
#define XDPFWD_KEEP_H

#include <linux/icmpv6.h>

#include "headers.h"

/*
 * Bits of `rules` in `struct keep`, one per kind of rule. crates/engine/src/attach/program.rs,
 * which writes them, has the same constants.
 */
#define KEEP_ARP (1u << 0)
#define KEEP_ND (1u << 1)
#define KEEP_ICMP (1u << 2)
#define KEEP_LOCAL (1u << 3)
#define KEEP_LLDP (1u << 4)
#define KEEP_STP (1u << 5)
#define KEEP_TCP (1u << 6)  /* the ports in `tcp` */
#define KEEP_UDP (1u << 7)  /* the ports in `udp` */
#define KEEP_VLAN (1u << 8) /* the VLANs in `vlan` */

/*
 * Whether the port has `keep` rules. User space sets the value before it loads the program. Without
 * rules, the verifier skips the code below, whose verification takes most of the startup time.
 */
const volatile __u8 has_keep_rules SEC(".rodata.keep") = 0;

struct keep {
	__u64 rules; /* KEEP_… */
	/* Sets of VLANs, TCP ports and UDP ports, with one bit per number. */
	__u64 vlan[4096 / 64];
	__u64 tcp[65536 / 64];
	__u64 udp[65536 / 64];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct keep);
} keep SEC(".maps");

static __always_inline const struct keep *keep_rules(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&keep, &zero);
}

/*
 * The addresses of this host. User space updates these maps, and the loader sets their number of
 * entries. The value of an entry is a set of uses of the address.
 */
#define OWN_DESTINATION (1u << 0) /* packets may have the address as destination */
#define OWN_TARGET (1u << 1)	  /* ARP or Neighbor Discovery may have the address as target */

struct mac {
	__u8 bytes[ETH_ALEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct mac);
	__type(value, __u8);
} own_macs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, __be32);
	__type(value, __u8);
} own_ipv4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct in6_addr);
	__type(value, __u8);
} own_ipv6 SEC(".maps");

/* The VLANs that this host uses on the interface. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8);
} own_vlans SEC(".maps");

/*
 * Datagrams whose first fragment was kept, so that their later fragments, which lack the ports and
 * possibly the protocol, are kept too. A full map evicts the least recently used datagram.
 */
struct datagram {
	struct in6_addr source;
	struct in6_addr destination;
	__u32 ident;
	__u8 fragment_protocol;
	__u8 version;
	__u16 padding;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct datagram);
	__type(value, __u8);
} fragments SEC(".maps");

/*
 * Returns whether the IPv4 options from `offset` to `end` (RFC 791, 3.1) are well-formed and
 * contain no source route. With a source route, the destination address may be that of a router on
 * the way.
 */
static __always_inline bool are_options_valid(const struct frame *frame, __u32 offset, __u32 end)
{
	/* Options have at most 40 bytes in total, so there are at most 40 options. */
	for (int i = 0; i < 40; i++) {
		const __u8 *kind, *length;

		offset = hide_from_verifier(offset);
		if (offset >= end)
			return true;
		kind = bytes_at(frame, offset, 1);
		if (!kind)
			return false;
		switch (*kind) {
		case 0: /* end of options */
			return true;
		case 1: /* no operation */
			offset += 1;
			continue;
		case 131: /* loose source route */
		case 137: /* strict source route */
			return false;
		}
		length = bytes_at(frame, offset + 1, 1);
		if (!length || *length < 2 || offset + *length > end)
			return false;
		offset += *length;
	}
	return offset >= end;
}

static __always_inline bool has_bit(const __u64 *bits, __u32 number)
{
	return bits[number / 64] >> (number % 64) & 1;
}

static __always_inline bool is_own_mac(const void *address)
{
	struct mac mac;

	__builtin_memcpy(&mac, address, sizeof(mac));
	return bpf_map_lookup_elem(&own_macs, &mac);
}

static __always_inline bool is_own_ipv4(const void *address, __u8 use)
{
	const __u8 *uses;
	__be32 ip;

	__builtin_memcpy(&ip, address, sizeof(ip));
	uses = bpf_map_lookup_elem(&own_ipv4, &ip);
	return uses && *uses & use;
}

static __always_inline bool is_own_ipv6(const void *address, __u8 use)
{
	const __u8 *uses;
	struct in6_addr ip;

	__builtin_memcpy(&ip, address, sizeof(ip));
	uses = bpf_map_lookup_elem(&own_ipv6, &ip);
	return uses && *uses & use;
}

static __always_inline bool is_own_vlan(__u32 vlan)
{
	return bpf_map_lookup_elem(&own_vlans, &vlan);
}

/* Returns whether a packet is ARP for IPv4 (RFC 826) with an address of this host as target. */
static __always_inline bool is_own_arp(const struct frame *frame, __u32 l3)
{
	const struct {
		__be16 hardware, protocol;
		__u8 hardware_length, protocol_length;
		__be16 operation;
		__u8 sender_mac[ETH_ALEN];
		__u8 sender_ip[4];
		__u8 target_mac[ETH_ALEN];
		__u8 target_ip[4];
	} *arp = bytes_at(frame, l3, sizeof(*arp));

	return arp && arp->hardware == bpf_htons(1) && arp->protocol == bpf_htons(ETH_P_IP) &&
	       arp->hardware_length == ETH_ALEN && arp->protocol_length == 4 && is_own_ipv4(arp->target_ip, OWN_TARGET);
}

/*
 * Returns whether a packet is Neighbor Discovery (RFC 4861) for this host. The hop limit must be
 * 255, which shows that the packet crossed no router, and the packet must not be a fragment (RFC
 * 6980). The destination must be an address of this host (`to_own`) or a multicast address; with
 * multicast, the target must be an address of this host.
 */
static __always_inline bool is_own_nd(const struct frame *frame, const struct ipv6hdr *ip, const struct upper *upper,
				      bool to_own)
{
	const struct icmp6hdr *icmp = bytes_at(frame, upper->l4, sizeof(*icmp));
	const struct in6_addr *target;

	if (!icmp || upper->l4 + sizeof(*icmp) > upper->end || upper->fragment != WHOLE ||
	    upper->protocol != PROTOCOL_ICMPV6 || ip->hop_limit != 255 || icmp->icmp6_code)
		return false;
	switch (icmp->icmp6_type) {
	case 133: /* router solicitation */
	case 134: /* router advertisement */
	case 137: /* redirect */
		return to_own;
	case 135: /* neighbor solicitation */
	case 136: /* neighbor advertisement */
		if (to_own)
			return true;
		target = bytes_at(frame, upper->l4 + sizeof(*icmp), sizeof(*target));
		return target && upper->l4 + sizeof(*icmp) + sizeof(*target) <= upper->end &&
		       ip->daddr.s6_addr[0] == 0xff && is_own_ipv6(target, OWN_TARGET);
	}
	return false;
}

/* Returns whether the destination port is in the set `ports`. */
static __always_inline bool is_port_kept(const struct frame *frame, const struct upper *upper, const __u64 *ports)
{
	const struct {
		__be16 source, destination;
	} *l4 = bytes_at(frame, upper->l4, sizeof(*l4));

	return l4 && upper->l4 + sizeof(*l4) <= upper->end && has_bit(ports, bpf_ntohs(l4->destination));
}

/*
 * Returns whether a rule `local`, `icmp`, `tcp` or `udp` matches an IP packet to an address of this
 * host. `icmp` is the protocol number of ICMP or ICMPv6. `datagram` contains addresses and version;
 * the function fills in the other fields.
 */
static __always_inline bool is_kept_ip(const struct frame *frame, const struct keep *rules, const struct upper *upper,
				       __u8 icmp, struct datagram *datagram)
{
	const __u8 yes = 1;
	bool kept;

	if (rules->rules & KEEP_LOCAL)
		return true;
	datagram->ident = upper->ident;
	datagram->fragment_protocol = upper->fragment_protocol;
	if (upper->fragment == LATER_FRAGMENT)
		return bpf_map_lookup_elem(&fragments, datagram);
	if (upper->protocol == icmp)
		kept = rules->rules & KEEP_ICMP;
	else if (upper->protocol == IPPROTO_TCP)
		kept = rules->rules & KEEP_TCP && is_port_kept(frame, upper, rules->tcp);
	else if (upper->protocol == IPPROTO_UDP)
		kept = rules->rules & KEEP_UDP && is_port_kept(frame, upper, rules->udp);
	else
		kept = false;
	if (kept && upper->fragment == FIRST_FRAGMENT)
		bpf_map_update_elem(&fragments, datagram, &yes, BPF_ANY);
	return kept;
}

/*
 * is_kept_ipv4 and is_kept_ipv6 return whether a rule keeps an IP packet that starts at offset
 * `l3`. `vlan_kept` states whether a rule names the frame's VLAN. Both are global functions, so the
 * verifier checks them once instead of once per execution path.
 */
__noinline int is_kept_ipv4(struct xdp_md *ctx, __u32 l3, __u32 vlan_kept)
{
	const struct frame frame = whole_frame(ctx);
	const struct keep *rules = keep_rules();
	const struct iphdr *ip;
	struct datagram datagram = { .version = 4 };
	struct upper upper;

	l3 = hide_from_verifier(l3);
	ip = bytes_at(&frame, l3, sizeof(*ip));
	if (!rules || !ip || !is_own_ipv4(&ip->daddr, OWN_DESTINATION) || read_ipv4(&frame, l3, ip, &upper) != PARSED)
		return false;
	if (upper.l4 > l3 + sizeof(*ip) && !are_options_valid(&frame, l3 + sizeof(*ip), upper.l4))
		return false;
	__builtin_memcpy(&datagram.source, &ip->saddr, sizeof(ip->saddr));
	__builtin_memcpy(&datagram.destination, &ip->daddr, sizeof(ip->daddr));
	return vlan_kept || is_kept_ip(&frame, rules, &upper, IPPROTO_ICMP, &datagram);
}

__noinline int is_kept_ipv6(struct xdp_md *ctx, __u32 l3, __u32 vlan_kept)
{
	const struct frame frame = whole_frame(ctx);
	const struct keep *rules = keep_rules();
	const struct ipv6hdr *ip;
	struct datagram datagram = { .version = 6 };
	struct upper upper;
	bool to_own;

	l3 = hide_from_verifier(l3);
	ip = bytes_at(&frame, l3, sizeof(*ip));
	if (!rules || !ip)
		return false;
	to_own = is_own_ipv6(&ip->daddr, OWN_DESTINATION);
	/* Return early for most packets: only packets to this host and multicast can match. */
	if (!to_own && ip->daddr.s6_addr[0] != 0xff)
		return false;
	if (read_ipv6(&frame, l3, ip, &upper) != PARSED || upper.has_segments_left)
		return false;
	if ((vlan_kept || rules->rules & KEEP_ND) && is_own_nd(&frame, ip, &upper, to_own))
		return true;
	if (!to_own)
		return false;
	__builtin_memcpy(&datagram.source, &ip->saddr, sizeof(ip->saddr));
	__builtin_memcpy(&datagram.destination, &ip->daddr, sizeof(ip->daddr));
	return vlan_kept || is_kept_ip(&frame, rules, &upper, PROTOCOL_ICMPV6, &datagram);
}

/*
 * Returns whether a MAC address is in 01:80:c2:00:00:00 … 0f. Bridges do not forward frames to
 * these addresses (IEEE 802.1Q-2018, 8.6.3).
 */
static __always_inline bool is_link_local_group(const __u8 *mac)
{
	return mac[0] == 0x01 && mac[1] == 0x80 && mac[2] == 0xc2 && mac[3] == 0 && mac[4] == 0 && mac[5] <= 0x0f;
}

/* Returns whether a rule of the port passes the frame to the kernel. */
static __always_inline bool is_kept(struct xdp_md *ctx, const struct keep *rules)
{
	const struct frame frame = whole_frame(ctx);
	const struct ethhdr *ethernet = bytes_at(&frame, 0, sizeof(*ethernet));
	const __u8 *llc;
	struct link link;
	bool vlan_kept;

	if (!ethernet || read_link(&frame, &link) != PARSED)
		return false;
	vlan_kept = link.vlan && rules->rules & KEEP_VLAN && has_bit(rules->vlan, link.vlan);
	if (!(ethernet->h_dest[0] & 1)) {
		if (!is_own_mac(ethernet->h_dest))
			return false;
	} else if (link.vlan && !vlan_kept && !is_own_vlan(link.vlan)) {
		/*
		 * Multicast or broadcast in a VLAN that this host does not use. The packet may be
		 * for another host, which has the same IP address in that VLAN.
		 */
		return false;
	}
	switch (link.ethertype) {
	case ETH_P_ARP:
		return (vlan_kept || rules->rules & KEEP_ARP) && is_own_arp(&frame, link.l3);
	case ETH_P_IP:
		return is_kept_ipv4(ctx, link.l3, vlan_kept);
	case ETH_P_IPV6:
		return is_kept_ipv6(ctx, link.l3, vlan_kept);
	}
	/* LLDP and STP frames are untagged, and their destination is a link-local group. */
	if (link.tagged || !is_link_local_group(ethernet->h_dest))
		return false;
	if (link.ethertype == ETH_P_LLDP)
		return rules->rules & KEEP_LLDP;
	if (!(rules->rules & KEEP_STP) || link.ethertype >= ETH_P_802_3_MIN)
		return false;
	llc = bytes_at(&frame, link.l3, 3);
	return llc && llc[0] == 0x42 && llc[1] == 0x42 && llc[2] == 0x03;
}

#endif
