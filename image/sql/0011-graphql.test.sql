do $test$
begin
  if exists (select from pg_available_extensions where name = 'pg_graphql') then
    assert (select default_version = installed_version from pg_available_extensions where name = 'pg_graphql'), 'enabled';
    drop extension pg_graphql;
    assert (select state = 'absent' from supafly.graphql_health()), 'absent';
    assert graphql_public.graphql(query := '{x}') -> 'errors' is not null, 'the placeholder is back';
    create extension pg_graphql;
    assert (select state = 'ok' from supafly.graphql_health()), 'ok again';
    assert graphql_public.graphql(query := '{__typename}') -> 'data' is not null, 'and so is the wrapper';
  end if;
end
$test$;
