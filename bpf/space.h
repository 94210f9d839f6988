/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The code and maps of the classifier that depend on the IP version. classify.h explains the terms
 * and includes this file once per version, with V(name), which adds the version to a name, and with
 * WORDS, the number of 64-bit words in a key.
 */

struct V(key) {
	__u64 word[WORDS];
};

/* A rule. A key matches if key & mask == value and both ports are within their ranges. */
struct V(entry) {
	__u64 value[WORDS];
	__u64 mask[WORDS];
	struct ports ports[2]; /* by enum side */
	__u32 decision;
	__u32 is_last; /* whether this entry is the last one of its bucket */
};

const volatile struct space V(space) SEC(SPACE_SECTION);

/*
 * Finds the set of tuples for an address by 16 of its bits: the first after the leading bits that
 * all prefixes share (`skip` in struct space). Each value of the 16 bits has the number of an entry
 * of `sets` or, if longer prefixes start with the value, of `parts`. The upper 8 of the 16 bits
 * select an entry of this map: the first 256 entries are for the source, the other 256 for the
 * destination. The lower 8 bits select a number in the entry.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct numbers);
} V(first) SEC(".maps");

/* For 16-bit values with longer prefixes: entries of `sets` for each value of the next 8 bits. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct numbers);
} V(parts) SEC(".maps");

/* Sets of tuples, with one bit per tuple. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} V(sets) SEC(".maps");

/* Groups of four tags, indexed by the upper bits of a hash. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} V(tags) SEC(".maps");

/* For each tag, the index in `entries` of the first entry of the tag's bucket. */
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
 * Searches the bucket that starts at the entry `first`. Returns the smallest decision of a matching
 * rule that is at least `from` and below `found`, or `found` if there is none.
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
		if (entry->is_last)
			break;
	}
	return found;
}

/*
 * Like search_bucket, but inlined for the first rule of the bucket: for a bucket with one rule, a
 * call would double the cost.
 */
static __always_inline __u32 V(search_short_bucket)(const struct V(key) *key, __u32 first, __u32 from, __u32 found)
{
	const struct V(entry) *entry = bpf_map_lookup_elem(&V(entries), &first);

	if (!entry || entry->decision >= found)
		return found;
	if (entry->decision >= from && V(matches)(key, entry))
		return entry->decision;
	return entry->is_last ? found : V(search_bucket)(key, first + 1, from, found);
}

/* Like search_bucket, but searches all buckets to which a hash may lead. */
__noinline __u32 V(search_groups)(const struct V(key) *key, __u64 hash_value, __u32 from, __u32 found)
{
	__u32 at = hash_value >> (V(space).shift & 63);

	if (!key)
		return found;
	for (int i = 0; i < MAX_GROUPS; i++) {
		const __u64 *tags = bpf_map_lookup_elem(&V(tags), &at);
		const struct firsts *firsts = bpf_map_lookup_elem(&V(firsts), &at);
		__u64 matches;

		if (!tags || !firsts)
			break;
		matches = matching_tags(*tags, hash_value);
		for (int tag = 0; tag < 4; tag++)
			if (matches >> (16 * tag + 15) & 1)
				found = V(search_bucket)(key, firsts->entry[tag], from, found);
		if (!(*tags & OVERFLOWED))
			break;
		at = (at + 1) & (V(space).groups - 1);
	}
	return found;
}

/* Searches the tuples. Returns the smallest matching decision from `from` on, or NO_RULE. */
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
		__u64 hash_value, matches;
		const __u64 *tags;
		__u32 at;

		if (tuple->best >= found)
			break;
		hash_value = V(hash)(key->word, tuple, space->seed);
		at = hash_value >> (space->shift & 63);
		tags = bpf_map_lookup_elem(&V(tags), &at);
		if (!tags)
			break;
		matches = matching_tags(*tags, hash_value);
		/* Fast path for the usual cases: no match, or one bucket. */
		if (*tags & OVERFLOWED || matches & (matches - 1)) {
			found = V(search_groups)(key, hash_value, from, found);
		} else if (matches) {
			firsts = bpf_map_lookup_elem(&V(firsts), &at);
			if (firsts)
				found = V(search_short_bucket)(key, firsts->entry[first_matching_tag(matches)], from,
							       found);
		}
		tuples &= tuples - 1;
	}
	return found;
}

/* Like search_tuples, but compares the rules one by one if there are no tuples. */
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
	return V(space).has_tuples ? V(search_tuples)(key, from) : NO_RULE;
}
