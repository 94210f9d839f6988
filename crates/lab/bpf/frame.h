/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Layout of the generator's frames. src/frame.rs defines the same layout in Rust.
 *
 *   offset  length  contents
 *        0      14  Ethernet header
 *       14      20  IPv4 header without options, with a valid checksum
 *       34       8  UDP header: source port 1024 + flow, destination port 9 (discard), length,
 *                   checksum 0 ("none", RFC 768). Flows with different headers have other ports
 *                   and addresses
 *       42       2  magic number, "LB"
 *       44       8  sequence number, big endian: number of the generator's run << 40 | frame of the
 *                   run, from 0
 *       52       8  send time, big endian: CLOCK_MONOTONIC in nanoseconds
 *       60       -  fixed pattern up to the end of the frame: 64-bit words in host byte order;
 *                   word k (from 0) is (k + 1) * PATTERN_STEP mod 2^64; the last word may be cut
 */
#ifndef LAB_FRAME_H
#define LAB_FRAME_H

enum {
	AT_ETHERTYPE = 12,
	AT_IP = 14,
	AT_IP_LENGTH = 16,
	AT_IP_PROTOCOL = 23,
	AT_IP_CHECKSUM = 24,
	AT_IP_SOURCE = 26,
	AT_IP_DESTINATION = 30,
	AT_UDP_SOURCE = 34,
	AT_UDP_DESTINATION = 36,
	AT_UDP_LENGTH = 38,
	AT_MAGIC = 42,
	AT_SEQUENCE = 44,
	AT_TIME = 52,
	AT_PATTERN = 60,
	MIN_FRAME = 60,

	DISCARD_PORT = 9,
	FIRST_FLOW_PORT = 1024,
	/* veth supports native XDP up to an MTU of about 3500 bytes: a page, less headroom and
	 * skb_shared_info. */
	MAX_PATTERN_WORDS = 3600 / 8,
};

#define MAGIC 0x4c42 /* "LB" */
#define PATTERN_STEP 0x9e3779b97f4a7c15ULL
#define RUN_SHIFT 40

/*
 * Types for packet data. Accesses through different types may overlap (may_alias); a packet_u16 may
 * be unaligned.
 */
typedef __u16 __attribute__((aligned(1), may_alias)) packet_u16;
typedef __u32 __attribute__((may_alias)) packet_u32;
typedef __u64 __attribute__((may_alias)) packet_u64;

#endif
