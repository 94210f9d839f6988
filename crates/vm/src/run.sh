#!/bin/bash
# shellcheck disable=SC2154 # `settings` assigns them
# Runs in the machine after the root file system is mounted. The host writes `settings` to the same
# folder: command, working folder, environment, and interface names by MAC address.
cd /run/vm || exit
modprobe virtio_console
# Wait for the virtio port: it appears some time after its driver is loaded.
for _ in $(seq 100); do
	ls /dev/vport*p1 >/dev/null 2>&1 && break
	sleep 0.1
done
for port in /dev/vport*p1; do
	exec >"$port" 2>&1
done
# finish STATUS: reports the exit status to the host and switches the machine off.
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
# Copy the build configuration to the path where programs expect it.
[ ! -e config ] || cp config "/boot/config-$(uname -r)"
for module in virtio_net igb veth xsk_diag; do
	modprobe "$module"
done
# Suppress unsolicited IPv6 packets.
echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
. ./settings
# rename MAC NAME: renames the interface with this MAC address.
rename() {
	for address in /sys/class/net/*/address; do
		if [ "$(cat "$address")" = "$1" ]; then
			interface=${address#/sys/class/net/}
			ip link set "${interface%/address}" name "$2" && return
		fi
	done
	echo "xdpfwd-vm: no interface has MAC address $1 (for $2): the driver did not create it"
	finish 125
}
for nic in "${nics[@]}"; do
	rename ${nic/=/ }
done
cd "$folder" || finish 125
"${command[@]}" </dev/null
status=$?
cd /run/vm && finish $status
