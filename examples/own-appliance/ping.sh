#!/usr/bin/env bash
# Runs the appliance in a network namespace between two others, and pings through it. Requires root.
# Usage: ping.sh target/release/own-appliance
set -euo pipefail
program=$(realpath "$1")
cd "$(dirname "$0")"
export LC_ALL=C
tag=own$$
spaces=("$tag-subscriber" "$tag-appliance" "$tag-network")
work=$(mktemp -d)

clean_up() {
	[ -z "${pid:-}" ] || { kill "$pid" 2>/dev/null && wait "$pid"; } || true
	for space in "${spaces[@]}"; do ip netns del "$space" 2>/dev/null || true; done
	rm -rf "$work"
}
trap clean_up EXIT

fail() {
	echo "FAILED: $*" >&2
	cat "$work/log" >&2
	exit 1
}

# subscriber (10.77.0.1) -- lan0 appliance wan0 -- network (10.77.0.254)
for space in "${spaces[@]}"; do ip netns add "$space"; done
wire() { # arguments: namespace, interface and address there, interface of the appliance
	ip -n "$tag-appliance" link add "$4" type veth peer name "$2" netns "$tag-$1"
	ip -n "$tag-$1" address add "$3" dev "$2"
	ip -n "$tag-$1" link set "$2" up
	ip -n "$tag-appliance" link set "$4" up
}
wire subscriber sub0 10.77.0.1/24 lan0
wire network net0 10.77.0.254/24 wan0
ip -n "$tag-subscriber" address add 10.77.0.2/24 dev sub0

sed "s|/run/own-appliance.sock|$work/socket|" appliance.toml >"$work/appliance.toml"
appliance=(ip netns exec "$tag-appliance" "$program")
"${appliance[@]}" --config "$work/appliance.toml" --check || fail "the appliance rejected its configuration (--check)"
"${appliance[@]}" --config "$work/appliance.toml" >"$work/report" 2>"$work/log" &
pid=$!

ping_from() { ip netns exec "$tag-subscriber" ping -c 3 -i 0.2 -W 1 -I "$1" 10.77.0.254 >/dev/null; }
ctl() { "${appliance[@]}" ctl --socket "$work/socket" "$@"; }

# Retry the first ping: the appliance may not forward yet.
for attempt in {1..50}; do
	ping_from 10.77.0.1 && break
	[ "$attempt" != 50 ] || fail "a known subscriber got no ping reply"
done
! ping_from 10.77.0.2 || fail "an unknown subscriber got a ping reply"
ctl subscribers add 10.77.0.2 || fail "ctl subscribers add failed"
ping_from 10.77.0.2 || fail "the added subscriber got no ping reply"
ctl subscribers | tee "$work/list"
grep -Eq '10\.77\.0\.2 +3 +294' "$work/list" || fail "the counters of the added subscriber are not 3 packets, 294 bytes"
ctl stats | grep -q 'dropped as no_subscriber: 3' || fail "the drop counter no_subscriber is not 3"
ctl status | grep -q '^own-appliance 0.1.0,' || fail "ctl status does not print the name and version of the program"

kill "$pid"
wait "$pid" || fail "the appliance ended with exit status $?"
pid=
grep -q 'own-appliance: .* packets of known subscribers' "$work/log" || fail "the on_stopped hook did not run"
echo "own-appliance forwards, drops, counts and stops as expected"
