// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
//
// Tags sent packets with VLAN 100 like a VLAN device: puts the tag into the skb's metadata. The
// kernel writes the tag into the packet only if the interface does not announce VLAN offload for
// sent packets.

#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETH_P_8021Q 0x8100
#define TC_ACT_OK 0

SEC("tc")
int push_vlan(struct __sk_buff *skb)
{
	bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), 100);
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
