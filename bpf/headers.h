/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Parses headers, with bounds checks. The limits equal those of the user-space parser
 * (crates/wire/src); a test compares both parsers.
 */
#ifndef XDPFWD_HEADERS_H
#define XDPFWD_HEADERS_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_VLAN_TAGS 2
#define MAX_EXTENSION_HEADERS 8

/* Maximum offset in a frame, as a bit mask for the verifier. No UMEM frame is that long. */
#define OFFSET_MASK 0x3fff

#define PROTOCOL_ICMPV6 58
#define PROTOCOL_AH 51
#define EXTENSION_HOP_BY_HOP 0
#define EXTENSION_ROUTING 43
#define EXTENSION_FRAGMENT 44
#define EXTENSION_DESTINATION 60
#define EXTENSION_MOBILITY 135
#define EXTENSION_HIP 139
#define EXTENSION_SHIM6 140

/*
 * The bit of each IPv6 extension header that is parsed, by protocol number; 0 for other protocols.
 * ExtensionHeaders in crates/filter/src/key.rs has the same bits. This is a table instead of a
 * switch: with a switch, the verifier would check the rest of the loop in read_ipv6 separately for
 * each header.
 */
static const volatile __u8 extension_bits[256] = {
	[EXTENSION_HOP_BY_HOP] = 1 << 0,
	[EXTENSION_ROUTING] = 1 << 1,
	[EXTENSION_FRAGMENT] = 1 << 2,
	[PROTOCOL_AH] = 1 << 3,
	[EXTENSION_DESTINATION] = 1 << 4,
	[EXTENSION_MOBILITY] = 1 << 5,
	[EXTENSION_HIP] = 1 << 6,
	[EXTENSION_SHIM6] = 1 << 7,
};

struct frame {
	const void *data;
	const void *end;
};

/* The result of a parser function. The user-space parser distinguishes the same cases. */
enum status {
	PARSED,
	INVALID, /* a header is truncated or malformed */
	TOO_MANY_TAGS, /* more than MAX_VLAN_TAGS */
	TOO_MANY_EXTENSIONS, /* more than MAX_EXTENSION_HEADERS */
};

/* The fields of an Ethernet header with its VLAN tags. */
struct link {
	__u32 l3;	 /* offset of the payload */
	__u16 ethertype; /* a length if below 0x600 */
	/* IDs of the first and second VLAN, or 0. Priority tags (ID 0) are skipped. */
	__u16 vlan, inner_vlan;
	bool tagged; /* true also if all tags are priority tags */
};

enum fragment { WHOLE, FIRST_FRAGMENT, LATER_FRAGMENT };

/* What the IP header, with its options or extension headers, states about its payload. */
struct upper {
	__u32 l4;  /* offset of the IP payload, after options or extension headers */
	__u32 end; /* offset of the end of the IP packet */
	__u32 ident; /* identification of the datagram, in network byte order */
	__u8 protocol; /* of the payload at `l4` */
	__u8 fragment; /* enum fragment */
	/* Protocol in the fragment header. Differs from `protocol` if extension headers follow. */
	__u8 fragment_protocol;
	/* Whether a routing header has segments left: the destination is then not the final one. */
	bool has_segments_left;
	__u8 extensions; /* bits of the IPv6 extension headers, from `extension_bits` */
};

static __always_inline struct frame whole_frame(struct xdp_md *ctx)
{
	return (struct frame){ (void *)(long)ctx->data, (void *)(long)ctx->data_end };
}

/* Returns a pointer to `length` bytes at an offset, or NULL if the frame ends before their end. */
static __always_inline const void *bytes_at(const struct frame *frame, __u32 offset, __u32 length)
{
	const void *start = frame->data + offset;

	return start + length <= frame->end ? start : 0;
}

/*
 * Returns the offset unchanged. The verifier knows only that the result is at most OFFSET_MASK.
 * Otherwise the verifier would check each path through a loop separately. The mask changes no
 * offset: read_ipv6 refuses packets that end after OFFSET_MASK, and no other header is that far
 * from the start of the frame.
 */
static __always_inline __u32 hide_from_verifier(__u32 offset)
{
	asm volatile("" : "+r"(offset));
	return offset & OFFSET_MASK;
}

static __always_inline bool is_vlan(__u16 ethertype)
{
	switch (ethertype) {
	case ETH_P_8021Q:
	case ETH_P_8021AD:
	/* Types of outer tags that switches used before 802.1ad, and still offer. */
	case ETH_P_QINQ1:
	case ETH_P_QINQ2:
	case ETH_P_QINQ3:
		return true;
	}
	return false;
}

/* Parses an Ethernet header and at most MAX_VLAN_TAGS VLAN tags. */
static __always_inline enum status read_link(const struct frame *frame, struct link *link)
{
	const struct ethhdr *ethernet = bytes_at(frame, 0, sizeof(*ethernet));

	if (!ethernet)
		return INVALID;
	*link = (struct link){ .l3 = sizeof(*ethernet), .ethertype = bpf_ntohs(ethernet->h_proto) };
	for (int i = 0; i < MAX_VLAN_TAGS; i++) {
		const struct {
			__be16 control;
			__be16 ethertype;
		} *tag;

		if (!is_vlan(link->ethertype))
			return PARSED;
		tag = bytes_at(frame, link->l3, sizeof(*tag));
		if (!tag)
			return INVALID;
		if (!link->vlan)
			link->vlan = bpf_ntohs(tag->control) & 0x0fff;
		else
			link->inner_vlan = bpf_ntohs(tag->control) & 0x0fff;
		link->tagged = true;
		link->ethertype = bpf_ntohs(tag->ethertype);
		link->l3 += sizeof(*tag);
	}
	return is_vlan(link->ethertype) ? TOO_MANY_TAGS : PARSED;
}

/*
 * Returns the value of a length field in host byte order. Older verifiers, such as that of Linux
 * 6.12, do not know that a byte-swapped 16-bit number is at most 0xffff, so the function masks it.
 * The barrier keeps the compiler from removing the mask as redundant.
 */
static __always_inline __u32 read_length(__be16 field)
{
	__u32 length = bpf_ntohs(field);

	barrier_var(length);
	return length & 0xffff;
}

/* Parses an IPv4 header. Skips its options without checking them. */
static __always_inline enum status read_ipv4(const struct frame *frame, __u32 l3, const struct iphdr *ip, struct upper *upper)
{
	__u32 header = ip->ihl * 4, total = read_length(ip->tot_len);
	__u16 fragment = bpf_ntohs(ip->frag_off);

	if (ip->version != 4 || header < sizeof(*ip) || total < header || frame->data + l3 + total > frame->end)
		return INVALID;
	*upper = (struct upper){
		.l4 = l3 + header,
		.end = l3 + total,
		.ident = ip->id,
		.protocol = ip->protocol,
		.fragment_protocol = ip->protocol,
		.fragment = fragment & 0x1fff ? LATER_FRAGMENT : fragment & 0x2000 ? FIRST_FRAGMENT : WHOLE,
	};
	return PARSED;
}

/*
 * Parses an IPv6 header and at most MAX_EXTENSION_HEADERS extension headers (RFC 8200, section 4).
 */
static __always_inline enum status read_ipv6(const struct frame *frame, __u32 l3, const struct ipv6hdr *ip, struct upper *upper)
{
	__u32 at = l3 + sizeof(*ip), end = at + read_length(ip->payload_len);
	bool has_fragment_header = false;

	if (ip->version != 6 || frame->data + end > frame->end || end > OFFSET_MASK)
		return INVALID;
	*upper = (struct upper){ .end = end, .protocol = ip->nexthdr };
	for (int i = 0; i <= MAX_EXTENSION_HEADERS; i++) {
		const struct {
			__u8 next;
			__u8 length;
			__u8 bytes[2];
			__be32 ident;
		} *header;
		__u8 extension = extension_bits[upper->protocol];
		__u32 length;

		upper->l4 = at = hide_from_verifier(at);
		upper->extensions |= extension;
		if (!extension || upper->fragment == LATER_FRAGMENT)
			return PARSED;
		if (i == MAX_EXTENSION_HEADERS)
			break;
		header = bytes_at(frame, at, sizeof(*header));
		if (!header || at + sizeof(*header) > end)
			return INVALID;
		length = (header->length + 1) * 8;
		switch (upper->protocol) {
		case EXTENSION_HOP_BY_HOP:
			if (i)
				return INVALID;
			break;
		case EXTENSION_ROUTING:
			upper->has_segments_left |= header->bytes[1];
			break;
		case EXTENSION_FRAGMENT:
			if (has_fragment_header)
				return INVALID;
			has_fragment_header = true;
			length = 8;
			upper->ident = header->ident;
			upper->fragment_protocol = header->next;
			if (header->bytes[0] || header->bytes[1] & 0xf8)
				upper->fragment = LATER_FRAGMENT;
			else if (header->bytes[1] & 1)
				upper->fragment = FIRST_FRAGMENT;
			break;
		case PROTOCOL_AH: /* the length field is the header length in units of 4 bytes, minus 2 */
			if (header->length < 1)
				return INVALID;
			length = (header->length + 2) * 4;
			break;
		}
		upper->protocol = header->next;
		at += length;
		if (at > end)
			return INVALID;
	}
	return TOO_MANY_EXTENSIONS;
}

#endif
