-- Invalidations of writes that committed while Redis could not be told. Any replica delivers them, perhaps two at once:
-- "for update skip locked" would let one believe that nothing is pending while another still holds the rows.
create table cache_outbox (
    id bigint generated always as identity primary key,
    payload bytea not null,
    created_at timestamptz not null default now()
);
