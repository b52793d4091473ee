#!/usr/bin/env bash
# Makes a base image from this machine's distribution packages, for places that reach no registry.
#
#   make.sh NAME            makes it once, then prints the path of its tar      (python node ubuntu nginx redis postgres mariadb debian busybox)
#   make.sh --changes NAME  prints what `import` has to set, one instruction a line
#   make.sh --import NAME   makes it and imports it with $BULKHEAD (default: bulkhead)
#   make.sh --list          prints each name and the reference it stands for
#
# A tar is kept in ${BULKHEAD_TEST_CACHE:-$HOME/.cache/bulkhead-tests}. The package mirror is what this machine's apt uses;
# it is read at run time and no trace of it stays in the image.
set -euo pipefail
cache=${BULKHEAD_TEST_CACHE:-${HOME:-/root}/.cache/bulkhead-tests}
work=
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
say() { printf '%s\n' "images: $*" >&2; }

reference() { case $1 in
  python) echo python:3.8-slim-buster ;; node) echo node:16 ;; debian) echo debian:stable ;; ubuntu) echo ubuntu:18.04 ;;
  busybox | nginx | redis | postgres | mariadb) echo "$1:latest" ;;
  *) say "no such image: $1 (see make.sh --list)"; return 2 ;; esac; }

packages() { case $1 in
  python) echo python3,python3-pip,ca-certificates ;;
  node) echo nodejs,npm,ca-certificates ;;
  debian) echo ca-certificates ;;
  ubuntu) echo python3,python3-pip,make,wget,ca-certificates ;;
  nginx) echo nginx-light,ca-certificates ;;
  redis) echo redis-server ;;
  postgres) echo postgresql,locales ;;
  mariadb) echo mariadb-server ;; esac; }

# What the official image of that name declares.
changes() { case $1 in
  busybox) echo 'CMD ["sh"]' ;;
  debian | ubuntu) echo 'CMD ["bash"]' ;;
  python) printf '%s\n' 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' 'ENV LANG=C.UTF-8' 'CMD ["python3"]' ;;
  node) printf '%s\n' 'CMD ["node"]' ;;
  nginx) printf '%s\n' 'EXPOSE 80' 'STOPSIGNAL SIGQUIT' 'CMD ["nginx", "-g", "daemon off;"]' ;;
  redis) printf '%s\n' 'WORKDIR /data' 'VOLUME /data' 'EXPOSE 6379' 'ENTRYPOINT ["docker-entrypoint.sh"]' 'CMD ["redis-server"]' ;;
  postgres) printf '%s\n' 'ENV PGDATA=/var/lib/postgresql/data' 'ENV LANG=C.UTF-8' 'VOLUME /var/lib/postgresql/data' 'EXPOSE 5432' 'STOPSIGNAL SIGINT' \
      'ENTRYPOINT ["docker-entrypoint.sh"]' 'CMD ["postgres"]' ;;
  mariadb) printf '%s\n' 'VOLUME /var/lib/mysql' 'EXPOSE 3306' 'ENTRYPOINT ["docker-entrypoint.sh"]' 'CMD ["mariadbd"]' ;; esac; }

# What the packages leave to be done so that the root behaves like the official image ($1 name, $2 root).
finish() {
  local root=$2
  case $1 in
  python)
    rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
    ln -sf python3 "$root/usr/bin/python" ;;
  node) [ -e "$root/usr/bin/node" ] || ln -sf nodejs "$root/usr/bin/node" ;;
  nginx)
    ln -sf /dev/stdout "$root/var/log/nginx/access.log"
    ln -sf /dev/stderr "$root/var/log/nginx/error.log" ;;
  redis)
    mkdir -p "$root/data"
    chroot "$root" chown redis:redis /data ;;
  esac
  if [ -f "$here/$1-entrypoint.sh" ]; then
    install -m 0755 "$here/$1-entrypoint.sh" "$root/usr/local/bin/docker-entrypoint.sh"
  fi
  rm -f "$root"/etc/apt/sources.list.d/* "$root"/etc/apt/apt.conf.d/99mmdebstrap "$root"/etc/dpkg/dpkg.cfg.d/99mmdebstrap
  : > "$root/etc/apt/sources.list"
  rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/log/apt "$root"/var/log/dpkg.log "$root"/var/log/alternatives.log
  : > "$root/etc/resolv.conf"; : > "$root/etc/hostname"; rm -f "$root/etc/machine-id"; : > "$root/etc/machine-id"
  rm -rf "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/*
}

# What one image alone needs besides: a function of its own, so that a change makes no other image anew.
# The package fills the data directory at installation; the official image leaves that to the entry point, in the volume.
finish_mariadb() { find "$1/var/lib/mysql" -mindepth 1 -delete; }
# Stands for a base that tutorials call `make`, `python` and `pip` in.
finish_ubuntu() {
  rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED
  ln -sf python3 "$1/usr/bin/python"
}

# The Debian sources of this machine, as one-line entries. Third-party sources are left out.
sources() {
  apt-get indextargets --format '$(ORIGIN)|$(SIGNED_BY)|$(SITE)|$(RELEASE)|$(COMPONENT)' 'Created-By: Packages' |
    while IFS='|' read -r origin signed site release component; do
      [ "$origin" = Debian ] || continue
      # An empty or inline key falls back to the archive's own keyring.
      case $signed in /*) ;; *) signed=/usr/share/keyrings/debian-archive-keyring.gpg ;; esac
      printf 'deb [signed-by=%s] %s %s %s\n' "$signed" "$site" "$release" "$component"
    done | sort -u
}

# A digest of everything that decides what is in the tar: a change of it makes the image anew.
recipe() {
  { packages "$1"; declare -f finish make_busybox "finish_$1" || true; cat "$here/$1-entrypoint.sh" 2>/dev/null || true; } | sha256sum | cut -d' ' -f1
}

make_busybox() {
  local root=$1 binary
  binary=$(command -v busybox)
  mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,etc,proc,sys,dev,tmp,root,var/www,home}
  chmod 1777 "$root/tmp"
  cp "$binary" "$root/bin/busybox"
  "$binary" --list | while read -r applet; do [ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"; done
  printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n' > "$root/etc/passwd"
  printf 'root:x:0:\ndaemon:x:1:\nusers:x:100:daemon\nnogroup:x:65534:\n' > "$root/etc/group"
}

make() {
  local name=$1 tar=$cache/$1.tar started=$SECONDS recipe
  reference "$name" >/dev/null
  recipe=$(recipe "$name")
  mkdir -p "$cache"
  exec 9> "$cache/.$name.lock"; flock 9
  if [ -s "$tar" ] && [ "$(cat "$tar.recipe" 2>/dev/null)" = "$recipe" ]; then echo "$tar"; return; fi
  work=$(mktemp -d "$cache/.$name.XXXXXX")
  trap '[ -z "$work" ] || rm -rf "$work"' EXIT
  if [ "$name" = busybox ]; then
    make_busybox "$work/root"
    tar -C "$work/root" --numeric-owner --owner=0 --group=0 --sort=name -cf "$work/image.tar" .
  else
    say "making $name ($(reference "$name")) from distribution packages; this is done once and takes a minute or two"
    local options=() line
    while read -r line; do options+=(--aptopt="$line"); done < <(apt-config dump | grep -E '^Acquire::https?::(Proxy|Verify-Peer|CaInfo)' || true)
    if [ "$name" = postgres ]; then # no cluster at installation: the entry point makes one in the volume
      options+=(--essential-hook='mkdir -p "$1/etc/postgresql-common" && echo "create_main_cluster = false" > "$1/etc/postgresql-common/createcluster.conf"')
    fi
    sources > "$work/sources"
    [ -s "$work/sources" ] || { say "this machine's apt knows no Debian sources: run apt-get update first"; return 1; }
    mmdebstrap --quiet --format=tar --mode=root --variant=minbase --include="$(packages "$name")" "${options[@]}" \
      --customize-hook="$here/make.sh --finish $name \"\$1\"" \
      "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$work/image.tar" "$work/sources" >&2
  fi
  mv "$work/image.tar" "$tar"
  echo "$recipe" > "$tar.recipe"
  say "made $tar: $(($(stat -c %s "$tar") >> 20)) MiB in $((SECONDS - started)) s"
  echo "$tar"
}

case ${1:-} in
  --list) for n in busybox debian ubuntu python node nginx redis postgres mariadb; do printf '%-10s %s\n' "$n" "$(reference "$n")"; done ;;
  --changes) reference "$2" >/dev/null && changes "$2" ;;
  --finish) finish "$2" "$3"; if declare -F "finish_$2" >/dev/null; then "finish_$2" "$3"; fi ;;
  --sources) sources ;;
  --recipe) recipe "$2" ;;
  --import)
    tar=$(make "$2"); arguments=()
    while read -r line; do arguments+=(--change "$line"); done < <(changes "$2")
    "${BULKHEAD:-bulkhead}" import "${arguments[@]}" "$tar" "$(reference "$2")" ;;
  '' | -h | --help) sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" ;;
  *) make "$1" ;;
esac
