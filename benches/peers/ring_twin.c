/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The C twins of micro/rings.rs: the same loop over the same four rings. A minimal kernel side runs
 * in the same thread. Variants:
 *
 *   own     a C version of the rings in crates/xsk/src/ring.rs, including the full fence before
 *           reading the wake-up flag
 *   libxdp  libxdp's functions, inlined as in any C program
 *   calls   libxdp's functions, called out of line, with frame descriptors, as in xsk-rs
 *
 * For each line "VARIANT BATCH PACKETS SWAP" on stdin, the program prints three numbers: the
 * nanoseconds for PACKETS packets including the kernel side, the nanoseconds of the kernel side
 * alone (which also advances the user side's counters), and the number of wake-ups. The first
 * minus the second is the time of the user side. SWAP 1 swaps each packet's MAC addresses.
 *
 *   apt-get install gcc libxdp-dev libbpf-dev
 *   cc -O3 ring_twin.c libxdp_calls.c -o ring_twin
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "libxdp_calls.h"

/* The same values as in micro/rings.rs. Sizes of chunks and packets are in bytes. */
#define ENTRIES 2048u /* entries of the RX and TX rings */
#define POSTED 4096u /* entries of the fill and completion rings; chunks posted to the fill ring */
#define CHUNK 2048u
#define CHUNKS 16384u
#define HEADROOM 256u
#define LENGTH 60u
#define MAX_BATCH 64u
#define MASK(size) ((size) - 1)

/* A ring's memory. Each counter has its own cache line, as in the kernel's layout. */
struct ring {
	uint32_t producer __attribute__((aligned(64)));
	uint32_t consumer __attribute__((aligned(64)));
	uint32_t flags __attribute__((aligned(64)));
	uint32_t size;
	void *entries;
};

/*
 * One end of a ring. `counter` is the end's counter; `peer_counter` is the value last read from the
 * counter of the other end.
 */
struct end {
	struct ring *ring;
	uint32_t counter, peer_counter;
};

static inline uint32_t load(const uint32_t *counter) { return __atomic_load_n(counter, __ATOMIC_ACQUIRE); }
static inline void publish(uint32_t *counter, uint32_t value) { __atomic_store_n(counter, value, __ATOMIC_RELEASE); }

static inline uint32_t min(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Returns the number of free entries, at most `wanted`. Reserves nothing: see submit(). */
static inline uint32_t reserve(struct end *e, uint32_t wanted)
{
	uint32_t room = e->ring->size - (e->counter - e->peer_counter);

	if (room < wanted) {
		e->peer_counter = load(&e->ring->consumer);
		room = e->ring->size - (e->counter - e->peer_counter);
	}
	return min(room, wanted);
}

static inline uint32_t peek(struct end *e, uint32_t wanted)
{
	uint32_t available = e->peer_counter - e->counter;

	if (available < wanted) {
		e->peer_counter = load(&e->ring->producer);
		available = e->peer_counter - e->counter;
	}
	return min(available, wanted);
}

static inline void submit(struct end *e, uint32_t n) { publish(&e->ring->producer, e->counter += n); }
static inline void release(struct end *e, uint32_t n) { publish(&e->ring->consumer, e->counter += n); }
static inline uint64_t *address(struct end *e, uint32_t i)
{
	return (uint64_t *)e->ring->entries + ((e->counter + i) & MASK(e->ring->size));
}
static inline struct xdp_desc *descriptor(struct end *e, uint32_t i)
{
	return (struct xdp_desc *)e->ring->entries + ((e->counter + i) & MASK(e->ring->size));
}

static uint8_t *umem;

/*
 * The state of a variant: the rings, the kernel's ends of the rings (k_), the user's ends for the
 * variant `own` (_end) and for libxdp (x_), and the free chunks.
 */
struct bench {
	struct ring fill, completion, rx, tx;
	struct end k_fill, k_completion, k_rx, k_tx;
	struct end fill_end, completion_end, rx_end, tx_end;
	struct xsk_ring_prod x_fill, x_tx;
	struct xsk_ring_cons x_completion, x_rx;
	uint64_t free_chunks[CHUNKS];
	uint32_t free_count;
};

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void set_up_ring(struct ring *r, uint32_t size, size_t entry_size)
{
	r->size = size;
	r->entries = aligned_alloc(4096, size * entry_size);
	if (!r->entries)
		fail("ring_twin: cannot allocate memory");
	memset(r->entries, 0, size * entry_size);
}

static struct bench *set_up(void)
{
	struct bench *b = aligned_alloc(64, (sizeof *b + 63) & ~(size_t)63);

	if (!b)
		fail("ring_twin: cannot allocate memory");
	memset(b, 0, sizeof *b);
	set_up_ring(&b->fill, POSTED, 8);
	set_up_ring(&b->completion, POSTED, 8);
	set_up_ring(&b->rx, ENTRIES, sizeof(struct xdp_desc));
	set_up_ring(&b->tx, ENTRIES, sizeof(struct xdp_desc));
	b->k_fill.ring = b->fill_end.ring = &b->fill;
	b->k_completion.ring = b->completion_end.ring = &b->completion;
	b->k_rx.ring = b->rx_end.ring = &b->rx;
	b->k_tx.ring = b->tx_end.ring = &b->tx;
	b->free_count = CHUNKS - POSTED;
	for (uint32_t i = 0; i < b->free_count; i++)
		b->free_chunks[i] = (uint64_t)i * CHUNK;
	for (uint32_t i = 0; i < POSTED; i++)
		((uint64_t *)b->fill.entries)[i] = (uint64_t)(b->free_count + i) * CHUNK;
	b->fill.producer = b->fill_end.counter = POSTED;

	/* libxdp's structures for the same memory, as xsk_socket__create would initialise them. */
	b->x_fill = (struct xsk_ring_prod){ .cached_prod = POSTED, .cached_cons = POSTED, .mask = MASK(POSTED), .size = POSTED,
		.producer = &b->fill.producer, .consumer = &b->fill.consumer, .ring = b->fill.entries, .flags = &b->fill.flags };
	b->x_tx = (struct xsk_ring_prod){ .cached_cons = ENTRIES, .mask = MASK(ENTRIES), .size = ENTRIES,
		.producer = &b->tx.producer, .consumer = &b->tx.consumer, .ring = b->tx.entries, .flags = &b->tx.flags };
	b->x_completion = (struct xsk_ring_cons){ .mask = MASK(POSTED), .size = POSTED, .producer = &b->completion.producer,
		.consumer = &b->completion.consumer, .ring = b->completion.entries, .flags = &b->completion.flags };
	b->x_rx = (struct xsk_ring_cons){ .mask = MASK(ENTRIES), .size = ENTRIES, .producer = &b->rx.producer,
		.consumer = &b->rx.consumer, .ring = b->rx.entries, .flags = &b->rx.flags };
	return b;
}

/* The kernel side, part 1: receives up to n packets into posted chunks. */
static inline void arrive(struct bench *b, uint32_t n)
{
	n = peek(&b->k_fill, reserve(&b->k_rx, n));
	for (uint32_t i = 0; i < n; i++)
		*descriptor(&b->k_rx, i) = (struct xdp_desc){ .addr = *address(&b->k_fill, i) + HEADROOM, .len = LENGTH };
	release(&b->k_fill, n);
	submit(&b->k_rx, n);
}

/* The kernel side, part 2: completes all transmissions. */
static inline void complete(struct bench *b)
{
	uint32_t n = peek(&b->k_tx, reserve(&b->k_completion, POSTED));

	for (uint32_t i = 0; i < n; i++)
		*address(&b->k_completion, i) = descriptor(&b->k_tx, i)->addr;
	release(&b->k_tx, n);
	submit(&b->k_completion, n);
}

/* Replaces the user side: only advances the counters. */
static inline void pretend_user(struct bench *b, uint32_t n)
{
	publish(&b->rx.consumer, b->rx.consumer + n);
	publish(&b->fill.producer, b->fill.producer + n);
	publish(&b->tx.producer, b->tx.producer + n);
	publish(&b->completion.consumer, b->completion.producer);
}

static inline void swap_macs(uint64_t address)
{
	uint8_t *p = umem + address, mac[6];

	memcpy(mac, p, 6);
	memcpy(p, p + 6, 6);
	memcpy(p + 6, mac, 6);
}

static inline void user_own(struct bench *b, uint32_t batch, int swap, uint64_t *wakeups)
{
	struct xdp_desc d[MAX_BATCH];
	uint32_t n = peek(&b->rx_end, batch), m;

	for (uint32_t i = 0; i < n; i++) {
		d[i] = *descriptor(&b->rx_end, i);
		if (swap)
			__builtin_prefetch(umem + d[i].addr, 1);
	}
	release(&b->rx_end, n);
	m = reserve(&b->fill_end, n);
	for (uint32_t i = 0; i < m; i++)
		*address(&b->fill_end, i) = b->free_chunks[--b->free_count];
	submit(&b->fill_end, m);
	if (swap)
		for (uint32_t i = 0; i < n; i++)
			swap_macs(d[i].addr);
	m = reserve(&b->tx_end, n);
	for (uint32_t i = 0; i < m; i++)
		*descriptor(&b->tx_end, i) = d[i];
	submit(&b->tx_end, m);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	*wakeups += __atomic_load_n(&b->tx.flags, __ATOMIC_RELAXED) & XDP_RING_NEED_WAKEUP;
}

static inline void reclaim_own(struct bench *b)
{
	uint32_t n = peek(&b->completion_end, POSTED);

	for (uint32_t i = 0; i < n; i++)
		b->free_chunks[b->free_count++] = *address(&b->completion_end, i) & ~(uint64_t)(CHUNK - 1);
	release(&b->completion_end, n);
}

static inline void user_libxdp(struct bench *b, uint32_t batch, int swap, uint64_t *wakeups)
{
	struct xdp_desc d[MAX_BATCH];
	uint32_t at, n = xsk_ring_cons__peek(&b->x_rx, batch, &at);

	for (uint32_t i = 0; i < n; i++) {
		d[i] = *xsk_ring_cons__rx_desc(&b->x_rx, at + i);
		if (swap)
			__builtin_prefetch(umem + d[i].addr, 1);
	}
	xsk_ring_cons__release(&b->x_rx, n);
	if (xsk_ring_prod__reserve(&b->x_fill, n, &at) == n) {
		for (uint32_t i = 0; i < n; i++)
			*xsk_ring_prod__fill_addr(&b->x_fill, at + i) = b->free_chunks[--b->free_count];
		xsk_ring_prod__submit(&b->x_fill, n);
	}
	if (swap)
		for (uint32_t i = 0; i < n; i++)
			swap_macs(d[i].addr);
	if (xsk_ring_prod__reserve(&b->x_tx, n, &at) == n) {
		for (uint32_t i = 0; i < n; i++)
			*xsk_ring_prod__tx_desc(&b->x_tx, at + i) = d[i];
		xsk_ring_prod__submit(&b->x_tx, n);
	}
	*wakeups += xsk_ring_prod__needs_wakeup(&b->x_tx);
}

static inline void reclaim_libxdp(struct bench *b)
{
	uint32_t at, n = xsk_ring_cons__peek(&b->x_completion, POSTED, &at);

	for (uint32_t i = 0; i < n; i++)
		b->free_chunks[b->free_count++] = *xsk_ring_cons__comp_addr(&b->x_completion, at + i) & ~(uint64_t)(CHUNK - 1);
	if (n)
		xsk_ring_cons__release(&b->x_completion, n);
}

/* Like `FrameDesc` of xsk-rs. */
struct frame_desc {
	size_t addr, data, headroom;
	uint32_t options;
};

/* Free frames of the variant `calls`. */
static struct frame_desc free_frames[CHUNKS];
static uint32_t free_frame_count;

/* Like RxQueue::consume, FillQueue::produce and TxQueue::produce of xsk-rs. */
static inline void user_calls(struct bench *b, uint32_t batch, int swap, uint64_t *wakeups)
{
	struct frame_desc d[MAX_BATCH];
	uint32_t at, n = call_cons_peek(&b->x_rx, batch, &at);

	if (n) {
		for (uint32_t i = 0; i < n; i++, at++) {
			const struct xdp_desc *r = call_rx_desc(&b->x_rx, at);
			d[i] = (struct frame_desc){ r->addr, r->len, 0, r->options };
			if (swap)
				__builtin_prefetch(umem + d[i].addr, 1);
		}
		call_cons_release(&b->x_rx, n);
	}
	if (call_prod_reserve(&b->x_fill, n, &at)) {
		free_frame_count -= n;
		for (uint32_t i = 0; i < n; i++, at++)
			*call_fill_addr(&b->x_fill, at) = free_frames[free_frame_count + i].addr;
		call_prod_submit(&b->x_fill, n);
	}
	if (swap)
		for (uint32_t i = 0; i < n; i++)
			swap_macs(d[i].addr);
	if (call_prod_reserve(&b->x_tx, n, &at)) {
		for (uint32_t i = 0; i < n; i++, at++) {
			struct xdp_desc *t = call_tx_desc(&b->x_tx, at);
			t->addr = d[i].addr;
			t->len = d[i].data;
			t->options = d[i].options;
		}
		call_prod_submit(&b->x_tx, n);
	}
	*wakeups += call_needs_wakeup(&b->x_tx);
}

/*
 * Like CompQueue::consume of xsk-rs. Also rounds the address down to the start of the chunk, as
 * users of xsk-rs must do if a packet starts elsewhere in the chunk.
 */
static inline void reclaim_calls(struct bench *b)
{
	uint32_t at, n = call_cons_peek(&b->x_completion, POSTED, &at);

	if (!n)
		return;
	for (uint32_t i = 0; i < n; i++, at++) {
		struct frame_desc *f = &free_frames[free_frame_count++];
		*f = (struct frame_desc){ *call_comp_addr(&b->x_completion, at) & ~(uint64_t)(CHUNK - 1), 0, 0, 0 };
	}
	call_cons_release(&b->x_completion, n);
}

static uint64_t now(void)
{
	struct timespec t;

	/* CPU time of this thread, which excludes preemption. */
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

#define RUN_ROUNDS(user, reclaim)                                 \
	do {                                                      \
		for (uint64_t i = 0; i < rounds; i++) {           \
			arrive(b, batch);                         \
			user(b, batch, swap, &wakeups);       \
			complete(b);                              \
			reclaim(b);                               \
		}                                                 \
	} while (0)

int main(void)
{
	enum { OWN, LIBXDP, CALLS, VARIANTS };
	const char *const names[VARIANTS] = { "own", "libxdp", "calls" };
	struct bench *benches[VARIANTS], *kernel_alone = set_up();
	char name[16];
	unsigned batch, swap;
	unsigned long long packets;

	umem = mmap(NULL, (size_t)CHUNK * CHUNKS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (umem == MAP_FAILED)
		fail("ring_twin: cannot allocate memory");
	for (int i = 0; i < VARIANTS; i++)
		benches[i] = set_up();
	for (free_frame_count = 0; free_frame_count < CHUNKS - POSTED; free_frame_count++)
		free_frames[free_frame_count].addr = (size_t)free_frame_count * CHUNK;
	while (scanf("%15s %u %llu %u", name, &batch, &packets, &swap) == 4) {
		uint64_t rounds = packets / (batch ? batch : 1), start, between, end, wakeups = 0;
		int variant = 0;
		struct bench *b;

		while (variant < VARIANTS && strcmp(name, names[variant]))
			variant++;
		if (variant == VARIANTS || !batch || batch > MAX_BATCH) {
			fprintf(stderr, "ring_twin: invalid line; use VARIANT (own, libxdp, calls) BATCH (1-64) "
					"PACKETS SWAP (0, 1)\n");
			return 2;
		}
		b = benches[variant];
		start = now();
		switch (variant) {
		case OWN:
			RUN_ROUNDS(user_own, reclaim_own);
			break;
		case LIBXDP:
			RUN_ROUNDS(user_libxdp, reclaim_libxdp);
			break;
		default:
			RUN_ROUNDS(user_calls, reclaim_calls);
		}
		between = now();
		for (uint64_t i = 0; i < rounds; i++) {
			arrive(kernel_alone, batch);
			pretend_user(kernel_alone, batch);
			complete(kernel_alone);
		}
		end = now();
		/* The count of wake-ups is always 0. Printing it keeps the compiler from removing the reads. */
		printf("%llu %llu %llu\n", (unsigned long long)(between - start), (unsigned long long)(end - between),
		       (unsigned long long)wakeups);
		fflush(stdout);
	}
	return 0;
}
