# What upgrade-postgres.sh does in containers, at the volume's root. $SOCKETS holds the folders of both servers' sockets.

old=(--host="${SOCKETS:-}/old")
new=(--host="${SOCKETS:-}/new" --port=5433)
# Settings of roles and databases are copied, and mustn't change how.
export LC_ALL=C PGOPTIONS='-c timezone=UTC -c datestyle=ISO -c search_path= -c statement_timeout=0 -c lock_timeout=0
    -c default_transaction_read_only=off'

sql() { psql --no-psqlrc --quiet --no-align --tuples-only --set=ON_ERROR_STOP=1 "$@"; }

# both: upgraded, with the data of 15 as the upgrade left them; differ: 15 has changed them since.
state() {
    if [ -s 18/docker/PG_VERSION ]; then
        if [ ! -s PG_VERSION ]; then echo new
        elif [ ! -e global/pg_control ] || cksum <global/pg_control | cmp --quiet - 18/control-of-15; then echo both
        else echo differ
        fi
    elif [ ! -s PG_VERSION ]; then echo none
    elif [ "$(cat PG_VERSION)" = 15 ]; then echo old
    else cat PG_VERSION
    fi
}

# Bytes that the old data take, and that are free.
sizes() {
    local tablespaces
    rm -rf .upgrade-*
    tablespaces=$(ls -A pg_tblspc)
    [ -z "$tablespaces" ] || { echo "tablespaces outside of the volume can't be upgraded by this" >&2; exit 1; }
    echo "$(du --summarize --block-size=1 . | cut -f 1) $(df --block-size=1 --output=avail . | tail -n 1)"
}

prepare() {
    mkdir -m 700 "$1" "$1/old" "$1/new"
    # The only way into either server is a socket below this folder.
    echo "local all all trust" >"$1/hba.conf"
}

superuser() {
    local super
    super=$(sql "${old[@]}" --dbname=template1 --command="select rolsuper from pg_roles where rolname = current_user")
    [ "$super" = t ]
}

# The names of all, when everything in them can be copied.
databases() {
    local closed prepared
    closed=$(sql "${old[@]}" --dbname=template1 --command="
        select datname from pg_database where not datallowconn and datname <> 'template0'")
    [ -z "$closed" ] || { echo "let this database accept connections, or drop it: $closed" >&2; exit 1; }
    prepared=$(sql "${old[@]}" --dbname=template1 --command="
        select format('%L in the database %s', gid, database) from pg_prepared_xacts")
    [ -z "$prepared" ] || { echo "commit or roll back what is prepared: $prepared" >&2; exit 1; }
    sql "${old[@]}" --dbname=template1 --command="select datname from pg_database where datname <> 'template0' order by 1"
}

copy_roles() {
    local own
    # Where the old superuser has no password the new one mustn't have that of its making.
    sql "${new[@]}" --dbname=postgres --command="alter role current_user password null"
    own=$(sql "${old[@]}" --dbname=template1 --command="select format('CREATE ROLE %I;', current_user)")
    pg_dumpall "${old[@]}" --database=template1 --globals-only | grep -Fvx -e "$own" |
        sql "${new[@]}" --dbname=postgres >/dev/null
}

# By the old server's own pg_dump, which knows what it writes into catalogs: pg_dump 18.6 takes 15.20's marks of a
# column's version (pg_attver) for options, which 18.6 then refuses. The name is given by the environment, since one
# with "=" would be taken for settings of a connection.
copy_database() {
    local from=template1
    [ "$1" != template1 ] || from=postgres
    PGDATABASE=$1 pg_dump "${old[@]}" --clean --if-exists --create | sql "${new[@]}" --dbname=$from >/dev/null
}

same() {
    diff /tmp/old /tmp/new >/tmp/difference || { echo "15 (<) and 18 (>) differ:"; head -n 20 /tmp/difference; exit 1; } >&2
}

compare() {
    local query="
        select 'role', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication,
            rolbypassrls, rolconnlimit, md5(rolpassword), rolvaliduntil
        from pg_authid where rolname !~ '^pg_' order by rolname;
        select distinct 'member', roleid::regrole::text, member::regrole::text, admin_option
        from pg_auth_members join pg_authid on pg_authid.oid = member where rolname !~ '^pg_' order by 2, 3;
        select 'setting', datname, setrole::regrole::text, setconfig
        from pg_db_role_setting left join pg_database on pg_database.oid = setdatabase order by 2, 3;
        select 'database', datname, datdba::regrole, pg_encoding_to_char(encoding), datcollate, datctype,
            datistemplate, datconnlimit
        from pg_database where datname <> 'template0' order by datname"
    sql "${old[@]}" --dbname=template1 --command="$query" >/tmp/old
    sql "${new[@]}" --dbname=template1 --command="$query" >/tmp/new
    same
}

# Names of everything, each table's rows with a sum over their content that knows no order, each sequence's state. Of
# large objects what isn't zero, since 18 has pages where 15 has gaps.
compare_database() {
    local query
    query=$(cat <<'SQL'
select 'relation', relkind, nspname, relname
from pg_class c join pg_namespace n on n.oid = relnamespace
where nspname !~ '^pg_' and nspname <> 'information_schema'
    and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and deptype = 'e')
order by nspname, relname;

select format('select %L, count(*), sum(hashtextextended((x.*)::text, 0)) from only %I.%I x', oid::regclass, nspname, relname)
from (select c.oid, nspname, relname from pg_class c join pg_namespace n on n.oid = relnamespace
    where relkind = 'r' and nspname !~ '^pg_' and nspname <> 'information_schema') as tables
order by nspname, relname
\gexec

select 'large objects', count(*), sum(hashtextextended(object::text, 0))
from (select m.oid, lomowner::regrole, max(pageno::bigint * 2048 + octet_length(data)) as length,
        sum(hashtextextended(pageno || encode(rtrim(data, '\x00'), 'hex'), 0)) filter (where rtrim(data, '\x00') <> '')
    from pg_largeobject_metadata m left join pg_largeobject on loid = m.oid group by m.oid, lomowner) as object;

select format('select %L, last_value, is_called from %I.%I', c.oid::regclass, nspname, relname)
from pg_class c join pg_namespace n on n.oid = relnamespace
where relkind = 'S' order by nspname, relname
\gexec
SQL
)
    PGDATABASE=$1 sql "${old[@]}" <<<"$query" >/tmp/old
    PGDATABASE=$1 sql "${new[@]}" <<<"$query" >/tmp/new
    same
}

# What the old server's files set otherwise than the new one's.
settings() {
    local query="select (name || ' = ' || setting) collate \"C\" from pg_file_settings order by 1"
    sql "${old[@]}" --dbname=template1 --command="$query" >/tmp/old
    sql "${new[@]}" --dbname=template1 --command="$query" >/tmp/new
    comm -23 /tmp/old /tmp/new
}

finish() {
    vacuumdb "${new[@]}" --all --analyze-only --quiet
    sql "${new[@]}" --dbname=template1 --command=checkpoint
}

# The one step that counts: before it 18 refuses the volume, after it 18 has all data.
accept() {
    pg_controldata "$1/cluster" | grep -q '^Database cluster state: *shut down$' ||
        { echo "Postgres 18 didn't stop in order" >&2; exit 1; }
    initdb --sync-only --pgdata="$1/cluster" >/dev/null
    mkdir -p 18
    cksum <global/pg_control >18/control-of-15
    sync 18/control-of-15 18 .
    mv --no-target-directory "$1/cluster" 18/docker
    sync 18
    rm -rf "$1"
}

# Last the file that tells what is here, so that it can be run again.
remove_old() {
    du --summarize --block-size=1 --exclude=./18 . | cut -f 1
    find . -mindepth 1 -maxdepth 1 ! -name '[0-9]*' ! -name lost+found ! -name PG_VERSION -exec rm -rf {} +
    rm PG_VERSION 18/control-of-15
}
