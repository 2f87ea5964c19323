-- What changed, written by triggers in the transaction that changed it, whoever that is: replicas read it to forget what
-- they have cached. An entry says one of three things: these keys have these versions since (0: none, or unknown); a
-- kind changed as a whole (no keys); or these things changed that aren't rows (hashes of 16 bytes each). What can't
-- be read makes its kind, or everything, be forgotten; a constraint against it would cost a fifth of all that a trigger does.
-- Readers go by transaction ids and snapshots: rows become visible in another order than any number drawn for them.
create table cache_log (
    xid xid8 not null default pg_current_xact_id(),
    kind text,
    param text,
    keys text[],
    versions bigint[],
    hashes bytea,
    written_at timestamptz not null default clock_timestamp()
)
-- Every row is deleted after minutes, so what is dead soon outweighs what lives.
with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000);

-- A publication of all tables would refuse the removal of old entries otherwise.
alter table cache_log replica identity full;
create index cache_log_xid on cache_log (xid);
-- Whoever may write a followed table writes here, too; an entry only makes replicas forget.
grant insert on cache_log to public;

-- One row. Entries of transactions up to `pruned_to` may be gone. `era` changes when a reader sees that the log went back,
-- since versions may then be given out a second time. The anchor is what a reader saw some seconds ago, and where new
-- ones begin: they too can then tell what a shared cache, which was cleaned later than that, has to do with.
create table cache_log_state (
    only_row boolean primary key default true check (only_row),
    pruned_to xid8 not null default '0',
    era uuid not null default gen_random_uuid(),
    anchor_snapshot pg_snapshot,
    anchor_position bigint,
    anchor_identity bigint,
    anchor_triggers bigint,
    anchored_at timestamptz not null default '-infinity',
    -- Rows of `cache_readers`, which each read would have to count otherwise, the dead ones with them.
    readers bigint not null default 0
);
insert into cache_log_state default values;

-- Who reads the log: a replica believes Redis in the database's place only while all of them use the same Redis.
create table cache_readers (
    id bigint primary key,
    seen timestamptz not null default now()
);

-- Which tables are followed, and the triggers that then belong to them: as `follow` left them.
create table cache_followed (
    schema_name name,
    table_name name,
    kind text,
    triggers text[] not null,
    primary key (schema_name, table_name, kind)
);

-- `unfollowed`: tables whose changes may not be in the log, since triggers are off or gone or don't see all changes. And a
-- number that changes with the triggers: some of them may have been off for a while.
create view cache_log_triggers as
with followed as (
    select pg_class.oid as table_oid, format('%I.%I', schema_name, table_name) as full_name, triggers as wanted
    from cache_followed
        join pg_namespace on nspname = schema_name
        join pg_class on relnamespace = pg_namespace.oid and relname = table_name
)
select
    (select string_agg(distinct full_name, ', ') from followed
        where not wanted <@ array(
                select format('%s %s', tgname, tgenabled) from pg_trigger where tgrelid = table_oid)
            or exists (select from pg_inherits where inhrelid = table_oid)
            or exists (select from pg_inherits where inhparent = table_oid)) as unfollowed,
    (select hashtextextended(string_agg(concat_ws(' ', pg_trigger.oid, pg_trigger.xmin), ','
            order by pg_trigger.oid), 0)
        from pg_trigger where tgrelid in (select table_oid from followed) and not tgisinternal) as triggers;

-- Which log this is. A restored, promoted or recreated one is another.
create function cache_log_identity() returns bigint language plpgsql set search_path from current as $$
declare
    system bigint;
    timeline text := left(pg_walfile_name(pg_current_wal_insert_lsn()), 8);
begin
    -- Some hosts keep it to themselves.
    if has_function_privilege('pg_control_system()', 'execute') then
        select system_identifier into system from pg_control_system();
    end if;
    return hashtextextended(concat_ws(' ', system, timeline, era, 'cache_log'::regclass::oid, db.oid), 0)
        from cache_log_state, pg_database as db where db.datname = current_database();
end
$$;

-- Below, names are written with their schema, since pg_dump and logical replication run triggers with an empty
-- search_path. A `set search_path` of the function's own would cost as much as the rest of it, for every write.
do $migration$
declare
    here text := quote_ident(current_schema());
begin
    -- A version above the row's last, also where the sequence is behind the rows: of a subscriber, or after a restore.
    execute replace($create$
        create function row_version_above(last bigint) returns bigint
        language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
        declare
            version bigint := nextval('HERE.row_version');
        begin
            while version <= last loop
                -- Whoever may delete could use the sequence up.
                if last > 1::bigint << 51 then
                    raise exception 'no version: %', last;
                end if;
                -- With room for what others draw meanwhile.
                perform setval('HERE.row_version', greatest(last, last_value) + 1000) from HERE.row_version;
                version := nextval('HERE.row_version');
            end loop;
            return version;
        end
        $$
    $create$, 'HERE', here);
    execute replace($create$
        create or replace function bump_row_version() returns trigger language plpgsql as $$
        begin
            new.version := nextval('HERE.row_version');
            if tg_op = 'UPDATE' and new.version <= old.version then
                new.version := HERE.row_version_above(old.version);
            end if;
            new.updated_at := now();
            return new;
        end
        $$
    $create$, 'HERE', here);
    -- Keeps `cache_log_state.readers`. Who registers again changes nothing, and so waits for nobody.
    execute replace($create$
        create function count_readers() returns trigger
        language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
        begin
            if tg_op = 'TRUNCATE' then
                update HERE.cache_log_state set readers = 0;
            elsif tg_op = 'INSERT' then
                update HERE.cache_log_state set readers = readers + came
                from (select count(*) as came from changed_rows) as one where came > 0;
            else
                -- Rows may have come unseen, with triggers off.
                update HERE.cache_log_state set readers = greatest(readers - went, 0)
                from (select count(*) as went from changed_rows) as one where went > 0;
            end if;
            return null;
        end
        $$
    $create$, 'HERE', here);
end
$migration$;

create trigger readers_come after insert on cache_readers referencing new table as changed_rows
    for each statement execute function count_readers();
create trigger readers_go after delete on cache_readers referencing old table as changed_rows
    for each statement execute function count_readers();
create trigger readers_are_gone after truncate on cache_readers for each statement execute function count_readers();

-- Has every change of this table written into the log, under the name that `CacheKey::builder(kind).param(key, …)`
-- makes, where `key` is the column: `select follow('users', 'user', 'id')`. Where the column has another name than the
-- key's parameter, that comes last: `select follow('members', 'team', 'team_id', 'id')`. Where no column names what is
-- cached, as of lists and of keys with a scope, the key is null: each change names the kind as a whole. A table may be
-- followed as several kinds, and a kind may be of several tables; again as the same one renews the triggers. Before a
-- table that is followed becomes a partition, or gets heirs, its triggers must go.
create function follow(followed regclass, kind text, key text, param text default null) returns void
language plpgsql set search_path from current as $follow$
declare
    -- What changes more rows, a statement or a replicated transaction, names the kind as a whole.
    most text := case when key is null then '0' else '1000' end;
    name text := (select relname from pg_class where oid = followed and relkind = 'r' and relpersistence = 'p' and not relispartition)
        || '_as_' || kind;
    here text := (select relnamespace::regnamespace::text from pg_class where oid = 'cache_log'::regclass);
    counting name[] := (
        select array_agg(tgname) from pg_trigger where tgrelid = followed and tgfoid = 'bump_row_version'::regproc);
    there text := (select relnamespace::regnamespace::text from pg_class where oid = followed);
    by_statement text := there || '.' || quote_ident('log_statement_of_' || name);
    by_row text := there || '.' || quote_ident('log_row_of_' || name);
    id text := coalesce(quote_ident(key), quote_literal(''));
    -- A row's version counts where it surely grows, and where no other row is about the same thing, also none of another
    -- table. 0 is below every version: whatever a cache has is older.
    versioned boolean := counting is not null
        and exists (select from pg_index join pg_attribute on attrelid = indrelid and attnum = indkey[0]
        where indrelid = followed and indisunique and indnkeyatts = 1 and indpred is null and attname = key)
        and not exists (select from pg_trigger where tgname = 'cache_log_insert_' || kind and tgrelid <> followed);
    has text := case when versioned then 'version' else '0::bigint' end;
    -- A deletion is told under a number of its own. The deleted row's next one may have been drawn already, by an insert
    -- of the same key that waits for the deletion.
    draw text := case when versioned
        then 'cache_log_drawn := {here}.row_version_above(cache_log_drawn)' else 'cache_log_drawn := 0' end;
    type regtype;
    body text;
    word text;
    meaning text;
begin
    if name is null then
        raise exception '% is no ordinary table: only those can be followed', followed;
    elsif octet_length('log_statement_of_' || name) > 63 or concat(there, name, key, param) like '%{%' then
        raise exception 'the names of % and of the kind % are too long, or have braces', followed, kind;
    end if;

    -- Their triggers don't see what is written through their relatives.
    if exists (select from pg_inherits where followed in (inhrelid, inhparent)) then
        raise exception '% inherits, or is inherited from: it can''t be followed', followed;
    end if;
    if key is not null then
        select coalesce(nullif(typbasetype, 0), pg_type.oid) into type
        from pg_attribute join pg_type on pg_type.oid = atttypid
        where attrelid = followed and attname = key and not attisdropped and attgenerated <> 'v';
        -- Others are written differently by each session, as times are.
        if type is null or not (type = any ('{smallint,integer,bigint,numeric,text,varchar,uuid,boolean}'::regtype[])
            or exists (select from pg_type where oid = type and typtype = 'e')) then
            raise exception '% can''t be followed by %: that is no number, text, uuid, boolean or enum it stores',
                followed, key;
        end if;
    end if;

    body := $body$
        create or replace function {by_statement}() returns trigger language plpgsql as $$
        #variable_conflict use_column
        declare
            cache_log_drawn bigint;
        begin
            if tg_op = 'TRUNCATE' then
                insert into {here}.cache_log (kind) values ({kind});
            elsif tg_op = 'DELETE' then
                select max({has}) into cache_log_drawn from old_rows;
                {draw};
                insert into {here}.cache_log (kind, param, keys, versions)
                select {kind}, case when few then {param} end, case when few then ks end, case when few then vs end
                from (select array_agg(k) as ks, array_agg(v) as vs, count(*) <= {most} as few
                    from (select {id}::text as k, cache_log_drawn as v from old_rows limit {most} + 1) as one) as every
                where ks is not null;
            else
                insert into {here}.cache_log (kind, param, keys, versions)
                select {kind}, case when few then {param} end, case when few then ks end, case when few then vs end
                from (select array_agg(k) as ks, array_agg(v) as vs, count(*) <= {most} as few
                    from (select {id}::text as k, {has} as v from new_rows limit {most} + 1) as one) as every
                where ks is not null;
            end if;
            return null;
        end
        $$;

        create or replace function {by_row}() returns trigger language plpgsql as $$
        #variable_conflict use_column
        declare
            rows int := coalesce(nullif(current_setting({counter}, true), ''), '0')::int + 1;
            cache_log_drawn bigint := (select {has} from (select new.*) as one);
            cache_log_before bigint := (select {has} from (select old.*) as one);
        begin
            -- Nobody counts the versions of a session that replicates.
            if tg_op = 'DELETE' or cache_log_drawn <= cache_log_before then
                cache_log_drawn := cache_log_before;
                {draw};
            elsif cache_log_drawn between 1 and 1::bigint << 50 then
                -- Replicated rows come with their versions: the sequence here shall not stay behind them.
                perform {here}.row_version_above(cache_log_drawn);
            end if;
            if rows <= {most} then
                insert into {here}.cache_log (kind, param, keys, versions)
                select {kind}, {param}, array_agg(k), array_agg(cache_log_drawn)
                from (select {id}::text as k from (select new.*) as one union
                    select {id}::text from (select old.*) as one) as every
                where k is not null having count(*) > 0;
            elsif rows = {most} + 1 then
                insert into {here}.cache_log (kind) values ({kind});
            else
                return null;
            end if;
            -- Until the transaction ends.
            perform set_config({counter}, rows::text, true);
            return null;
        end
        $$;
    $body$;
    for word, meaning in values
        ('{counter}', quote_literal('cache_log.rows_' || md5(by_row))), ('{most}', most),
        ('{has}', has), ('{draw}', draw), ('{by_statement}', by_statement), ('{by_row}', by_row), ('{here}', here),
        ('{id}', id), ('{kind}', quote_literal(kind)),
        ('{param}', quote_nullable(case when key is not null then coalesce(param, key) end))
    loop
        body := replace(body, word, meaning);
    end loop;
    execute body;

    for word, meaning in values ('insert', 'new table as new_rows'), ('update', 'new table as new_rows'),
        ('delete', 'old table as old_rows')
    loop
        execute format('create or replace trigger %I after %s on %s referencing %s
            for each statement execute function %s()', 'cache_log_' || word || '_' || kind, word, followed, meaning,
            by_statement);
    end loop;
    execute format('create or replace trigger %I after truncate on %s for each statement execute function %s()',
        'cache_log_truncate_' || kind, followed, by_statement);
    if key is not null then
        execute format('create or replace trigger %I after update on %s for each row
            when (old.%s is distinct from new.%3$s) execute function %s()', 'cache_log_rename_' || kind, followed, id,
            by_row);
    end if;
    -- The apply worker of logical replication fires triggers of rows only.
    execute format('create or replace trigger %I after insert or update or delete on %s for each row
        when (current_setting(''session_replication_role'') = ''replica'') execute function %s()',
        'cache_log_replay_' || kind, followed, by_row);
    -- In a session that replicates, these two fire and the others don't.
    execute format('alter table %s enable always trigger %I, enable replica trigger %I', followed,
        'cache_log_truncate_' || kind, 'cache_log_replay_' || kind);
    -- Following again may find these switched off.
    for word in select tgname from pg_trigger where tgrelid = followed and (tgname = any (counting) and tgenabled in ('D', 'R')
        or tgname in ('cache_log_insert_' || kind, 'cache_log_update_' || kind, 'cache_log_delete_' || kind,
            'cache_log_rename_' || kind))
    loop
        execute format('alter table %s enable trigger %I', followed, word);
    end loop;
    execute $note$
        insert into cache_followed
        select nspname, relname, $2, array(select format('%s %s', tgname, tgenabled) from pg_trigger where tgrelid = $1
            and (tgname = any ($3) or tgname like 'cache\_log\_%' and tgfoid in ($4::regproc, $5::regproc)))
        from pg_class join pg_namespace on relnamespace = pg_namespace.oid where pg_class.oid = $1
        on conflict (schema_name, table_name, kind) do update set triggers = excluded.triggers
    $note$ using followed, kind, counting, by_statement, by_row;
    -- Nobody knows what changed before.
    execute format('insert into cache_log (kind) values (%L)', kind);
end
$follow$;

select follow('users', 'user', 'id');

-- `cache_outbox` stays, for binaries that still write to it. A migration named `contract` may drop it once none is left
-- to roll back to.
