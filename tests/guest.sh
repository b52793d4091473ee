#!/usr/bin/env bash
# Runs the tests of the real kernel under the kernels Debian ships, in QEMU: pure control group v2, older Landlock, modules.
#   tests/guest.sh                       both kernels, the whole suite
#   tests/guest.sh 6.1 hardening:: exec  one kernel, the tests whose name matches a filter
#   tests/guest.sh 6.12 --lib            the tests beside the code instead (filters may follow)
#   tests/guest.sh 6.1 --sh 'COMMAND'    a command in the guest instead, for a look around
# Kernel, modules and root file system come from this machine's Debian packages and are kept in the cache. Nothing of the
# guest is kept: its disks are snapshots. BULKHEAD_GUEST_SECONDS bounds one guest (default 3400).
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/lib.sh
cache=$cache/guest
work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
limit=${BULKHEAD_GUEST_SECONDS:-3400}
kernels=() mode=it filters=()
while [ $# -gt 0 ]; do
  case $1 in
  6.1 | 6.12) kernels+=("$1") ;;
  --lib) mode=lib ;;
  --sh) mode=sh filters+=("$2"); shift ;;
  -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) filters+=("$1") ;;
  esac
  shift
done
[ ${#kernels[@]} -gt 0 ] || kernels=(6.1 6.12)
[ "$(id -u)" = 0 ] || { say "needs root: it makes file system images of root's files"; exit 1; }

need qemu-system-x86=qemu-system-x86_64 kmod=depmod cpio=cpio xz-utils=xz e2fsprogs=mkfs.ext4 mmdebstrap=mmdebstrap \
  busybox-static=/usr/share/doc/busybox-static jq=jq
need_rust
mkdir -p "$cache"
work=$(mktemp -d "$cache/.work.XXXXXX")

# image DIRECTORY FILE MEGABYTES: makes an ext4 file system of a directory.
image() { rm -f "$2.new"; mkfs.ext4 -q -F -E root_owner=0:0 -O ^has_journal -d "$1" "$2.new" "$3M" > /dev/null; mv "$2.new" "$2"; }

# What the guest's programs are: a small Debian, made anew when this list changes.
packages=iproute2,nftables,busybox-static,kmod,strace,jq,curl,procps,util-linux,e2fsprogs
packages+=,git,python3,xz-utils,openssl,openssh-client,docker-registry,skopeo
make_root() {
  [ "$(cat "$cache/root.recipe" 2>/dev/null)" = "$packages" ] && [ -s "$cache/root.ext4" ] && return
  say "making the guest's root file system from distribution packages; this is done once"
  local options=() line
  while read -r line; do options+=(--aptopt="$line"); done < <(apt-config dump | grep -E '^Acquire::https?::(Proxy|Verify-Peer|CaInfo)' || true)
  examples/images/make.sh --sources > "$work/sources"
  [ -s "$work/sources" ] || { say "this machine's apt knows no Debian sources: run apt-get update first"; return 1; }
  mmdebstrap --quiet --format=tar --mode=root --variant=minbase --include="$packages" "${options[@]}" \
    "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$work/root.tar" "$work/sources" >&2
  mkdir "$work/root"
  tar -C "$work/root" --numeric-owner -xf "$work/root.tar"
  mkdir -p "$work/root/payload" "$work/root/lib/modules"
  rm -rf "$work/root/usr/share/doc" "$work/root/var/lib/apt/lists" "$work/root/var/cache/apt"
  image "$work/root" "$cache/root.ext4" 6144
  echo "$packages" > "$cache/root.recipe"
  rm -rf "$work/root" "$work/root.tar"
}

# The package behind Debian's name for the newest kernel of a series.
newest() {
  local meta=linux-image-amd64
  [ "$1" = 6.1 ] || meta=linux-image-$1-amd64
  apt-cache depends "$meta" 2>/dev/null | sed -n "s/^ *Depends: \(linux-image-${1//./\\.}\.[0-9].*\)/\1/p" | head -n1
}

# Fetches a series' kernel once; sets $kernel to the directory with vmlinuz, initrd (all but its /init) and modules.ext4.
make_kernel() {
  local package release
  package=$(newest "$1")
  [ -n "$package" ] || { say "this machine's apt offers no kernel $1: apt-get update, or add its suite"; return 1; }
  release=${package#linux-image-}
  kernel=$cache/$release
  [ -s "$kernel/done" ] && return
  say "fetching $package; this is done once"
  mkdir -p "$kernel" "$work/deb" "$work/tree"
  (cd "$work/deb" && apt-get -qq -o APT::Sandbox::User=root download "$package")
  dpkg-deb -x "$work"/deb/*.deb "$work/tree"
  cp "$work/tree/boot/vmlinuz-$release" "$kernel/vmlinuz"
  depmod -b "$work/tree" "$release"
  # A module disk, which the guest's modprobe uses as on any Debian, and an initramfs that gets as far as mounting disks.
  image "$work/tree/lib/modules" "$kernel/modules.ext4" 640
  mkdir -p "$work/initrd/bin" "$work/initrd/modules" "$work/initrd/new" "$work/initrd/proc" "$work/initrd/dev"
  cp "$(command -v busybox)" "$work/initrd/bin/busybox"
  local number=10 module file
  for module in virtio_pci virtio_blk ext4; do
    while read -r file; do
      grep -qxF "$file" "$work/loaded" 2>/dev/null && continue
      echo "$file" >> "$work/loaded"
      case $file in
      *.xz) xz -dc "$file" > "$work/initrd/modules/$number" ;;
      *) cp "$file" "$work/initrd/modules/$number" ;;
      esac
      number=$((number + 1))
    done < <(modprobe -d "$work/tree" -S "$release" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p')
  done
  (cd "$work/initrd" && find . | cpio --quiet -o -H newc) > "$kernel/initrd"
  rm -rf "$work/deb" "$work/tree" "$work/initrd" "$work/loaded"
  echo "$package" > "$kernel/done"
}

# The programs under test, where they were built, and what the tests read.
make_payload() {
  local tests place
  case $mode in lib) tests=(--lib) ;; *) tests=(--test it) ;; esac
  cargo build --locked --quiet
  tests=$(cargo test --locked --no-run --message-format=json "${tests[@]}" 2>/dev/null | jq -r 'select(.profile.test == true) | .executable // empty' | tail -n1)
  [ -x "$tests" ] || { say "cargo built no tests"; return 1; }
  place=$work/payload
  mkdir -p "$place/files$PWD/tests" "$place/cache"
  cp -a examples "$place/files$PWD/"
  cp -a tests/data "$place/files$PWD/tests/"
  # Sources that tests compare with what they make or know.
  mkdir -p "$place/files$PWD/fuzz" "$place/files$PWD/src/security/seccomp"
  cp -a fuzz/targets "$place/files$PWD/fuzz/"
  cp -a src/security/seccomp/programs.rs "$place/files$PWD/src/security/seccomp/"
  local program; program=$(realpath "$(binary)")
  mkdir -p "$place/files$(dirname "$program")"
  objcopy --strip-debug "$program" "$place/files$program"
  objcopy --strip-debug "$tests" "$place/tests"
  local tar; for tar in "$(dirname "$cache")"/busybox.tar*; do cp "$tar" "$place/cache/"; done
  cp tests/guest/init.sh "$place/init"
  { echo "mode=$mode"; echo "home=$PWD"; echo "seed=${BULKHEAD_TEST_SEED:-$(date +%s)}"; echo "date=$(date +%s)"; } > "$place/settings"
  printf '%s\n' "${filters[@]}" > "$place/filters"
  image "$place" "$work/payload.ext4" 1024
}

# Runs one kernel; the guest says on its console how it ended.
run_guest() {
  local accel=tcg,thread=multi cpu=max,la57=off log=$work/console status
  # An opened /dev/kvm proves nothing on clouds whose kernels only run guests made for them.
  if [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then accel=kvm cpu=host; fi
  say "Linux $1 from ${kernel##*/} (${accel%%,*})"
  mkdir -p "$work/first"
  install -m 0755 tests/guest/initrd.sh "$work/first/init"
  # The kernel unpacks one archive after the other.
  { cat "$kernel/initrd"; (cd "$work/first" && echo init | cpio --quiet -o -H newc); } > "$work/initrd.img"
  timeout "$limit" qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -M q35 -accel "$accel" -cpu "$cpu" \
    -smp 2 -m 3072 -kernel "$kernel/vmlinuz" -initrd "$work/initrd.img" -serial stdio \
    -append 'console=ttyS0 loglevel=1 panic=-1 mitigations=off nokaslr random.trust_cpu=on' \
    -drive "file=$cache/root.ext4,format=raw,if=virtio,snapshot=on" \
    -drive "file=$kernel/modules.ext4,format=raw,if=virtio,snapshot=on" \
    -drive "file=$work/payload.ext4,format=raw,if=virtio,snapshot=on" < /dev/null 2>&1 | sed -u 's/\r$//' | tee "$log" || true
  status=$(sed -n 's/^guest: ended with \([0-9]*\)$/\1/p' "$log" | tail -n1)
  [ -n "$status" ] || say "Linux $1: the guest did not get to its end within $limit s"
  return "${status:-1}"
}

make_root
make_payload
failed=0
for series in "${kernels[@]}"; do
  make_kernel "$series"
  started=$SECONDS
  run_guest "$series" || failed=1
  say "Linux $series: $((SECONDS - started)) s"
done
exit $failed
