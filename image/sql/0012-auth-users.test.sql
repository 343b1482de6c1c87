do $test$
begin
  assert (select relowner::regrole::text from pg_class where oid = 'auth.users'::regclass) = 'supabase_auth_admin', 'owner';
  create table public.of_the_test (owner uuid references auth.users (id) on delete cascade);
  insert into auth.users (id, email) values ('00000000-0000-0000-0000-00000000000a', 'of@the.test');
  insert into public.of_the_test values ('00000000-0000-0000-0000-00000000000a');
  delete from auth.users where email = 'of@the.test';
  assert not exists (select from public.of_the_test), 'a key to it holds';
  drop table public.of_the_test;
  assert (select bool_and(not has_table_privilege(r, 'auth.users', 'select, insert, update, delete'))
    from unnest(array['anon', 'authenticated', 'service_role', 'authenticator']) r), 'the API may not look at it';
end
$test$;
