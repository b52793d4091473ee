#!/bin/bash
# Starts mariadb as its own user; an empty data directory gets a system database first
# (MARIADB_ or MYSQL_ ROOT_PASSWORD, DATABASE, USER, PASSWORD).
set -e
[ "${1:0:1}" != - ] || set -- mariadbd "$@"
case $1 in mysqld | mariadbd) ;; *) exec "$@" ;; esac
setting() { local a="MARIADB_$1" b="MYSQL_$1"; printf '%s' "${!a:-${!b:-}}"; }
data=/var/lib/mysql
if [ "$(id -u)" = 0 ]; then
  mkdir -p /run/mysqld
  chown mysql:mysql /run/mysqld
  find "$data" \! -user mysql -exec chown mysql:mysql '{}' +
  exec setpriv --reuid=mysql --regid=mysql --init-groups --inh-caps=-all "$0" "$@"
fi
if [ ! -d "$data/mysql" ]; then
  root=$(setting ROOT_PASSWORD)
  if [ -z "$root" ] && [ -z "$(setting ALLOW_EMPTY_ROOT_PASSWORD)" ] && [ -z "$(setting ALLOW_EMPTY_PASSWORD)" ]; then
    echo 'error: the database is empty and MARIADB_ROOT_PASSWORD (or MYSQL_ROOT_PASSWORD) is not set' >&2; exit 1
  fi
  mariadb-install-db --auth-root-authentication-method=normal --skip-test-db --datadir="$data" >/dev/null
  quote() { printf "'%s'" "$(printf '%s' "$1" | sed "s/[\\\\']/\\\\&/g")"; }
  {
    echo 'FLUSH PRIVILEGES;'
    echo "SET PASSWORD FOR 'root'@'localhost' = PASSWORD($(quote "$root"));"
    echo "CREATE USER IF NOT EXISTS 'root'@'%' IDENTIFIED BY $(quote "$root");"
    echo "GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;"
    database=$(setting DATABASE) user=$(setting USER)
    [ -z "$database" ] || echo "CREATE DATABASE IF NOT EXISTS \`$database\`;"
    if [ -n "$user" ]; then
      echo "CREATE USER IF NOT EXISTS $(quote "$user")@'%' IDENTIFIED BY $(quote "$(setting PASSWORD)");"
      [ -z "$database" ] || echo "GRANT ALL ON \`$database\`.* TO $(quote "$user")@'%';"
    fi
  } | mariadbd --bootstrap --datadir="$data" >/dev/null
  echo 'MariaDB init process done. Ready for start up.'
fi
exec "$@" --datadir="$data" --bind-address=0.0.0.0
