#!/usr/bin/env bash
# Makes a volume of Postgres 15 one of Postgres 18: `docker/upgrade-postgres.sh VOLUME`, while nothing uses it. What 15
# had stays in the volume until `docker/upgrade-postgres.sh --remove-old VOLUME`. Needs nothing but `docker`.
#
# The data of 15 lie at the volume's root, those of 18 in 18/docker. That folder appears by one rename, after everything
# was copied and compared: ended before by whatever, this can be run again. It is a dump and a restore, since the two
# images' C libraries sort differently, so that every index must be built anew.
#
# Environment: POSTGRES_USER (plinth), the superuser; START_TIMEOUT (300), seconds that a server may take to start;
# POSTGRES and POSTGRES_OLD, other images than versions.env names.
set -euo pipefail

usage="usage: docker/upgrade-postgres.sh [--remove-old] VOLUME"
here=$(cd "$(dirname "$0")" && pwd)
inside=$(cat "$here/upgrade-postgres.inside.sh")
root=/var/lib/postgresql
user=${POSTGRES_USER:-plinth}
start_timeout=${START_TIMEOUT:-300}

say() { printf '%s\n' "$*"; }
fail() { say "upgrade-postgres: $*" >&2; exit 1; }

# From the environment, else from the list of versions.
image() { local given=${!1:-}; say "${given:-$(sed -n "s/^$1=//p" "$here/versions.env")}"; }

remove_old=no
if [ "${1:-}" = --remove-old ]; then remove_old=yes; shift; fi
if [ $# != 1 ] || [ "${1#-}" != "$1" ]; then say "$usage" >&2; exit 2; fi
volume=$1 new_image=$(image POSTGRES) old_image=$(image POSTGRES_OLD)

# A volume may be of two servers at once, so these containers reach nothing and nothing reaches them.
label=plinth.upgrade-postgres=$volume
isolated=(--network none --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --init --user postgres
    --shm-size 128m --label "$label")

# A function of upgrade-postgres.inside.sh, in a container of its own or beside a server.
within() {
    docker run --rm "${isolated[@]}" --volume "$volume:$root" --workdir "$root" --entrypoint bash "$new_image" \
        -euo pipefail -c "$inside"$'\n"$@"' bash "$@"
}
beside() { docker exec "$1" bash -euo pipefail -c "$inside"$'\n"$@"' bash "${@:2}"; }

# Servers in order, so that the old one has nothing to recover. What removes itself may be gone first.
remove_containers() {
    local one
    for one in $(docker ps --all --quiet --filter "label=$label"); do
        docker stop --time 60 "$one" >/dev/null 2>&1 || true
        docker rm --force --volumes "$one" >/dev/null 2>&1 || true
    done
}

refuse_if_used() {
    local by
    by=$(docker ps --all --filter "volume=$volume" --filter status=running --filter status=restarting \
        --filter status=paused --format '{{.Names}}' | tr '\n' ' ')
    [ -z "$by" ] || fail "the volume $volume is in use by ${by% }: stop that first"
}

# A container, what it is, and how to ask it.
wait_for() {
    local end=$((SECONDS + start_timeout))
    until docker exec "$1" pg_isready --quiet "${@:3}"; do
        if [ "$(docker inspect --format '{{.State.Running}}' "$1")" != true ] || [ $SECONDS -ge $end ]; then
            docker logs --tail 20 "$1" >&2
            fail "$2 ended, or didn't start within $start_timeout s"
        fi
        sleep 0.2
    done
}

volumes=$(docker volume ls --quiet)
grep -Fqx -e "$volume" <<<"$volumes" || fail "there is no volume $volume; \`docker volume ls\` lists those there are"
docker image inspect "$new_image" >/dev/null 2>&1 || docker pull "$new_image"
remove_containers
state=$(within state)

if [ $remove_old = yes ]; then
    case $state in
        both) bytes=$(within remove_old); say "Removed what Postgres 15 had in $volume: $bytes bytes are free." ;;
        new) say "There are no data of Postgres 15 in $volume: nothing to do." ;;
        differ) fail "Postgres 15 ran on $volume after the upgrade, its data may be the newer: nothing was removed" ;;
        *) fail "$volume isn't upgraded: nothing was removed" ;;
    esac
    exit 0
fi
case $state in
    old) ;;
    new | both) say "$volume is of Postgres 18 already: nothing to do."; exit 0 ;;
    differ) fail "Postgres 15 ran on $volume after the upgrade, so that 18 lacks what was written then. To upgrade" \
        "anew, without what was written to 18, move the folder 18 out of the volume first" ;;
    none) fail "$volume holds no data of Postgres" ;;
    *) fail "$volume holds data of Postgres $state, not of 15" ;;
esac
refuse_if_used
sizes=$(within sizes)
read -r needed available <<<"$sizes"
[ "$available" -ge "$needed" ] || fail "a second copy of $volume needs $needed bytes, and $available are free"
docker image inspect "$old_image" >/dev/null 2>&1 || docker pull "$old_image"

run=$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
work=.upgrade-$run old=upgrade-postgres-$run-15 new=upgrade-postgres-$run-18
give_up() {
    say "upgrade-postgres: gave up; the data of 15 are what they were" >&2
    remove_containers
    within clear_up
}
trap give_up EXIT
within prepare "$work"

say "Starting Postgres 15 (at most $start_timeout s)"
docker run --detach --name "$old" "${isolated[@]}" --volume "$volume:$root/data" --env PGUSER="$user" \
    --env SOCKETS="$root/data/$work" "$old_image" postgres -c listen_addresses= \
    -c "unix_socket_directories=$root/data/$work/old" -c "hba_file=$root/data/$work/hba.conf" -c autovacuum=off >/dev/null
wait_for "$old" "Postgres 15" --host="$root/data/$work/old"

# The image makes the cluster, with its own rules of who may connect. While it does, its server has the usual port.
# Durable are the files once they are complete.
say "Starting Postgres 18 (at most $start_timeout s)"
docker run --detach --name "$new" "${isolated[@]}" --tmpfs /var/run/postgresql:uid=999,gid=999 \
    --volume "$volume:$root" --env PGDATA="$root/$work/cluster" --env PGUSER="$user" --env SOCKETS="$root/$work" \
    --env POSTGRES_USER="$user" --env POSTGRES_DB=postgres --env POSTGRES_PASSWORD="$run" "$new_image" postgres \
    -c listen_addresses= -c "unix_socket_directories=/var/run/postgresql,$root/$work/new" -c port=5433 -c fsync=off \
    -c autovacuum=off >/dev/null
wait_for "$new" "Postgres 18" --port=5433

say "Copying roles"
beside "$new" copy_roles
databases=$(beside "$new" databases)
while IFS= read -r database; do
    say "Copying the database $database, which takes as long as its size demands"
    beside "$old" copy_database "$database" </dev/null
done <<<"$databases"
say "Comparing every row, which takes as long again"
beside "$new" compare
while IFS= read -r database; do beside "$new" compare_database "$database" </dev/null; done <<<"$databases"
settings=$(beside "$new" settings)
beside "$new" finish

say "Stopping both (at most 300 s each)"
docker stop --time 300 "$new" "$old" >/dev/null
remove_containers
refuse_if_used
within accept "$work"
trap - EXIT

if [ -n "$settings" ]; then
    say "Settings in the files of 15 that those of 18 have otherwise; bring over what you need:"
    say "$settings"
fi
say "$volume is of Postgres 18. What 15 had stays in it: \`docker/upgrade-postgres.sh --remove-old $volume\` frees that."
