#!/bin/bash
# shellcheck disable=SC2154 # `settings` assigns these variables
# Runs in the machine after init.sh has mounted the file systems. The host has written the file
# `settings` to the same folder. It contains the command, its working folder and environment, and a
# name for each MAC address.
cd /run/vm || exit
modprobe virtio_console
# Wait for the virtio port to the host. Then send the output of all commands below to it.
for _ in $(seq 100); do
	ls /dev/vport*p1 >/dev/null 2>&1 && break
	sleep 0.1
done
for port in /dev/vport*p1; do
	exec >"$port" 2>&1
done
# finish STATUS: writes the exit status for the host and switches the machine off.
finish() {
	dmesg >dmesg
	echo "$1" >status.part
	mv status.part status
	sync
	echo o >/proc/sysrq-trigger
	sleep 60
}
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb USER=root
hostname xdpfwd-vm
ulimit -l unlimited
ip link set lo up
# Copy the kernel's build configuration to the path where programs expect it.
[ ! -e config ] || cp config "/boot/config-$(uname -r)"
for module in virtio_net igb veth xsk_diag; do
	modprobe "$module"
done
# In zero-copy mode, a device reads other memory instead of virtio_net's header, xsk_hdr. machine.rs
# reserves that memory only if the header is in the lowest 64 MiB of the module area.
header=$(awk '$3 == "xsk_hdr" { print $1 }' /proc/kallsyms)
if [ -n "$header" ] && ! [[ $header =~ ^ffffffffc[0-3] ]]; then
	echo "xdpfwd-vm: xsk_hdr of virtio_net is at $header, outside of the reserved memory: set" \
		"memmap= in crates/vm/src/machine.rs to this address - 0xffffffff80000000"
	finish 125
fi
# Disable IPv6, so that interfaces send no unsolicited packets.
echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
. ./settings
# rename MAC NAME: renames the interface with this MAC address. Without such an interface, finishes
# with status 125: xdpfwd-vm itself failed.
rename() {
	for address in /sys/class/net/*/address; do
		if [ "$(cat "$address")" = "$1" ]; then
			interface=${address#/sys/class/net/}
			ip link set "${interface%/address}" name "$2" && return
		fi
	done
	echo "xdpfwd-vm: no interface has MAC address $1 (for $2): check that its driver is loaded"
	finish 125
}
# Each element of `nics` is MAC=NAME.
for nic in "${nics[@]}"; do
	rename ${nic/=/ }
done
cd "$folder" || finish 125
"${command[@]}" </dev/null
status=$?
cd /run/vm && finish $status
