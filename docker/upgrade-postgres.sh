#!/usr/bin/env bash
# Makes a volume of Postgres 15 one of Postgres 18: `docker/upgrade-postgres.sh VOLUME`, while nothing uses it. What 15
# had stays in the volume until `docker/upgrade-postgres.sh --remove-old VOLUME`. Needs nothing but bash 4 and `docker`.
#
# The data of 15 lie at the volume's root, those of 18 in 18/docker. That folder appears by one rename, after everything
# was copied and compared: ended before by whatever, this can be run again. It is a dump and a restore, since the two
# images' C libraries sort differently, so that every index must be built anew.
#
# Environment: POSTGRES_USER (plinth), the superuser; START_TIMEOUT (300), seconds that a server may take to start;
# POSTGRES_IMAGE and POSTGRES_OLD_IMAGE, other images than versions.env names.
set -euo pipefail
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

usage="usage: docker/upgrade-postgres.sh [--remove-old] VOLUME"
here=$(cd "$(dirname "$0")" && pwd)
inside=$(cat "$here/upgrade-postgres.inside.sh")
root=/var/lib/postgresql
user=${POSTGRES_USER:-plinth}
start_timeout=${START_TIMEOUT:-300}

say() { printf '%s\n' "$*"; }
fail() { say "upgrade-postgres: $*" >&2; exit 1; }

# From the environment, else from the list of versions.
image() { local given=$1_IMAGE; given=${!given:-}; say "${given:-$(sed -n "s/^$1=//p" "$here/versions.env")}"; }

remove_old=no
if [ "${1:-}" = --remove-old ]; then remove_old=yes; shift; fi
if [ $# != 1 ] || [ "${1#-}" != "$1" ]; then say "$usage" >&2; exit 2; fi
volume=$1 new_image=$(image POSTGRES) old_image=$(image POSTGRES_OLD)

run=$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
work=.upgrade-$run hands=upgrade-postgres-$run old=upgrade-postgres-$run-15 new=upgrade-postgres-$run-18

# A volume may be of two servers at once, so these containers reach nothing and nothing reaches them.
label=plinth.upgrade-postgres
isolated=(--network none --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --init --user postgres
    --shm-size 128m --label "$label=$volume")
in_volume=("${isolated[@]}" --volume "$volume:$root" --workdir "$root")

# A function of upgrade-postgres.inside.sh in a container; what it says is then in $said. That it came to its end is told
# by its last word: `docker exec` has the exit code 0 too when a signal ends it. Bash heeds signals while it reads.
call=$inside$'\n"$@"\necho done'
ask() {
    local line last=
    said=
    while IFS= read -r line; do
        said+=$last last=$line$'\n'
    done < <(exec docker exec "$1" bash -euo pipefail -c "$call" bash "${@:2}" </dev/null)
    said=${said%$'\n'}
    [ "$last" = $'done\n' ] || { say "upgrade-postgres: ${*:2}: not done" >&2; return 1; }
}

# The container in which all is done holds the volume's lock. It ends with this script, however that ends, since its
# input does; and then the servers do, which wait for the lock.
take_hold() {
    coproc held {
        docker run --rm --interactive --name "$hands" "${in_volume[@]}" --entrypoint bash "$new_image" -c \
            'flock --timeout 10 . bash -c "echo held; exec cat" || echo busy'
    }
    held_by=$held_PID held_through=${held[1]}
    trap let_go EXIT
    read -r said <&"${held[0]}" || fail "couldn't look into $volume"
    [ "$said" = held ] || fail "an upgrade of $volume is under way"
}
let_go() {
    set +e
    exec {held_through}>&-
    wait "$held_by" 2>/dev/null
}
# shellcheck disable=SC2016
with_lock='(flock --shared . true && kill -INT $$ && kill -TERM $$ &) && exec docker-entrypoint.sh "$@"'

# Of a script that was killed: nobody else has the lock. Servers in order, so that the old one has nothing to recover.
remove_left() {
    local one
    for one in $(docker ps --all --filter "label=$label=$volume" --format '{{.Names}}'); do
        [ "$one" = "$hands" ] || remove "$one"
    done
}
remove() {
    docker stop --time 60 "$1" >/dev/null 2>&1 || true
    docker rm --force --volumes "$1" >/dev/null 2>&1 || true
}

refuse_if_used() {
    local by
    by=$(docker ps --all --filter "volume=$volume" --filter status=running --filter status=restarting \
        --filter status=paused --format "{{if not (.Label \"$label\")}}{{.Names}} {{end}}" | tr -d '\n')
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
take_hold
ask "$hands" state
state=$said

if [ $remove_old = yes ]; then
    case $state in
        both) ask "$hands" remove_old; say "Removed what Postgres 15 had in $volume: $said bytes are free." ;;
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
remove_left
refuse_if_used
ask "$hands" sizes
read -r needed available <<<"$said"
[ "$available" -ge "$needed" ] || fail "a second copy of $volume needs $needed bytes, and $available are free"
# The image of 18 makes this folder as root, where only root can remove it again.
docker run --rm "${in_volume[@]}" --user root --cap-add DAC_OVERRIDE --entrypoint bash "$new_image" -c \
    'rm -f 18/control-of-15; rmdir 18/docker 18 2>/dev/null; [ ! -e 18 ]' ||
    fail "the folder 18 in $volume has something in it, and isn't a database: move it away"
docker image inspect "$old_image" >/dev/null 2>&1 || docker pull "$old_image"

# Also where nobody reads any more what it says. The container with the lock may be gone already.
give_up() {
    set +e
    trap '' HUP INT TERM PIPE
    local state
    remove "$new"
    remove "$old"
    state=$(docker run --rm "${in_volume[@]}" --entrypoint bash "$new_image" -c "$inside"$'\nrm -rf "$1"\nstate' bash "$work")
    case $state in
        old) say "upgrade-postgres: gave up; the data of 15 are what they were" >&2 ;;
        both) say "upgrade-postgres: was interrupted when $volume was of Postgres 18 already" >&2 ;;
        *) say "upgrade-postgres: gave up; run it again before anything else uses $volume" >&2 ;;
    esac
    let_go
}
trap give_up EXIT
ask "$hands" prepare "$work"

say "Starting Postgres 15 (at most $start_timeout s)"
docker run --detach --name "$old" "${isolated[@]}" --volume "$volume:$root/data" --workdir "$root/data" \
    --env PGUSER="$user" --env SOCKETS="$root/data/$work" --entrypoint bash "$old_image" -c "$with_lock" bash postgres \
    -c listen_addresses= -c port=5432 -c "unix_socket_directories=$root/data/$work/old" \
    -c "hba_file=$root/data/$work/hba.conf" -c autovacuum=off >/dev/null
wait_for "$old" "Postgres 15" --host="$root/data/$work/old"
ask "$old" superuser || fail "set POSTGRES_USER to the superuser of the old data"
ask "$old" databases
databases=$said

# The image makes the cluster, with its own rules of who may connect. While it does, its server has the usual port.
# Durable are the files once they are complete.
say "Starting Postgres 18 (at most $start_timeout s)"
docker run --detach --name "$new" "${in_volume[@]}" --tmpfs /var/run/postgresql:uid=999,gid=999 \
    --env PGDATA="$root/$work/cluster" --env PGUSER="$user" --env SOCKETS="$root/$work" --env POSTGRES_USER="$user" \
    --env POSTGRES_DB=postgres --env POSTGRES_PASSWORD="$run" --entrypoint bash "$new_image" -c "$with_lock" bash postgres \
    -c listen_addresses= -c "unix_socket_directories=/var/run/postgresql,$root/$work/new" -c port=5433 -c fsync=off \
    -c autovacuum=off >/dev/null
wait_for "$new" "Postgres 18" --port=5433

say "Copying roles"
ask "$new" copy_roles
while IFS= read -r database; do
    say "Copying the database $database, which takes as long as its size demands"
    ask "$old" copy_database "$database"
done <<<"$databases"
say "Comparing every row, which takes as long again"
ask "$new" compare
while IFS= read -r database; do ask "$new" compare_database "$database"; done <<<"$databases"
ask "$new" settings || said="(they couldn't be compared)"
settings=$said
ask "$new" finish

say "Stopping both (at most 300 s each)"
docker stop --time 300 "$new" "$old" >/dev/null
docker rm --volumes "$new" "$old" >/dev/null
refuse_if_used
ask "$hands" accept "$work"
trap let_go EXIT

if [ -n "$settings" ]; then
    say "Settings in the files of 15 that those of 18 have otherwise; bring over what you need:"
    say "$settings"
fi
say "$volume is of Postgres 18. What 15 had stays in it: \`docker/upgrade-postgres.sh --remove-old $volume\` frees that."
