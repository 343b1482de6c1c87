do $test$
declare
  said jsonb;
begin
  assert (select count(*) = 2 from pg_event_trigger
    where evtname in ('issue_pg_graphql_access', 'issue_graphql_placeholder')), 'both triggers are there';
  set local role anon;
  said := graphql_public.graphql(query := '{__typename}');
  reset role;
  if exists (select from pg_extension where extname = 'pg_graphql') then
    assert said -> 'data' ->> '__typename' is not null, said::text;
  else
    assert said = '{"errors": [{"message": "pg_graphql extension is not enabled."}]}', said::text;
  end if;
  assert (select state from supafly.graphql_health())
    = case when exists (select from pg_extension where extname = 'pg_graphql') then 'ok' else 'absent' end, 'health';
  set local role supafly;
  assert (select state from supafly.graphql_health()) in ('ok', 'absent'), 'keeper may ask';
  reset role;
  assert not has_function_privilege('anon', 'supafly.graphql_health()', 'execute'), 'anon may not';

  -- The trigger of 2024 failed here: a user's own `resolve` is none of its business.
  create schema of_the_test authorization service_role;
  set local role service_role;
  create function of_the_test.resolve(query text) returns jsonb language sql return '{}'::jsonb;
  reset role;
  drop schema of_the_test cascade;
end
$test$;
