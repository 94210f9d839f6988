/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef LIBXDP_CALLS_H
#define LIBXDP_CALLS_H

#include <xdp/xsk.h>

__u32 call_prod_reserve(struct xsk_ring_prod *ring, __u32 n, __u32 *at);
void call_prod_submit(struct xsk_ring_prod *ring, __u32 n);
__u64 *call_fill_addr(struct xsk_ring_prod *ring, __u32 at);
struct xdp_desc *call_tx_desc(struct xsk_ring_prod *ring, __u32 at);
int call_needs_wakeup(const struct xsk_ring_prod *ring);
__u32 call_cons_peek(struct xsk_ring_cons *ring, __u32 n, __u32 *at);
void call_cons_release(struct xsk_ring_cons *ring, __u32 n);
const struct xdp_desc *call_rx_desc(const struct xsk_ring_cons *ring, __u32 at);
const __u64 *call_comp_addr(const struct xsk_ring_cons *ring, __u32 at);

#endif
