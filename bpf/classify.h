/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The classifier of crates/filter, in the kernel. The lookup and the tables equal those in user
 * space; crates/filter/src/classifier/image.rs writes the tables. See
 * docs/decisions/0016-classifier.md for the design and README.md for the maps.
 *
 * A key contains header fields of a packet. A tuple is a set of rules, with a mask of key bits.
 * Each of its rules requires a value for every bit in the mask; rules that require the same values
 * form a bucket. A lookup in a tuple hashes the bits in the mask to find the bucket. The hash table
 * stores a 16-bit tag (a part of the hash) for each bucket. Four tags form a group.
 *
 * IPv4 and IPv6 have separate tables. An IPv4 key has 3 words of 64 bits, an IPv6 key has 6. Tables
 * whose size depends on the rules are maps, and the loader sets their number of entries. All other
 * data is read-only, and the verifier knows its values.
 */
#ifndef XDPFWD_CLASSIFY_H
#define XDPFWD_CLASSIFY_H

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#define MAX_TUPLES 64

/* Up to this number, rules are compared one by one, without tuples. */
#define MAX_LINEAR_RULES 8
/* Maximum number of rules in a bucket; user space refuses longer buckets. */
#define MAX_BUCKET_LENGTH 256
/* Maximum number of groups that a lookup visits; user space refuses tables that need more. */
#define MAX_GROUPS 32

/*
 * A decision is the result of a lookup. The upper 30 bits are the number of a rule, and the two
 * lowest bits are its action. The smallest decision takes precedence. A rule with the action
 * CONTINUE gives no verdict: the caller counts the packet and searches the next rules.
 */
#define DECISION_BITS 2
#define DECISION_MASK 3
#define DECISION_CONTINUE 0
#define DECISION_ACCEPT 1
#define DECISION_DROP 2
#define NO_RULE 0xffffffffu

struct tuple {
	__u64 mask[5]; /* for the hashed words of a key; IPv4 uses two of them */
	__u64 seed;
	__u32 best; /* the smallest rule number in the tuple, shifted left by DECISION_BITS */
	__u32 padding[3];
};

/* Each port below SINGLE_PORTS has a set of tuples. From SINGLE_PORTS on, 64 ports share a set. */
#define SINGLE_PORTS 1024
#define SHARED_PORT_BITS 6
#define PORT_SETS (SINGLE_PORTS + (1 << (16 - SHARED_PORT_BITS)))

enum side { SOURCE, DESTINATION };

struct ports {
	/* The first port, and the number of ports after it. */
	__u16 first, more;
};

/* The classifier's data of one IP version, except the maps. */
struct space {
	__u64 seed;
	__u32 linear_rules; /* number of rules to compare one by one; 0 if there are tuples */
	__u32 has_tuples;
	__u32 shift;	    /* right shift that turns a hash into a group number */
	__u32 groups;	    /* number of groups, a power of two */
	/* Three arrays by side (enum side), that is, for source and for destination addresses. */
	__u32 skip[2];	/* number of leading bits that all prefixes share, and that are skipped */
	/* Index of the first entry for this side in the maps `parts` and `sets`. */
	__u32 first_part[2], first_set[2];
	struct tuple tuple[MAX_TUPLES];
	/* For each protocol, and for each port: the set of tuples that may have a rule for it. */
	__u64 protocol[256];
	__u64 ports[2][PORT_SETS];
};

/*
 * For each value of 8 address bits, the number of a set of tuples. If the bit IS_PART is set, there
 * are longer prefixes with this value, and the other bits are instead the number of an entry of the
 * map `parts`, which has the set numbers for the next 8 address bits.
 */
struct numbers {
	__u16 number[256];
};

#define IS_PART 0x8000

/*
 * For each of the four tags of a group, the index of the first entry (rule) of the tag's bucket. In
 * a map of its own, because most lookups read only tags.
 */
struct firsts {
	__u32 entry[4];
};

/* The lowest and the highest bit of each tag in a group. */
#define TAG_ONES 0x0001000100010001ull
#define TAG_HIGH 0x8000800080008000ull
/* Set in a full group if a bucket that hashes to this group is in another group. */
#define OVERFLOWED (1ull << 63)

/* Returns the exclusive or of both halves of the 128-bit product. */
static __always_inline __u64 fold(__u64 a, __u64 b)
{
	__u64 a_low = (__u32)a, a_high = a >> 32, b_low = (__u32)b, b_high = b >> 32;
	__u64 high_low = a_high * b_low, low_high = a_low * b_high;
	__u64 middle = (a_low * b_low >> 32) + (__u32)high_low + (__u32)low_high;

	return a * b ^ (a_high * b_high + (high_low >> 32) + (low_high >> 32) + (middle >> 32));
}

/* Arbitrary constants for hashing, as in crates/filter/src/classifier/space.rs. */
#define SEED_2 0xa4093822299f31d1ull
#define SEED_3 0x082efa98ec4e6c89ull
#define SEED_4 0x452821e638d01377ull

/*
 * Returns the tuples that may have a rule for an address. The address begins at the highest bit of
 * `address`. `root`, `parts` and `sets` are maps of space.h; `root` is `first_v4` or `first_v6`.
 */
static __always_inline __u64 tuples_of_address(void *root, void *parts, void *sets, const volatile struct space *space,
					       enum side side, __u64 address)
{
	const struct numbers *numbers;
	const __u64 *tuples;
	__u32 index, number;

	address <<= space->skip[side] & 63;
	index = side * 256 + (address >> 56);
	numbers = bpf_map_lookup_elem(root, &index);
	if (!numbers)
		return 0;
	number = numbers->number[address >> 48 & 0xff];
	if (number & IS_PART) {
		index = space->first_part[side] + (number & ~IS_PART);
		numbers = bpf_map_lookup_elem(parts, &index);
		if (!numbers)
			return 0;
		number = numbers->number[address >> 40 & 0xff];
	}
	index = space->first_set[side] + number;
	tuples = bpf_map_lookup_elem(sets, &index);
	return tuples ? *tuples : 0;
}

static __always_inline __u64 tuples_of_port(const volatile struct space *space, enum side side, __u16 port)
{
	__u32 index = port < SINGLE_PORTS ? port : SINGLE_PORTS + (port >> SHARED_PORT_BITS);

	barrier_var(index); /* keeps the compiler from removing the mask, which the verifier needs */
	return space->ports[side][index & (PORT_SETS - 1)];
}

/*
 * Returns a mask with the highest bit of each tag that matches a hash. A tag above a matching tag
 * may be a false positive.
 */
static __always_inline __u64 matching_tags(__u64 tags, __u64 hash)
{
	__u64 differing = (tags & ~OVERFLOWED) ^ ((hash & 0x7ffe) | 1) * TAG_ONES;

	return (differing - TAG_ONES) & ~differing & TAG_HIGH;
}

/* Returns the number (0 to 3) of the lowest matching tag. At least one tag must match. */
static __always_inline __u32 first_matching_tag(__u64 matches)
{
	return matches & 1ull << 15 ? 0 : matches & 1ull << 31 ? 1 : matches & 1ull << 47 ? 2 : 3;
}

/* Returns the position of the lowest set bit. At least one bit must be set. */
static __always_inline __u32 lowest_bit(__u64 bits)
{
	/* Uses a De Bruijn table, because BPF has no instruction that counts trailing zeros. */
	static const volatile __u8 positions[64] = {
		0,  1,	2,  53, 3,  7,	54, 27, 4,  38, 41, 8,	34, 55, 48, 28, 62, 5,	39, 46, 44, 42,
		22, 9,	24, 35, 59, 56, 49, 18, 29, 11, 63, 52, 6,  26, 37, 40, 33, 47, 61, 45, 43, 21,
		23, 58, 17, 10, 51, 25, 36, 32, 60, 20, 57, 16, 50, 31, 19, 15, 30, 14, 13, 12,
	};

	return positions[(bits & -bits) * 0x022fdd63cc95386dull >> 58];
}

static __always_inline bool is_within(__u16 port, const struct ports *ports)
{
	return (__u16)(port - ports->first) <= ports->more;
}

static __always_inline __u64 hash_v4(const __u64 *key, const volatile struct tuple *tuple, __u64 seed)
{
	return fold((key[0] & tuple->mask[0]) ^ seed, (key[1] & tuple->mask[1]) ^ tuple->seed);
}

static __always_inline __u64 hash_v6(const __u64 *key, const volatile struct tuple *tuple, __u64 seed)
{
	__u64 source = fold((key[0] & tuple->mask[0]) ^ seed, (key[1] & tuple->mask[1]) ^ SEED_2);
	__u64 destination = fold((key[2] & tuple->mask[2]) ^ SEED_3, (key[3] & tuple->mask[3]) ^ tuple->seed);

	return fold(source ^ (destination << 32 | destination >> 32), (key[4] & tuple->mask[4]) ^ SEED_4);
}

/* Index of the key word after the addresses: ports, protocol, fragment state. */
#define UPPER (WORDS - 2)

#define V(name) name##_v4
#define SPACE_SECTION ".rodata.v4"
#define WORDS 3
#define SOURCE_WORD(key) ((key)[0])
#define DESTINATION_WORD(key) ((key)[0] << 32)
#include "space.h"
#undef V
#undef SPACE_SECTION
#undef WORDS
#undef SOURCE_WORD
#undef DESTINATION_WORD

#define V(name) name##_v6
#define SPACE_SECTION ".rodata.v6"
#define WORDS 6
#define SOURCE_WORD(key) ((key)[0])
#define DESTINATION_WORD(key) ((key)[2])
#include "space.h"
#undef V
#undef SPACE_SECTION
#undef WORDS
#undef SOURCE_WORD
#undef DESTINATION_WORD

/* The sizes must match crates/filter/src/classifier/image.rs. */
_Static_assert(sizeof(struct tuple) == 64, "tuple");
_Static_assert(sizeof(struct firsts) == 16, "firsts");
_Static_assert(sizeof(struct entry_v4) == 64, "entry of IPv4");
_Static_assert(sizeof(struct entry_v6) == 112, "entry of IPv6");

#endif
