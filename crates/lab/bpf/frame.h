/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The generator's frame, as both programs see it. src/frame.rs is the same in Rust.
 *
 *   0  Ethernet, 14 bytes
 *  14  IPv4 without options, 20 bytes, header checksum right 34  UDP, 8 bytes: source port 1024 +
 *  flow, destination port 9 (discard), checksum 0 ("none", RFC 768) 42  magic, 2 bytes 44  sequence
 *  number, 8 bytes, big endian: stream << 40 | n 52  time of sending, 8 bytes, big endian:
 *  CLOCK_MONOTONIC in nanoseconds 60  a fixed pattern: 64-bit words in host order, word k is (k +
 *  1) * PATTERN_STEP
 */
#ifndef LAB_FRAME_H
#define LAB_FRAME_H

enum {
	AT_ETHERTYPE = 12,
	AT_IP = 14,
	AT_IP_LENGTH = 16,
	AT_IP_PROTOCOL = 23,
	AT_UDP_SOURCE = 34,
	AT_UDP_DESTINATION = 36,
	AT_MAGIC = 42,
	AT_SEQUENCE = 44,
	AT_TIME = 52,
	AT_PATTERN = 60,
	MIN_FRAME = 60,

	DISCARD_PORT = 9,
	FIRST_FLOW_PORT = 1024,
	/* A veth takes native XDP up to an MTU of about 3500 (one page, without headroom and skb_shared_info). */
	MAX_PATTERN_WORDS = 3600 / 8,
};

#define MAGIC 0x4c42 /* "LB" */
#define PATTERN_STEP 0x9e3779b97f4a7c15ULL
#define STREAM_SHIFT 40

/* Packet data is not aligned, and the compiler must not assume that one type's store can't change another's. */
typedef __u16 __attribute__((aligned(1), may_alias)) any_u16;
typedef __u32 __attribute__((may_alias)) any_u32;
typedef __u64 __attribute__((may_alias)) any_u64;

#endif
