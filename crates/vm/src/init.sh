#!/bin/busybox sh
# shellcheck shell=dash disable=SC2093
# The first process in the machine. Mounts the host's file system, with a writable layer in memory,
# as the root file system. Then starts run.sh, which xdpfwd-vm has written to the output folder that
# the host and the machine share.
bb=/bin/busybox
fail() {
	$bb echo "xdpfwd-vm: $*"
	$bb poweroff -f
}
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do
	$bb insmod "$module" || fail "cannot load $module"
done
share_options=trans=virtio,version=9p2000.L,msize=512000
$bb mount -t 9p -o ro,cache=loose,$share_options root /lower || fail "cannot mount the host's file system"
$bb mount -t tmpfs tmpfs /layer
$bb mkdir /layer/upper /layer/work
$bb mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work overlay /new || fail "cannot mount the writable layer"
for folder in proc sys dev; do
	$bb mount -o move /$folder /new/$folder
done
$bb mkdir -p /new/dev/pts /new/dev/shm
$bb mount -t devpts devpts /new/dev/pts
$bb mount -t tmpfs tmpfs /new/dev/shm
$bb mount -t tmpfs tmpfs /new/run
$bb mount -t bpf bpf /new/sys/fs/bpf
$bb mount -t debugfs debugfs /new/sys/kernel/debug
$bb mount -t tracefs tracefs /new/sys/kernel/tracing
$bb mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
$bb mkdir -p /new/lib/modules /new/run/vm
$bb mount -t 9p -o ro,cache=loose,$share_options modules /new/lib/modules || fail "cannot mount the kernel's modules"
$bb mount -t 9p -o rw,$share_options output /new/run/vm || fail "cannot mount the output folder"
exec $bb switch_root /new /run/vm/run.sh
fail "switch_root failed"
