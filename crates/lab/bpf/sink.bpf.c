// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// The sink: counts and drops the generator's frames. `check` also verifies their contents, and
// `latency` records their latencies. All other frames (ARP, ping, …) are counted as foreign and
// passed to the kernel.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "frame.h"

// Written by src/sink.rs before loading: same order, no padding.
struct config {
	__u32 check;    // verify the contents of the generator's frames
	__u32 anything; // count and drop all frames, not only the generator's
	__u32 latency;  // record latencies, from the send time in each counted frame
	__u32 esp;      // count and drop ESP between the addresses instead of the generator's frames
	__u32 source;   // IPv4 addresses in network byte order
	__u32 destination;
};

SEC(".rodata.config") const volatile struct config config;

struct counters {
	__u64 packets;
	__u64 bytes;
	__u64 foreign;
	__u64 corrupt;
	__u64 reordered;
	__u64 duplicates;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

// For each flow, by UDP source port: the highest sequence number received, + 1. Updates are not
// atomic, because only one core at a time receives the frames of a flow, as from a NIC with RSS.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u64);
} flows SEC(".maps");

// A frame uses the slot (sequence number mod WINDOW). A slot holds the sequence number + 1 of the
// frame that used it last. Unlike a bit in a sliding bitmap, a slot identifies a frame: the sink
// finds every duplicate that is less than WINDOW sequence numbers late, and takes no other frame
// for a duplicate. A generator numbers the frames of all its flows in one sequence. So frames of
// different flows share the slots, perhaps on two cores at the same time, and check_sequence
// exchanges the contents of a slot atomically.
#define WINDOW (1 << 18)
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WINDOW);
	__type(key, __u32);
	__type(value, __u64);
} slots SEC(".maps");

// Histogram of frame latencies in nanoseconds, with 32 buckets for each power of two. A time t
// whose highest bit is bit 5 + shift is in bucket 32 * shift + (t >> shift); shift is 0 for t < 64.
// Times of 2^LATENCY_BITS or more are in the last bucket. src/histogram.rs computes the same in
// Rust.
enum { SUB_BITS = 5, LATENCY_BITS = 36, LATENCY_BUCKETS = 1024 };
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LATENCY_BUCKETS);
	__type(key, __u32);
	__type(value, __u64);
} latency SEC(".maps");

// A frame to the port discard with a damaged magic number is corrupt, not foreign. Flows with
// different headers have other ports.
static __always_inline int is_generator_frame(void *data, void *end)
{
	return data + MIN_FRAME <= end && *(packet_u16 *)(data + AT_ETHERTYPE) == bpf_htons(0x0800) &&
	       *(__u8 *)(data + AT_IP) == 0x45 && *(__u8 *)(data + AT_IP_PROTOCOL) == 17 &&
	       (*(packet_u16 *)(data + AT_UDP_DESTINATION) == bpf_htons(DISCARD_PORT) ||
		*(packet_u16 *)(data + AT_MAGIC) == bpf_htons(MAGIC));
}

static __always_inline int is_esp_frame(void *data, void *end)
{
	return data + AT_UDP_SOURCE <= end && *(packet_u16 *)(data + AT_ETHERTYPE) == bpf_htons(0x0800) &&
	       *(__u8 *)(data + AT_IP_PROTOCOL) == 50 &&
	       *(packet_u32 *)(data + AT_IP_SOURCE) == config.source &&
	       *(packet_u32 *)(data + AT_IP_DESTINATION) == config.destination;
}

static __always_inline int is_counted(void *data, void *end)
{
	if (config.anything)
		return 1;
	return config.esp ? is_esp_frame(data, end) : is_generator_frame(data, end);
}

static __always_inline int is_corrupt(void *data, void *end)
{
	__u64 word = PATTERN_STEP;
	__u32 sum = 0;
	void *p;
	int i;

	if (*(packet_u16 *)(data + AT_MAGIC) != bpf_htons(MAGIC) ||
	    bpf_ntohs(*(packet_u16 *)(data + AT_IP_LENGTH)) != (end - data) - AT_IP)
		return 1;
	for (i = 0; i < 10; i++)
		sum += *(packet_u16 *)(data + AT_IP + 2 * i);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	if (sum != 0xffff)
		return 1;
	p = data + AT_PATTERN;
	for (i = 0; i < MAX_PATTERN_WORDS; i++) {
		if (p + 8 > end)
			break;
		if (*(packet_u64 *)p != word)
			return 1;
		word += PATTERN_STEP;
		p += 8;
	}
	for (i = 0; i < 7; i++) {
		if (p + 1 > end)
			break;
		if (*(__u8 *)p != (__u8)word)
			return 1;
		word >>= 8;
		p++;
	}
	return 0;
}

static __always_inline void check_sequence(void *data, struct counters *c)
{
	__u64 sequence = bpf_be64_to_cpu(*(packet_u64 *)(data + AT_SEQUENCE)), *slot, *highest;
	__u32 slot_key = sequence & (WINDOW - 1);
	__u32 flow_key = bpf_ntohs(*(packet_u16 *)(data + AT_UDP_SOURCE));

	slot = bpf_map_lookup_elem(&slots, &slot_key);
	highest = bpf_map_lookup_elem(&flows, &flow_key);
	if (!slot || !highest)
		return;
	// If the slot holds a later frame, keep it: this frame is at least WINDOW sequence numbers late
	// and is checked only for its order.
	if (*(volatile __u64 *)slot <= sequence + 1 && __sync_lock_test_and_set(slot, sequence + 1) == sequence + 1) {
		c->duplicates++;
		return;
	}
	if (sequence + 1 > *highest)
		*highest = sequence + 1;
	else
		c->reordered++;
}

static __always_inline void count_latency(void *data)
{
	__u64 now = bpf_ktime_get_ns(), *count;
	__u64 sent = bpf_be64_to_cpu(*(packet_u64 *)(data + AT_TIME));
	__u64 time = now > sent ? now - sent : 0;
	__u32 shift = 0, step, bucket;

	if (time >> LATENCY_BITS)
		time = (1ULL << LATENCY_BITS) - 1;
	for (step = 16; step; step /= 2)
		if (time >> (SUB_BITS + shift + step))
			shift += step;
	bucket = (shift << SUB_BITS) + (time >> shift);
	count = bpf_map_lookup_elem(&latency, &bucket);
	if (count)
		++*count;
}

SEC("xdp") int sink(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 zero = 0;
	struct counters *c = bpf_map_lookup_elem(&counters, &zero);

	if (!c)
		return XDP_ABORTED;
	if (!is_counted(data, end)) {
		c->foreign++;
		return XDP_PASS;
	}
	c->packets++;
	c->bytes += end - data;
	if (config.latency && data + MIN_FRAME <= end)
		count_latency(data);
	if (!config.check || data + MIN_FRAME > end)
		return XDP_DROP;
	if (is_corrupt(data, end))
		c->corrupt++; // the sequence number may be corrupt too: do not check it
	else
		check_sequence(data, c);
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
