/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * libxdp's inline ring functions as out-of-line functions, as programs in other languages call them
 * for each ring entry (xsk-rs does, through libxdp-sys). They are in a separate file and linked
 * without link-time optimisation, so that no call is inlined.
 */
#include "libxdp_calls.h"

__u32 call_prod_reserve(struct xsk_ring_prod *ring, __u32 n, __u32 *at) { return xsk_ring_prod__reserve(ring, n, at); }
void call_prod_submit(struct xsk_ring_prod *ring, __u32 n) { xsk_ring_prod__submit(ring, n); }
__u64 *call_fill_addr(struct xsk_ring_prod *ring, __u32 at) { return xsk_ring_prod__fill_addr(ring, at); }
struct xdp_desc *call_tx_desc(struct xsk_ring_prod *ring, __u32 at) { return xsk_ring_prod__tx_desc(ring, at); }
int call_needs_wakeup(const struct xsk_ring_prod *ring) { return xsk_ring_prod__needs_wakeup(ring); }
__u32 call_cons_peek(struct xsk_ring_cons *ring, __u32 n, __u32 *at) { return xsk_ring_cons__peek(ring, n, at); }
void call_cons_release(struct xsk_ring_cons *ring, __u32 n) { xsk_ring_cons__release(ring, n); }
const struct xdp_desc *call_rx_desc(const struct xsk_ring_cons *ring, __u32 at) { return xsk_ring_cons__rx_desc(ring, at); }
const __u64 *call_comp_addr(const struct xsk_ring_cons *ring, __u32 at) { return xsk_ring_cons__comp_addr(ring, at); }
