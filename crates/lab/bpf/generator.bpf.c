// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// The traffic generator. It is not attached to an interface: user space runs it through
// BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES. The kernel calls the program once per frame,
// on one core, and recycles the frames' pages. To send the frame, the program returns the return
// code of bpf_redirect. While no frame may be sent, it returns XDP_DROP, and the frame's page
// returns to the page pool.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <stdbool.h>
#include "frame.h"

enum { HEADER_WORDS = 5, FRACTION_BITS = 12, MAX_SIZES = 16 };

// One of the frame lengths: what differs from the longest frame, which is that of the test run.
struct length {
	__u32 cut; // bytes to remove from the end
	__u16 ip_length, ip_checksum, udp_length; // big endian
	__u16 unused;
};

// Written by src/traffic.rs before loading: same order, no padding.
struct config {
	__u64 header[HEADER_WORDS]; // bytes 0–39 of the frame
	__u64 interval;             // nanoseconds between frames, << FRACTION_BITS; 0: as fast as possible
	__u64 backlog;              // maximum lag behind the schedule, nanoseconds, << FRACTION_BITS
	__u64 limit;                // number of frames to send; 0: no limit
	__u64 first_sequence;
	__u32 header_tail;          // bytes 40–43 of the frame: UDP checksum, magic number
	__u32 flows;
	__u32 ifindex;
	__u32 on_grant; // send at most `granted` frames in total
	__u32 sizes;    // used entries of `lengths`; frame n has entry n mod sizes
	__u32 has_headers; // flow n has the addresses and ports of entry n of `packets`
	struct length lengths[MAX_SIZES];
};

SEC(".rodata.config") const volatile struct config config;

// Not atomic, because the program runs on only one core. Times without a unit are CLOCK_MONOTONIC
// in nanoseconds.
struct state {
	__u64 sent;  // number of frames
	__u64 first; // send time of the first frame
	__u64 last;  // send time of the last frame
	__u64 start; // start of the schedule
	__u64 due;   // time from `start` to the next frame, nanoseconds, << FRACTION_BITS
	__u64 flow;  // flow of the next frame; in `flood` and `inject`, next index in `packets`
	__u64 size;  // entry of `lengths` for the next frame
};

SEC(".data.state") struct state state = {};

// Total frames that may be sent. User space writes it while the program runs.
SEC(".data.grant") volatile __u64 granted = 0;

// The header fields that differ between the packets of a flood, or between flows with
// different headers. Written by src/traffic.rs.
struct packet {
	__u32 source, destination; // big endian, like the ports
	__u16 source_port, destination_port;
	__u16 protocol;
	// For `generate`: the sum of the words of both addresses, less those of the frame. A one's
	// complement sum, in the byte order of the frame.
	__u16 sum_change;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet);
} packets SEC(".maps");

// Writes the addresses and ports of a flow, and updates the IPv4 checksum (RFC 1624). Returns false
// if there is no such flow.
static __always_inline bool write_header(void *data, __u32 flow)
{
	const struct packet *packet = bpf_map_lookup_elem(&packets, &flow);
	__u32 sum;

	if (!packet)
		return false;
	*(packet_u32 *)(data + AT_IP_SOURCE) = packet->source;
	*(packet_u32 *)(data + AT_IP_DESTINATION) = packet->destination;
	*(packet_u32 *)(data + AT_UDP_SOURCE) = packet->source_port | (__u32)packet->destination_port << 16;
	sum = (__u16)~*(packet_u16 *)(data + AT_IP_CHECKSUM) + packet->sum_change;
	*(packet_u16 *)(data + AT_IP_CHECKSUM) = ~((sum & 0xffff) + (sum >> 16));
	return true;
}

SEC("xdp") int generate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const volatile struct length *length;
	__u64 now;
	int i;

	if (data + MIN_FRAME > end)
		return XDP_ABORTED;
	if (config.limit && state.sent >= config.limit)
		return XDP_DROP;
	if (config.on_grant && state.sent >= granted)
		return XDP_DROP;
	now = bpf_ktime_get_ns();
	if (!state.sent)
		state.first = now;
	if (config.interval) {
		__u64 elapsed;

		if (!state.start)
			state.start = now;
		elapsed = (now - state.start) << FRACTION_BITS;
		if (elapsed < state.due)
			return XDP_DROP;
		state.due += config.interval;
		// After a preemption, limit the burst that catches up, so that it does not overrun the rings.
		if (elapsed > state.due + config.backlog)
			state.due = elapsed - config.backlog;
	}

	// A single length needs neither of these steps; the verifier then removes them.
	if (config.sizes > 1) {
		length = &config.lengths[state.size & (MAX_SIZES - 1)];
		// The kernel restores the frame's length when it recycles the page. The bytes that
		// are cut off stay in the page, so that the next longer frame has the whole pattern.
		if (length->cut && bpf_xdp_adjust_tail(ctx, -(int)length->cut))
			return XDP_ABORTED;
		data = (void *)(long)ctx->data;
		end = (void *)(long)ctx->data_end;
		if (data + MIN_FRAME > end)
			return XDP_ABORTED;
	}

	// A forwarder may have changed the recycled page (TTL, MAC addresses): rewrite the whole
	// header.
	for (i = 0; i < HEADER_WORDS; i++)
		((packet_u64 *)data)[i] = config.header[i];
	*(packet_u32 *)(data + 40) = config.header_tail;
	if (config.sizes > 1) {
		*(packet_u16 *)(data + AT_IP_LENGTH) = length->ip_length;
		*(packet_u16 *)(data + AT_IP_CHECKSUM) = length->ip_checksum;
		*(packet_u16 *)(data + AT_UDP_LENGTH) = length->udp_length;
		state.size++;
		if (state.size >= config.sizes)
			state.size = 0;
	}
	if (!config.has_headers)
		*(packet_u16 *)(data + AT_UDP_SOURCE) = bpf_htons(FIRST_FLOW_PORT + state.flow);
	else if (!write_header(data, state.flow))
		return XDP_ABORTED;
	*(packet_u64 *)(data + AT_SEQUENCE) = bpf_cpu_to_be64(config.first_sequence + state.sent);
	*(packet_u64 *)(data + AT_TIME) = bpf_cpu_to_be64(now);

	state.flow++;
	if (state.flow >= config.flows)
		state.flow = 0;
	state.sent++;
	state.last = now;
	return bpf_redirect(config.ifindex, 0);
}

// The XDP program that receives a flood from `inject`.
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} receiver SEC(".maps");

// Writes the fields of the next packet in `packets` into the frame. The other header fields are
// already in the page, because receivers of a flood do not change them. A flood has no sequence
// numbers, send times or rate limit. Returns false if there is no next packet or the frame is too
// short.
static __always_inline bool write_next(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 index = state.flow;
	const struct packet *packet = bpf_map_lookup_elem(&packets, &index);

	if (!packet || data + MIN_FRAME > end)
		return false;
	*(__u8 *)(data + AT_IP_PROTOCOL) = packet->protocol;
	*(packet_u32 *)(data + AT_IP_SOURCE) = packet->source;
	*(packet_u32 *)(data + AT_IP_DESTINATION) = packet->destination;
	*(packet_u32 *)(data + AT_UDP_SOURCE) = packet->source_port | (__u32)packet->destination_port << 16;
	*(__u8 *)(data + AT_UDP_SOURCE + 12) = 5 << 4; // TCP header length, used only by TCP
	index++;
	state.flow = index < config.flows ? index : 0;
	state.sent++;
	return true;
}

// Sends frames out of the interface as fast as possible.
SEC("xdp") int flood(struct xdp_md *ctx)
{
	return write_next(ctx) ? bpf_redirect(config.ifindex, 0) : XDP_ABORTED;
}

// Passes frames directly to an XDP program as fast as possible, without the cost of a driver.
SEC("xdp") int inject(struct xdp_md *ctx)
{
	if (write_next(ctx))
		bpf_tail_call(ctx, &receiver, 0);
	return XDP_ABORTED;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
