# Process 1 of a test guest: makes what systemd would have made, runs what the settings name, says how it ended, powers off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sys /sys
mount -t devtmpfs -o nosuid dev /dev
mkdir -p /dev/pts /dev/shm
ln -s /proc/self/fd /dev/fd
mount -t devpts -o nosuid,noexec,mode=620,ptmxmode=666,gid=5 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev tmpfs /dev/shm
mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs /run
mount -t securityfs security /sys/kernel/security
mount -t bpf bpf /sys/fs/bpf
mount --make-rshared /
# The options and the empty root group of a systemd machine.
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
mkdir /sys/fs/cgroup/init.scope
echo 1 > /sys/fs/cgroup/init.scope/cgroup.procs
mkdir /sys/fs/cgroup/tests.scope
ip link set lo up
modprobe -a loop tun # what a device of the host is tried with
hostname guest
. /payload/settings
date -s "@$date" > /dev/null
# The programs lie where they were built: the tests have the paths in them.
(cd /payload/files && find . -type f -printf '%h\n' | sort -u) | while read -r directory; do mkdir -p "/${directory#./}"; done
top=/$(ls /payload/files | head -n1)
mount --bind "/payload/files$top" "$top"
export BULKHEAD_TEST_CACHE=/payload/cache BULKHEAD_TEST_DIR=/var/tmp BULKHEAD_TEST_SEED=$seed BULKHEAD_TEST_GUEST=1
mapfile -t filters < /payload/filters
[ -n "${filters[0]}" ] || filters=()
echo "guest: $(uname -r), control groups: $(cat /sys/fs/cgroup/cgroup.controllers)"
cd "$home"
(
  # A login's session is a group of its own, too.
  echo $BASHPID > /sys/fs/cgroup/tests.scope/cgroup.procs
  case $mode in
  sh) export PATH=$PATH:$home/target/x86_64-unknown-linux-musl/debug; bash -c "${filters[0]}" ;;
  *) # The house rules read all of the source, which is not here, and are the same under every kernel.
    /payload/tests --test-threads "${BULKHEAD_GUEST_THREADS:-2}" --skip tidy:: "${filters[@]}" ;;
  esac
) < /dev/null 2>&1
echo "guest: ended with $?"
sync
echo o > /proc/sysrq-trigger
sleep 60
