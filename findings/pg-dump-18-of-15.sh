#!/usr/bin/env bash
# pg_dump 18.6 can't move a table from Postgres 15.20 (Debian's packages 18.6-3 and 15.20-0+deb12u1) to 18.6: it takes
# 15.20's own mark on each column (pg_attver, in pg_attribute.attoptions) for an option that somebody set, writes
# ALTER TABLE … ALTER COLUMN … SET (pg_attver=…), and 18.6 answers: unrecognized parameter "pg_attver". The manual advises
# the newer pg_dump for upgrades; here the dump of the older one, 15.20, is the one that 18.6 takes.
# Seen on 2026-11-28. Needs root and Debian's package sources; the programs run in folders of their own.
set -euo pipefail
work=$(mktemp -d)
end() {
    for server in 15 18; do
        [ ! -e "$work/$server/tmp/data/postmaster.pid" ] || kill -INT "$(head -n1 "$work/$server/tmp/data/postmaster.pid")"
    done
    wait
    rm -rf "$work"
}
trap end EXIT

# version, release, packages: their files and those of all they need, in $work/VERSION
install() {
    local root=$work/$1 apt=$work/apt-$1 own
    own=$(. /etc/os-release && echo "$VERSION_CODENAME")
    mkdir -p "$root/tmp" "$apt"/{state/lists/partial,cache/archives/partial,parts}
    touch "$apt/state/status"
    sed "s/\b$own\b/$2/g" /etc/apt/sources.list.d/debian.sources >"$apt/parts/debian.sources"
    local options=(-qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$apt/parts" -o Dir::State="$apt/state"
        -o Dir::State::status="$apt/state/status" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update
    apt-get "${options[@]}" install --yes --no-install-recommends --download-only coreutils dash libc-bin tzdata \
        "${@:3}" >/dev/null
    for package in "$apt"/cache/archives/*.deb; do dpkg -x "$package" "$root"; done
    for folder in bin sbin lib lib64; do [ -e "$root/$folder" ] || ln -s "usr/$folder" "$root/$folder"; done
    mkdir -p "$root/etc"
    cp /etc/passwd /etc/group "$root/etc/"
    chmod 1777 "$root/tmp"
}

# version, program and arguments
run() { chroot --userspec=nobody:nogroup "$work/$1" /usr/bin/env LC_ALL=C PATH="/usr/lib/postgresql/$1/bin:/usr/bin:/bin" "${@:2}"; }

start() {
    mkdir -p "$work/$1/dev"
    cp -a /dev/null /dev/zero /dev/urandom "$work/$1/dev/"
    run "$1" initdb --auth=trust --username=postgres --pgdata=/tmp/data >/dev/null
    run "$1" postgres -D /tmp/data -k /tmp -p "$2" -c listen_addresses=127.0.0.1 -c dynamic_shared_memory_type=mmap \
        >"$work/log-$1" 2>&1 &
    timeout 60 bash -c "until grep -q 'ready to accept' '$work/log-$1'; do sleep 0.2; done"
}

install 15 bookworm postgresql-15=15.20-0+deb12u1
install 18 forky postgresql-18=18.6-3
start 15 15432
start 18 18432
run 15 psql -qh 127.0.0.1 -p 15432 -U postgres -c "create table t (a int, b text)"
dump() { run "$1" pg_dump -h 127.0.0.1 -p 15432 -U postgres postgres; }
restore() { run 18 psql -qXh 127.0.0.1 -p 18432 -U postgres -v ON_ERROR_STOP=1 "$1" 2>&1; }

dump 18 | grep "SET (pg_attver="
said=$(dump 18 | restore postgres || true)
echo "$said"
[[ $said == *'unrecognized parameter "pg_attver"'* ]]
if dump 15 | grep pg_attver; then exit 1; fi
run 18 createdb -h 127.0.0.1 -p 18432 -U postgres other
dump 15 | restore other >/dev/null
echo "as described"
