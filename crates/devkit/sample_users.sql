-- Users 1 to 100 for development; a second run changes nothing.
insert into users (id, name, email)
select n, 'User ' || n, 'user' || n || '@example.com' from generate_series(1, 100) as n
on conflict do nothing;

-- The next user gets a number past all that are there.
select setval(pg_get_serial_sequence('users', 'id'), greatest(100, (select max(id) from users)));
