/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * bare_loop: minimal AF_XDP forwarding, the baseline of xdpfwd's benchmarks.
 *
 * Two interfaces, queue 0 of each, one UMEM under both sockets, one thread on one core. A frame
 * that comes in on one side goes out on the other with its MAC addresses swapped. It keeps no books
 * per packet, has no stages, and trusts the kernel: what xdpfwd needs beyond this is the price of
 * being xdpfwd.
 *
 *   cc -O3 -march=native bare_loop.c -o bare_loop -lxdp -lbpf    (Debian: apt-get install gcc libxdp-dev libbpf-dev)
 *   bare_loop LEFT RIGHT CORE        until SIGINT or SIGTERM
 *
 * As xdpfwd does, it lets the kernel send 512 packets in a system call where the kernel can (Linux
 * 6.17), and asks for need_wakeup, so that there is one transmit system call per batch at most.
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

#define CHUNK 2048u
#define CHUNKS 16384u
#define POSTED 4096u /* chunks in each fill ring, and entries of the completion rings */
#define ENTRIES 2048u /* of the RX and TX rings */
#define BATCH 64u
#define BUDGET 512

struct side {
	const char *name;
	struct xsk_socket *xsk;
	struct xsk_ring_prod fill, tx;
	struct xsk_ring_cons rx, completed;
	int fd;
	uint64_t in, out, calls;
};

static volatile sig_atomic_t running = 1;
static uint8_t *umem_area;

/* Free chunks, a stack. The two sides share it, as they share the UMEM. */
static uint64_t spare[CHUNKS];
static uint32_t spares;

static void finish(int signal)
{
	(void)signal;
	running = 0;
}

static void fail(const char *what, int error)
{
	fprintf(stderr, "bare_loop: %s: %s\n", what, strerror(error));
	exit(1);
}

/* Returns the chunks of transmitted packets to the stack. */
static inline void collect(struct side *s)
{
	uint32_t first, have = xsk_ring_cons__peek(&s->completed, POSTED, &first);

	if (!have)
		return;
	for (uint32_t end = first + have; first != end; first++)
		spare[spares++] = *xsk_ring_cons__comp_addr(&s->completed, first) & ~(uint64_t)(CHUNK - 1);
	xsk_ring_cons__release(&s->completed, have);
}

/* Passes free chunks to the kernel, for reception. */
static inline void post(struct side *s, uint32_t count)
{
	uint32_t slot;

	if (count > spares || xsk_ring_prod__reserve(&s->fill, count, &slot) != count)
		return;
	for (uint32_t i = 0; i < count; i++)
		*xsk_ring_prod__fill_addr(&s->fill, slot + i) = spare[--spares];
	xsk_ring_prod__submit(&s->fill, count);
}

static inline void ring_the_bell(struct side *s)
{
	s->calls++;
	/* EAGAIN, EBUSY, ENOBUFS: the next call sends the rest of the ring. */
	(void)sendto(s->fd, NULL, 0, MSG_DONTWAIT, NULL, 0);
}

static inline void swap_addresses(uint8_t *frame)
{
	uint64_t first; /* destination, and two bytes of the source */
	uint32_t rest; /* the other four */

	memcpy(&first, frame, 8);
	memcpy(&rest, frame + 8, 4);
	uint64_t source = first >> 48 | (uint64_t)rest << 16;
	uint64_t swapped = source | first << 48;
	uint32_t tail = (uint32_t)(first >> 16);
	memcpy(frame, &swapped, 8);
	memcpy(frame + 8, &tail, 4);
}

static inline void relay(struct side *from, struct side *to)
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
	from->in += n;

	post(from, n); /* as many as were received */
	for (uint32_t i = 0; i < n; i++)
		swap_addresses(umem_area + batch[i].addr);

	while (xsk_ring_prod__reserve(&to->tx, n, &slot) != n) {
		if (!running)
			return;
		ring_the_bell(to);
		collect(to);
	}
	for (uint32_t i = 0; i < n; i++)
		*xsk_ring_prod__tx_desc(&to->tx, slot + i) = batch[i];
	xsk_ring_prod__submit(&to->tx, n);
	to->out += n;
	if (xsk_ring_prod__needs_wakeup(&to->tx))
		ring_the_bell(to);
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
		fprintf(stderr, "bare_loop: %s: %s: the kernel's default transmit budget\n", s->name, strerror(errno));
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
		fail("pinning to the core", errno);
	signal(SIGINT, finish);
	signal(SIGTERM, finish);

	umem_area = mmap(NULL, (size_t)CHUNK * CHUNKS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (umem_area == MAP_FAILED)
		fail("memory", errno);
	/* libxdp hands these two rings on to the first socket that binds, which is `left`. */
	int error = xsk_umem__create(&umem, umem_area, (uint64_t)CHUNK * CHUNKS, &left.fill, &left.completed, &config);
	if (error)
		fail("UMEM", -error);
	for (uint32_t i = 0; i < CHUNKS; i++)
		spare[spares++] = (uint64_t)i * CHUNK;
	open_side(&left, umem);
	open_side(&right, umem);

	while (running) {
		collect(&right);
		relay(&left, &right);
		collect(&left);
		relay(&right, &left);
	}
	for (struct side *s = &left;; s = &right) {
		printf("%s: %llu in, %llu out, %llu transmit system calls\n", s->name, (unsigned long long)s->in,
		       (unsigned long long)s->out, (unsigned long long)s->calls);
		xsk_socket__delete(s->xsk);
		if (s == &right)
			break;
	}
	return 0;
}
