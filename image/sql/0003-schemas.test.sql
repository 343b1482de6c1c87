do $test$
declare
  said text;
begin
  select string_agg(format('%s:%s', nspname, nspowner::regrole), ' ' order by nspname collate "C") into said
    from pg_namespace where nspname in ('extensions', 'auth', 'storage', 'realtime', 'graphql_public');
  assert said = 'auth:supabase_auth_admin extensions:postgres graphql_public:postgres realtime:supabase_admin '
    'storage:supabase_storage_admin', said;
  assert (select bool_and(has_schema_privilege(r, s, 'usage') and not has_schema_privilege(r, s, 'create'))
    from unnest(array['public', 'extensions', 'auth', 'storage', 'realtime', 'graphql_public']) s,
         unnest(array['anon', 'authenticated', 'service_role']) r), 'usage and no more';
  assert not exists (select from pg_class where relnamespace in ('storage'::regnamespace, 'realtime'::regnamespace)),
    'storage and realtime are empty';
  assert has_database_privilege('dashboard_user', current_database(), 'create'), 'dashboard_user';
end
$test$;
