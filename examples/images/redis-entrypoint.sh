#!/bin/sh
# Starts redis as its own user, with its data directory owned by it; anything else is run as it stands.
set -e
case ${1:-} in -* | *.conf) set -- redis-server "$@" ;; esac
if [ "${1:-}" = redis-server ]; then
  if [ "$(id -u)" = 0 ]; then
    find . \! -user redis -exec chown redis '{}' +
    exec setpriv --reuid=redis --regid=redis --init-groups --inh-caps=-all "$0" "$@" --protected-mode no
  fi
fi
exec "$@"
