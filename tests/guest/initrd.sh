#!/bin/busybox sh
# First program of a test guest: loads what its disks need, mounts them, goes on with tests/guest/init.sh.
b=/bin/busybox
$b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod "$module" || echo "guest: cannot load $module"; done
tries=0
until [ -b /dev/vdc ] || [ $tries = 100 ]; do $b sleep 0.1; tries=$((tries + 1)); done
$b mount -t ext4 /dev/vda /new && $b mount -t ext4 -o ro /dev/vdb /new/lib/modules && $b mount -t ext4 /dev/vdc /new/payload ||
  { echo 'guest: cannot mount the disks'; $b poweroff -f; }
$b umount /dev
exec $b switch_root /new /bin/bash /payload/init
