/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * bare_loop: a minimal AF_XDP forwarder, the baseline of xdpfwd's benchmarks.
 *
 * It forwards between queue 0 of two interfaces, with one UMEM for both sockets and one thread on
 * one core. A frame received on one interface is sent out of the other with its MAC addresses
 * swapped. It has no stages, counts received and sent packets but no losses, and does not check the
 * values that the kernel writes. The difference to xdpfwd is the cost of the missing features.
 *
 *   apt-get install gcc libxdp-dev libbpf-dev
 *   cc -O3 -march=native bare_loop.c -o bare_loop -lxdp -lbpf
 *   ./bare_loop LEFT RIGHT CORE        # until SIGINT or SIGTERM
 *
 * Like xdpfwd, it sets the kernel's transmit budget to 512 packets per system call where the kernel
 * supports this (from Linux 6.17), and uses need_wakeup. It makes at most one transmit system call
 * per batch, except while the transmit ring is full.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <xdp/xsk.h>

#ifndef SOL_XDP
#define SOL_XDP 283
#endif
#ifndef XDP_MAX_TX_SKB_BUDGET
#define XDP_MAX_TX_SKB_BUDGET 9
#endif

#define CHUNK 2048u /* bytes */
#define CHUNKS 16384u
#define POSTED 4096u /* entries of the fill and completion rings; chunks posted to each fill ring */
#define ENTRIES 2048u /* entries of the RX and TX rings */
#define BATCH 64u /* packets */
#define BUDGET 512 /* packets per transmit system call */

struct side {
	const char *name;
	struct xsk_socket *xsk;
	struct xsk_ring_prod fill, tx;
	struct xsk_ring_cons rx, completed;
	int fd;
	uint64_t received, sent, calls;
};

static volatile sig_atomic_t running = 1;
static uint8_t *umem_area;

/* Stack of free chunks, shared by both sides like the UMEM. */
static uint64_t free_chunks[CHUNKS];
static uint32_t free_count;

static void handle_signal(int signal)
{
	(void)signal;
	running = 0;
}

static void fail(const char *what, int error)
{
	fprintf(stderr, "bare_loop: %s: %s\n", what, strerror(error));
	exit(1);
}

/* Frees the chunks of transmitted packets. */
static inline void reclaim(struct side *s)
{
	uint32_t first, have = xsk_ring_cons__peek(&s->completed, POSTED, &first);

	if (!have)
		return;
	for (uint32_t end = first + have; first != end; first++)
		free_chunks[free_count++] = *xsk_ring_cons__comp_addr(&s->completed, first) & ~(uint64_t)(CHUNK - 1);
	xsk_ring_cons__release(&s->completed, have);
}

/* Posts `count` free chunks to the fill ring, or none. */
static inline void post(struct side *s, uint32_t count)
{
	uint32_t slot;

	if (count > free_count || xsk_ring_prod__reserve(&s->fill, count, &slot) != count)
		return;
	for (uint32_t i = 0; i < count; i++)
		*xsk_ring_prod__fill_addr(&s->fill, slot + i) = free_chunks[--free_count];
	xsk_ring_prod__submit(&s->fill, count);
}

static inline void wake_tx(struct side *s)
{
	s->calls++;
	/* On EAGAIN, EBUSY or ENOBUFS, the next call sends the rest of the ring. */
	(void)sendto(s->fd, NULL, 0, MSG_DONTWAIT, NULL, 0);
}

static inline void swap_macs(uint8_t *frame)
{
	uint64_t first; /* the destination and two bytes of the source */
	uint32_t rest; /* the other four bytes of the source */

	memcpy(&first, frame, 8);
	memcpy(&rest, frame + 8, 4);
	uint64_t source = first >> 48 | (uint64_t)rest << 16;
	uint64_t swapped = source | first << 48;
	uint32_t tail = (uint32_t)(first >> 16);
	memcpy(frame, &swapped, 8);
	memcpy(frame + 8, &tail, 4);
}

static inline void forward(struct side *from, struct side *to)
{
	struct xdp_desc batch[BATCH];
	uint32_t slot, n = xsk_ring_cons__peek(&from->rx, BATCH, &slot);

	if (!n) {
		if (xsk_ring_prod__needs_wakeup(&from->fill))
			(void)recvfrom(from->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		batch[i] = *xsk_ring_cons__rx_desc(&from->rx, slot + i);
		__builtin_prefetch(umem_area + batch[i].addr, 1);
	}
	xsk_ring_cons__release(&from->rx, n);
	from->received += n;

	post(from, n); /* replace the received chunks */
	for (uint32_t i = 0; i < n; i++)
		swap_macs(umem_area + batch[i].addr);

	while (xsk_ring_prod__reserve(&to->tx, n, &slot) != n) {
		if (!running)
			return;
		wake_tx(to);
		reclaim(to);
	}
	for (uint32_t i = 0; i < n; i++)
		*xsk_ring_prod__tx_desc(&to->tx, slot + i) = batch[i];
	xsk_ring_prod__submit(&to->tx, n);
	to->sent += n;
	if (xsk_ring_prod__needs_wakeup(&to->tx))
		wake_tx(to);
}

static void open_side(struct side *s, struct xsk_umem *umem)
{
	const struct xsk_socket_config config = {
		.rx_size = ENTRIES,
		.tx_size = ENTRIES,
		.bind_flags = XDP_USE_NEED_WAKEUP,
	};
	const int budget = BUDGET;
	int error = xsk_socket__create_shared(&s->xsk, s->name, 0, umem, &s->rx, &s->tx, &s->fill, &s->completed, &config);

	if (error)
		fail(s->name, -error);
	s->fd = xsk_socket__fd(s->xsk);
	if (setsockopt(s->fd, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &budget, sizeof budget))
		fprintf(stderr, "bare_loop: %s: cannot set the transmit budget: %s; using the default\n", s->name,
			strerror(errno));
	post(s, POSTED);
}

int main(int argc, char **argv)
{
	struct side left = { 0 }, right = { 0 };
	struct xsk_umem *umem;
	const struct xsk_umem_config config = { .fill_size = POSTED, .comp_size = POSTED, .frame_size = CHUNK };
	cpu_set_t cores;

	if (argc != 4) {
		fprintf(stderr, "usage: bare_loop LEFT RIGHT CORE\n");
		return 2;
	}
	left.name = argv[1];
	right.name = argv[2];
	CPU_ZERO(&cores);
	CPU_SET(atoi(argv[3]), &cores);
	if (sched_setaffinity(0, sizeof cores, &cores))
		fail("cannot pin to the core", errno);
	signal(SIGINT, handle_signal);
	signal(SIGTERM, handle_signal);

	umem_area = mmap(NULL, (size_t)CHUNK * CHUNKS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (umem_area == MAP_FAILED)
		fail("cannot allocate packet memory", errno);
	/* libxdp passes both rings to the first socket created: `left`. */
	int error = xsk_umem__create(&umem, umem_area, (uint64_t)CHUNK * CHUNKS, &left.fill, &left.completed, &config);
	if (error)
		fail("cannot create the UMEM", -error);
	for (uint32_t i = 0; i < CHUNKS; i++)
		free_chunks[free_count++] = (uint64_t)i * CHUNK;
	open_side(&left, umem);
	open_side(&right, umem);

	while (running) {
		reclaim(&right);
		forward(&left, &right);
		reclaim(&left);
		forward(&right, &left);
	}
	for (struct side *s = &left;; s = &right) {
		printf("%s: %llu received, %llu sent, %llu transmit system calls\n", s->name,
		       (unsigned long long)s->received, (unsigned long long)s->sent, (unsigned long long)s->calls);
		xsk_socket__delete(s->xsk);
		if (s == &right)
			break;
	}
	return 0;
}
