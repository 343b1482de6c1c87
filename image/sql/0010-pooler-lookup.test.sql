do $test$
begin
  create role users_test login password 'of the test';
  set local role pgbouncer;
  assert (select password like 'SCRAM-SHA-256$%' from pgbouncer.get_auth('users_test')), 'the verifier';
  assert not exists (select from pgbouncer.get_auth('anon')), 'who cannot log in has none';
  assert not exists (select from pgbouncer.get_auth('nobody')), 'nobody has none';
  reset role;
  alter role users_test valid until '2001-01-01';
  assert (select password is null from pgbouncer.get_auth('users_test')), 'an expired one is none';
  drop role users_test;
  assert (select bool_and(not has_function_privilege(r, 'pgbouncer.get_auth(text)', 'execute'))
    from unnest(array['anon', 'authenticated', 'service_role', 'authenticator']) r), 'nobody else may ask';
end
$test$;
