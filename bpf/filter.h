/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Applies the rules of a filter with `place = "kernel"` before a packet reaches a socket. The
 * verdicts equal those of the user-space stage (crates/stages/src/filter); a test compares them.
 * User space refuses settings that only the user-space stage supports: rate limits, logging, and
 * matching packets inside GTP-U tunnels.
 */
#ifndef XDPFWD_FILTER_H
#define XDPFWD_FILTER_H

#include "classify.h"
#include "headers.h"

/*
 * Drop reasons. crates/stages/src/filter/exception.rs and crates/engine/src/attach/program.rs rely
 * on their order.
 */
enum reason {
	REASON_POLICY,
	REASON_NOT_IP,
	REASON_MALFORMED,
	REASON_VLAN_STACK,
	REASON_EXTENSION_CHAIN,
	REASON_IP_OPTIONS,
	REASON_ROUTING_HEADER,
	REASON_LATER_FRAGMENT,
	REASONS, /* number of reasons */
	ACCEPTED = REASONS,
	REASON_MASK = 7, /* for the verifier; at least REASONS - 1 */
};

/*
 * Actions for packet exceptions: packets that can mislead a filter. Each reason except
 * REASON_POLICY is an exception.
 */
enum exception_action { EXCEPTION_MATCH_RULES, EXCEPTION_ACCEPT, EXCEPTION_DROP, EXCEPTION_ACCEPT_ARP };

/* Maximum number of rules without a verdict (`continue`); user space refuses more such rules. */
#define MAX_CONTINUE_RULES 16

struct filter {
	__u32 rules;	    /* number of rules */
	__u32 accepts;	    /* whether the default action is accept */
	__u32 has_continue; /* whether there are rules without a verdict */
	/* enum exception_action, indexed by enum reason; the element REASON_POLICY is not used. */
	__u32 exception[REASONS];
};

/*
 * The settings of the filter. User space sets them before it loads the program, so the verifier
 * skips code that these settings never reach.
 */
const volatile struct filter filter SEC(".rodata.filter");

/*
 * Constants that the loader compares with `SHARED_CONSTANTS` in
 * crates/filter/src/classifier/image.rs, because both must be equal.
 */
const volatile __u32 in_step[] SEC(".rodata.in_step") = {
	MAX_TUPLES,
	MAX_LINEAR_RULES,
	MAX_BUCKET_LENGTH,
	MAX_GROUPS,
	MAX_CONTINUE_RULES,
	PORT_SETS,
	DECISION_CONTINUE,
	DECISION_ACCEPT,
	DECISION_DROP,
};

/*
 * For each rule, the number of packets that matched it; then the number of packets that got the
 * default action; then, for each exception, the numbers of accepted and of dropped packets. The
 * loader sets the number of entries.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} hits SEC(".maps");

/* Counts a packet for a rule, or for the default action if `rule` is the number of rules. */
static __always_inline void hit(__u32 rule)
{
	__u64 *count = bpf_map_lookup_elem(&hits, &rule);

	if (count)
		++*count;
}

/*
 * Counts a packet with the exception `reason`. Returns ACCEPTED or, if the settings do not accept
 * such packets, the drop reason. `is_arp` states whether the packet is ARP, for
 * EXCEPTION_ACCEPT_ARP.
 */
static __always_inline __u32 exception_result(enum reason reason, bool is_arp)
{
	__u32 action = filter.exception[reason];
	bool accepted = action == EXCEPTION_ACCEPT || (action == EXCEPTION_ACCEPT_ARP && is_arp);

	hit(filter.rules + 1 + 2 * (reason - 1) + !accepted);
	return accepted ? ACCEPTED : reason;
}

/*
 * Bits of the first and of the second key word after the addresses. crates/filter/src/key.rs
 * defines the layout.
 */
#define KIND_PORTS (1ull << 16)
#define KIND_ICMP (2ull << 16)
#define IS_FRAGMENT (1ull << 8)
#define IS_LATER (2ull << 8)

#define HAS_FLAGS (1ull << 8)
#define EXTENSIONS_SHIFT 24
#define VLAN_SHIFT 32
#define INNER_VLAN_SHIFT 48
#define IS_TAGGED (1ull << 12)

/*
 * Writes protocol, fragment state and fields of the upper-layer header to `word`, the two key words
 * after the addresses. Overwrites the first word; adds only the TCP control bits to the second.
 */
static __always_inline enum status read_l4(const struct frame *frame, const struct upper *upper, __u64 *word)
{
	__u32 offset = hide_from_verifier(upper->l4), remaining = upper->end - upper->l4;

	word[0] = (__u64)upper->protocol << 24;
	if (upper->fragment == LATER_FRAGMENT) {
		word[0] |= IS_FRAGMENT | IS_LATER;
		return PARSED;
	}
	if (upper->fragment == FIRST_FRAGMENT)
		word[0] |= IS_FRAGMENT;
	switch (upper->protocol) {
	case IPPROTO_UDP: {
		const struct udphdr *udp = bytes_at(frame, offset, sizeof(*udp));

		if (!udp || remaining < sizeof(*udp) || bpf_ntohs(udp->len) < sizeof(*udp) ||
		    (upper->fragment == WHOLE && remaining < bpf_ntohs(udp->len)))
			return INVALID;
		word[0] |= KIND_PORTS | (__u64)bpf_ntohs(udp->source) << 48 | (__u64)bpf_ntohs(udp->dest) << 32;
		return PARSED;
	}
	case IPPROTO_TCP: {
		const struct tcphdr *tcp = bytes_at(frame, offset, sizeof(*tcp));

		if (!tcp || remaining < sizeof(*tcp) || tcp->doff * 4 < sizeof(*tcp) || remaining < tcp->doff * 4)
			return INVALID;
		word[0] |= KIND_PORTS | (__u64)bpf_ntohs(tcp->source) << 48 | (__u64)bpf_ntohs(tcp->dest) << 32;
		word[1] |= HAS_FLAGS | ((const __u8 *)tcp)[13];
		return PARSED;
	}
	case IPPROTO_SCTP: {
		const struct {
			__be16 source, destination;
			__be32 tag, checksum;
		} *sctp = bytes_at(frame, offset, sizeof(*sctp));

		if (!sctp || remaining < sizeof(*sctp))
			return INVALID;
		word[0] |= KIND_PORTS | (__u64)bpf_ntohs(sctp->source) << 48 | (__u64)bpf_ntohs(sctp->destination) << 32;
		return PARSED;
	}
	case IPPROTO_ICMP:
	case PROTOCOL_ICMPV6: {
		const struct {
			__u8 type, code;
			__be16 checksum;
		} *icmp = bytes_at(frame, offset, sizeof(*icmp));

		if (!icmp || remaining < sizeof(*icmp))
			return INVALID;
		word[0] |= KIND_ICMP | (__u64)icmp->type << 48 | (__u64)icmp->code << 32;
		return PARSED;
	}
	}
	return PARSED;
}

/*
 * Returns ACCEPTED or REASON_POLICY from the calling function: the verdict of the first matching
 * rule with a verdict, or the default action. Counts the packet for this rule or the default
 * action, and for each matching rule without a verdict before. `from` is where the next search
 * starts: the smallest decision (rule number and action, see classify.h) that it may return.
 */
#define APPLY_RULES(first_rule, key)                                  \
	__u32 from = 0;                                               \
                                                                      \
	for (int i = 0; i <= MAX_CONTINUE_RULES; i++) {               \
		__u32 found = first_rule(key, from);                  \
                                                                      \
		if (found == NO_RULE)                                 \
			break;                                        \
		hit(found >> DECISION_BITS);                          \
		switch (found & DECISION_MASK) {                      \
		case DECISION_ACCEPT:                                 \
			return ACCEPTED;                              \
		case DECISION_DROP:                                   \
			return REASON_POLICY;                         \
		}                                                     \
		from = (found | DECISION_MASK) + 1;                   \
		if (!filter.has_continue)                             \
			break;                                        \
	}                                                             \
	hit(filter.rules);                                            \
	return filter.accepts ? ACCEPTED : REASON_POLICY

static __always_inline __u32 apply_rules_v4(const struct key_v4 *key)
{
	APPLY_RULES(first_rule_v4, key);
}

static __always_inline __u32 apply_rules_v6(const struct key_v6 *key)
{
	APPLY_RULES(first_rule_v6, key);
}

/*
 * Returns the drop reason, or ACCEPTED. The IP header starts at offset `l3`. `vlans` contains the
 * VLAN bits of the last key word; all other bits are 0.
 */
static __always_inline __u32 filter_ipv4(struct xdp_md *ctx, __u32 l3, __u64 vlans)
{
	const struct frame frame = whole_frame(ctx);
	struct key_v4 key = {};
	const struct iphdr *ip;
	struct upper upper;

	l3 = hide_from_verifier(l3);
	ip = bytes_at(&frame, l3, sizeof(*ip));
	key.word[2] = vlans;
	if (!ip || read_ipv4(&frame, l3, ip, &upper) != PARSED || read_l4(&frame, &upper, &key.word[1]) != PARSED)
		return exception_result(REASON_MALFORMED, false);
	if (upper.l4 > l3 + sizeof(*ip) && filter.exception[REASON_IP_OPTIONS] != EXCEPTION_MATCH_RULES)
		return exception_result(REASON_IP_OPTIONS, false);
	if (upper.fragment == LATER_FRAGMENT && filter.exception[REASON_LATER_FRAGMENT] != EXCEPTION_MATCH_RULES)
		return exception_result(REASON_LATER_FRAGMENT, false);
	key.word[0] = (__u64)bpf_ntohl(ip->saddr) << 32 | bpf_ntohl(ip->daddr);
	key.word[2] |= (__u64)(ip->tos >> 2) << 16;
	return apply_rules_v4(&key);
}

/* Returns half 0 (upper) or 1 (lower) of an IPv6 address, in host byte order. */
static __always_inline __u64 address_word(const struct in6_addr *address, int half)
{
	return (__u64)bpf_ntohl(address->s6_addr32[2 * half]) << 32 | bpf_ntohl(address->s6_addr32[2 * half + 1]);
}

/*
 * Like filter_ipv4, for IPv6. This is a global function, so the verifier checks it once instead of
 * once per path.
 */
__noinline int filter_ipv6(struct xdp_md *ctx, __u32 l3, __u64 vlans)
{
	const struct frame frame = whole_frame(ctx);
	struct key_v6 key = {};
	const struct ipv6hdr *ip;
	struct upper upper;
	enum status status;

	l3 = hide_from_verifier(l3);
	ip = bytes_at(&frame, l3, sizeof(*ip));
	key.word[5] = vlans;
	status = ip ? read_ipv6(&frame, l3, ip, &upper) : INVALID;
	if (status == TOO_MANY_EXTENSIONS)
		return exception_result(REASON_EXTENSION_CHAIN, false);
	if (status != PARSED || read_l4(&frame, &upper, &key.word[4]) != PARSED)
		return exception_result(REASON_MALFORMED, false);
	if (upper.has_segments_left && filter.exception[REASON_ROUTING_HEADER] != EXCEPTION_MATCH_RULES)
		return exception_result(REASON_ROUTING_HEADER, false);
	if (upper.fragment == LATER_FRAGMENT && filter.exception[REASON_LATER_FRAGMENT] != EXCEPTION_MATCH_RULES)
		return exception_result(REASON_LATER_FRAGMENT, false);
	key.word[0] = address_word(&ip->saddr, 0);
	key.word[1] = address_word(&ip->saddr, 1);
	key.word[2] = address_word(&ip->daddr, 0);
	key.word[3] = address_word(&ip->daddr, 1);
	key.word[5] |= (__u64)upper.extensions << EXTENSIONS_SHIFT;
	/* The DSCP is the upper six bits of the traffic class, which spans the first two bytes. */
	key.word[5] |= (__u64)((ip->priority << 4 | ip->flow_lbl[0] >> 4) >> 2 & 0x3f) << 16;
	return apply_rules_v6(&key);
}

/*
 * Returns the bits of a VLAN for the last key word, not yet shifted by VLAN_SHIFT or
 * INNER_VLAN_SHIFT. Returns 0 if there is no VLAN (`vlan` is 0).
 */
static __always_inline __u64 tag_bits(__u16 vlan)
{
	return vlan ? IS_TAGGED | vlan : 0;
}

/* Returns the drop reason, or ACCEPTED. */
static __always_inline __u32 filter_packet(struct xdp_md *ctx)
{
	const struct frame frame = whole_frame(ctx);
	struct link link;
	__u64 vlans;

	switch (read_link(&frame, &link)) {
	case PARSED:
		break;
	case TOO_MANY_TAGS:
		return exception_result(REASON_VLAN_STACK, false);
	default:
		return exception_result(REASON_MALFORMED, false);
	}
	vlans = tag_bits(link.vlan) << VLAN_SHIFT | tag_bits(link.inner_vlan) << INNER_VLAN_SHIFT;
	switch (link.ethertype) {
	case ETH_P_IP:
		return filter_ipv4(ctx, link.l3, vlans);
	case ETH_P_IPV6:
		return filter_ipv6(ctx, link.l3, vlans);
	}
	return exception_result(REASON_NOT_IP, link.ethertype == ETH_P_ARP);
}

#endif
