-- How a pooler finds out what a user's password hashes to: one function, one role, nothing else.
create schema if not exists pgbouncer authorization pgbouncer;
revoke all on schema pgbouncer from public;

-- An empty search_path is not enough here: the caller's temporary schema is looked at for types before anything else, and a
-- domain named `text` in it would run its check with a superuser's rights.
create or replace function pgbouncer.get_auth(p_usename text) returns table (username text, password text)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $f$
    select a.rolname::pg_catalog.text,
           case when a.rolvaliduntil < pg_catalog.now() then null else a.rolpassword end
    from pg_catalog.pg_authid a
    where a.rolname = p_usename and a.rolcanlogin and a.rolpassword is not null
  $f$;
-- It must stay a superuser's, or it could not read; and must not be the pooler's, or the pooler could change it.
alter function pgbouncer.get_auth(text) owner to postgres;
revoke all on function pgbouncer.get_auth(text) from public;
grant execute on function pgbouncer.get_auth(text) to pgbouncer;
