do $test$
begin
  create role users_test login password 'of the test';
  set local role pgbouncer;
  assert (select password like 'SCRAM-SHA-256$%' from pgbouncer.get_auth('users_test')), 'the verifier';
  assert not exists (select from pgbouncer.get_auth('anon')), 'who cannot log in has none';
  assert not exists (select from pgbouncer.get_auth('nobody')), 'nobody has none';
  -- Who may call it may make temporary types; none of theirs may be met by what runs with the rights of a superuser.
  execute 'create function pg_temp.rise(pg_catalog.text) returns boolean language plpgsql as '
    '$e$ begin if current_user <> ''pgbouncer'' then '
    'raise ''a caller runs as %'', current_user; end if; return true; end $e$';
  execute 'create domain pg_temp.text as pg_catalog.text check (pg_temp.rise(value::pg_catalog.text))';
  execute 'create domain pg_temp.name as pg_catalog.name check (pg_temp.rise(value::pg_catalog.text))';
  assert (select password like 'SCRAM-SHA-256$%' from pgbouncer.get_auth('users_test')), 'the verifier again';
  drop domain pg_temp.text, pg_temp.name;
  reset role;
  alter role users_test valid until '2001-01-01';
  assert (select password is null from pgbouncer.get_auth('users_test')), 'an expired one is none';
  drop role users_test;
  assert (select bool_and(not has_function_privilege(r, 'pgbouncer.get_auth(text)', 'execute'))
    from unnest(array['anon', 'authenticated', 'service_role', 'authenticator']) r), 'nobody else may ask';
end
$test$;
