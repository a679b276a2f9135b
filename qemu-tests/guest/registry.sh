#!/bin/busybox sh
# PID 1 of a machine that is nothing but a registry and its witnesses on a disk that forgets. Whoever
# watches the console cuts the power. `registry.fsck` on the kernel's command line asks for a check of
# the log instead.

/bin/busybox --install -s /sbin
PATH=/bin:/sbin
export PATH
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in crc32c_intel xxhash_generic sha256_ssse3 blake2b_generic virtio_blk virtio_net btrfs; do
    modprobe $module || echo "guest: no $module"
done
ifconfig lo 127.0.0.1 up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
mkdir /disk
mount -t btrfs /dev/vda /disk || echo "guest: failed: the disk cannot be mounted"

# Programs of the machine that tests, with its loader and libraries.
run() {
    program=$1
    shift
    ld-linux-x86-64.so.2 --library-path /bin "/bin/$program" "$@"
    echo "guest: failed: $program has ended"
}

# What nobody syncs, told as soon as it is written.
count=$(cat /disk/control 2>/dev/null)
echo "guest: control was ${count:-0}"
while sleep 0.2; do
    count=$((${count:-0} + 1))
    echo $count > /disk/control
    echo "guest: control is $count"
done &

if grep -q "registry.fsck" /proc/cmdline; then
    ld-linux-x86-64.so.2 --library-path /bin /bin/registryd fsck --data /disk/registry \
        && echo "guest: checked" || echo "guest: failed: the log"
else
    for number in 0 1 2; do
        run witnessd run --config /disk/witness-$number/witness.toml &
    done
    run registryd --listen 0.0.0.0:7380 --network test --data /disk/registry \
        --witnesses /disk/witnesses.policy &
fi
while true; do
    sleep 1000
done
