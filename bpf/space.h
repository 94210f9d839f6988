/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Included by classify.h once per IP version, with V, which adds the version to names, WORDS per
 * key, and more.
 */

struct V(key) {
	__u64 word[WORDS];
};

/* A rule: key & mask == value, and both ports within theirs. */
struct V(entry) {
	__u64 value[WORDS];
	__u64 mask[WORDS];
	struct ports ports[2];
	__u32 decision;
	__u32 last; /* whether it ends its bucket */
};

const volatile struct space V(space) SEC(SPACE_SECTION);

/* Set or part numbers by the first 16 address bits: 256 entries for source, 256 for destination. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct numbers);
} V(first) SEC(".maps");

/* Set numbers by the next 8 bits. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct numbers);
} V(parts) SEC(".maps");

/* Sets of tuples, a bit for each. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} V(sets) SEC(".maps");

/* Groups of four tags. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} V(tags) SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct firsts);
} V(firsts) SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct V(entry));
} V(entries) SEC(".maps");

static __always_inline bool V(matches)(const struct V(key) *key, const struct V(entry) *entry)
{
	__u64 differing = 0;

	for (int i = 0; i < WORDS; i++)
		differing |= (key->word[i] & entry->mask[i]) ^ entry->value[i];
	return !differing && is_within(key->word[UPPER] >> 48, &entry->ports[SOURCE]) &&
	       is_within(key->word[UPPER] >> 32, &entry->ports[DESTINATION]);
}

/*
 * Returns the first rule of a bucket that matches, is no better than `from`, and better than
 * `found`.
 */
__noinline __u32 V(search_bucket)(const struct V(key) *key, __u32 first, __u32 from, __u32 found)
{
	if (!key)
		return found;
	for (__u32 i = 0; i < MAX_BUCKET_LENGTH; i++) {
		__u32 at = first + i;
		const struct V(entry) *entry = bpf_map_lookup_elem(&V(entries), &at);

		if (!entry || entry->decision >= found)
			break;
		if (entry->decision >= from && V(matches)(key, entry))
			return entry->decision;
		if (entry->last)
			break;
	}
	return found;
}

/* As search_bucket, inlined for the usual bucket with one rule: a call costs as much as the rest. */
static __always_inline __u32 V(search_short_bucket)(const struct V(key) *key, __u32 first, __u32 from, __u32 found)
{
	const struct V(entry) *entry = bpf_map_lookup_elem(&V(entries), &first);

	if (!entry || entry->decision >= found)
		return found;
	if (entry->decision >= from && V(matches)(key, entry))
		return entry->decision;
	return entry->last ? found : V(search_bucket)(key, first + 1, from, found);
}

/* As search_bucket, over all buckets that a hash may lead to. */
__noinline __u32 V(search_groups)(const struct V(key) *key, __u64 hashed, __u32 from, __u32 found)
{
	__u32 at = hashed >> (V(space).shift & 63);

	if (!key)
		return found;
	for (int i = 0; i < MAX_GROUPS; i++) {
		const __u64 *tags = bpf_map_lookup_elem(&V(tags), &at);
		const struct firsts *firsts = bpf_map_lookup_elem(&V(firsts), &at);
		__u64 matches;

		if (!tags || !firsts)
			break;
		matches = matching_tags(*tags, hashed);
		for (int tag = 0; tag < 4; tag++)
			if (matches >> (16 * tag + 15) & 1)
				found = V(search_bucket)(key, firsts->of[tag], from, found);
		if (!(*tags & OVERFLOWED))
			break;
		at = (at + 1) & (V(space).groups - 1);
	}
	return found;
}

/* As search_bucket, over the tuples. */
__noinline __u32 V(search_tuples)(const struct V(key) *key, __u32 from)
{
	const volatile struct space *space = &V(space);
	__u32 found = NO_RULE;
	__u64 tuples, upper;

	if (!key)
		return found;
	upper = key->word[UPPER];
	tuples = space->protocol[upper >> 24 & 0xff] & tuples_of_port(space, SOURCE, upper >> 48) &
		 tuples_of_port(space, DESTINATION, upper >> 32);
	tuples &= tuples_of_address(&V(first), &V(parts), &V(sets), space, SOURCE, SOURCE_WORD(key->word));
	tuples &= tuples_of_address(&V(first), &V(parts), &V(sets), space, DESTINATION, DESTINATION_WORD(key->word));
	for (int i = 0; i < MAX_TUPLES && tuples; i++) {
		const volatile struct tuple *tuple = &space->tuple[lowest_bit(tuples) & (MAX_TUPLES - 1)];
		const struct firsts *firsts;
		__u64 hashed, matches;
		const __u64 *tags;
		__u32 at;

		if (tuple->best >= found)
			break;
		hashed = V(hash)(key->word, tuple, space->seed);
		at = hashed >> (space->shift & 63);
		tags = bpf_map_lookup_elem(&V(tags), &at);
		if (!tags)
			break;
		matches = matching_tags(*tags, hashed);
		/* Usually there is no match, or one bucket with one rule. */
		if (*tags & OVERFLOWED || matches & (matches - 1)) {
			found = V(search_groups)(key, hashed, from, found);
		} else if (matches) {
			firsts = bpf_map_lookup_elem(&V(firsts), &at);
			if (firsts)
				found = V(search_short_bucket)(key, firsts->of[first_match(matches)], from, found);
		}
		tuples &= tuples - 1;
	}
	return found;
}

/* Returns the first matching rule from `from` on; NO_RULE if there is none. */
static __always_inline __u32 V(first_rule)(const struct V(key) *key, __u32 from)
{
	for (__u32 i = 0; i < MAX_LINEAR_RULES; i++) {
		const struct V(entry) *entry;
		__u32 at = i;

		if (i >= V(space).linear_rules)
			break;
		entry = bpf_map_lookup_elem(&V(entries), &at);
		if (entry && entry->decision >= from && V(matches)(key, entry))
			return entry->decision;
	}
	return V(space).tuples ? V(search_tuples)(key, from) : NO_RULE;
}
