-- supafly: every-run
-- Schemas, who owns them, and who may enter them.
do $step$
declare
  want record;
begin
  for want in
    select * from (values
      ('extensions', 'postgres'),
      ('auth', 'supabase_auth_admin'),
      ('storage', 'supabase_storage_admin'),
      ('realtime', 'supabase_admin'),
      ('graphql_public', 'postgres')
    ) as w (name, owner)
  loop
    if to_regnamespace(want.name) is null then
      execute format('create schema %I authorization %I', want.name, want.owner);
    -- A superuser may have made it (a restored dump says supabase_admin). Anybody else to whom it belongs could put
    -- things into it that superusers run.
    elsif exists (
      select from pg_namespace n join pg_roles r on r.oid = n.nspowner
      where n.nspname = want.name and not r.rolsuper and r.rolname <> want.owner)
    then
      execute format('alter schema %I owner to %I', want.name, want.owner);
    end if;
  end loop;

  -- Only what is missing is granted, so that a run that has nothing to do writes nothing.
  for want in
    select s.schema, r.role
    from unnest(array['public', 'extensions', 'auth', 'storage', 'realtime', 'graphql_public']) as s (schema),
         unnest(array['anon', 'authenticated', 'service_role']) as r (role)
    union all
    select * from (values
      ('extensions', 'supabase_auth_admin'), ('extensions', 'supabase_storage_admin'),
      ('public', 'supabase_auth_admin'), ('public', 'supabase_storage_admin')) as more (schema, role)
  loop
    if not has_schema_privilege(want.role, want.schema, 'usage') then
      execute format('grant usage on schema %I to %I', want.schema, want.role);
    end if;
  end loop;
  for want in select unnest(array['extensions', 'auth', 'storage']) as schema loop
    if not (has_schema_privilege('dashboard_user', want.schema, 'usage')
            and has_schema_privilege('dashboard_user', want.schema, 'create')) then
      execute format('grant all on schema %I to dashboard_user', want.schema);
    end if;
  end loop;
  if not has_database_privilege('dashboard_user', current_database(), 'create') then
    execute format('grant all on database %I to dashboard_user', current_database());
  end if;
end
$step$;
