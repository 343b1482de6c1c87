-- supafly: every-run
-- The roles that Supabase's tools expect. That a role exists proves nothing: a restored dump, an older version or a hand
-- may have left it half made. So attributes, and the memberships among these roles, are compared at every run and only
-- what differs is changed. Roles that are not ours, and what users granted to or from those, are never touched.
do $step$
declare
  want record;
  pair record;
  ours text[] := '{}';
  declared text[] := array[
    'anon to authenticator', 'authenticated to authenticator', 'service_role to authenticator',
    'authenticator to supabase_storage_admin',
    'anon to postgres', 'authenticated to postgres', 'service_role to postgres',
    'pg_monitor to postgres', 'pg_read_all_data to postgres', 'pg_signal_backend to postgres',
    'pg_read_all_data to supabase_read_only_user'];
begin
  for want in
    select * from (values
      --  name                          super  createdb createrole inherit login  replication bypassrls
      ('supabase_admin',                true,  true,    true,      true,   true,  true,       true),
      ('anon',                          false, false,   false,     true,   false, false,      false),
      ('authenticated',                 false, false,   false,     true,   false, false,      false),
      ('service_role',                  false, false,   false,     true,   false, false,      true),
      ('authenticator',                 false, false,   false,     false,  true,  false,      false),
      ('supabase_auth_admin',           false, false,   true,      false,  true,  false,      false),
      ('supabase_storage_admin',        false, false,   true,      false,  true,  false,      false),
      ('supabase_replication_admin',    false, false,   false,     true,   true,  true,       false),
      ('supabase_read_only_user',       false, false,   false,     true,   true,  false,      true),
      ('dashboard_user',                false, true,    true,      true,   false, true,       false),
      ('pgbouncer',                     false, false,   false,     true,   true,  false,      false),
      ('supavisor_admin',               false, false,   false,     true,   true,  false,      false)
    ) as w (name, super, createdb, createrole, inherits, login, replication, bypassrls)
  loop
    ours := ours || want.name;
    if not exists (select from pg_roles where rolname = want.name) then
      execute format('create role %I', want.name);
    end if;
    if (select (r.rolsuper, r.rolcreatedb, r.rolcreaterole, r.rolinherit, r.rolcanlogin, r.rolreplication, r.rolbypassrls)
               is distinct from
               (want.super, want.createdb, want.createrole, want.inherits, want.login, want.replication, want.bypassrls)
        from pg_roles r where r.rolname = want.name) then
      execute format('alter role %I %s %s %s %s %s %s %s', want.name,
        case when want.super then 'superuser' else 'nosuperuser' end,
        case when want.createdb then 'createdb' else 'nocreatedb' end,
        case when want.createrole then 'createrole' else 'nocreaterole' end,
        case when want.inherits then 'inherit' else 'noinherit' end,
        case when want.login then 'login' else 'nologin' end,
        case when want.replication then 'replication' else 'noreplication' end,
        case when want.bypassrls then 'bypassrls' else 'nobypassrls' end);
    end if;
  end loop;

  -- A member too many among our own roles is a way up: anon in service_role, authenticator in supabase_admin. First,
  -- because it may be the other way round of one that is wanted, and a circle is refused.
  for pair in
    select distinct m.roleid::regrole::text as role, m.member::regrole::text as member
    from pg_auth_members m
    where m.roleid::regrole::text = any (ours || array['postgres', 'supafly'])
      and m.member::regrole::text = any (ours) and m.member::regrole::text <> 'supabase_admin'
      and not format('%s to %s', m.roleid::regrole, m.member::regrole) = any (declared)
  loop
    raise warning 'role % was a member of %: taken back', pair.member, pair.role;
    execute format('revoke %s from %s', pair.role, pair.member);
  end loop;

  for pair in
    select split_part(d, ' ', 1) as role, split_part(d, ' ', 3) as member from unnest(declared) as d
    where not exists (
      select from pg_auth_members m
      where m.roleid = to_regrole(split_part(d, ' ', 1)) and m.member = to_regrole(split_part(d, ' ', 3)))
  loop
    execute format('grant %I to %I', pair.role, pair.member);
  end loop;
end
$step$;

-- Where names are looked for is part of how these roles work, so it is compared as well. Time-outs are a default that is
-- given where there is none: an `alter role anon set statement_timeout = …` of a user stays.
do $step$
declare
  want record;
begin
  for want in
    select * from (values
      ('supabase_admin',         'search_path', '"$user", public, auth, extensions', true),
      ('postgres',               'search_path', '"$user", public, extensions', false),
      ('supabase_auth_admin',    'search_path', 'auth', true),
      ('supabase_storage_admin', 'search_path', 'storage', true),
      ('anon',                   'statement_timeout', '3s', false),
      ('authenticated',          'statement_timeout', '8s', false),
      ('authenticator',          'statement_timeout', '8s', false),
      ('authenticator',          'lock_timeout', '8s', false),
      ('supabase_auth_admin',    'idle_in_transaction_session_timeout', '60000', false)
    ) as w (role, setting, value, always)
  loop
    if not exists (
      select from pg_db_role_setting s, unnest(s.setconfig) as c
      where s.setdatabase = 0 and s.setrole = to_regrole(want.role)
        and case when want.always then c = want.setting || '=' || want.value
                 else split_part(c, '=', 1) = want.setting end)
    then
      execute format('alter role %I set %s = %s', want.role, want.setting,
        case when want.setting = 'search_path' then want.value else quote_literal(want.value) end);
    end if;
  end loop;
end
$step$;
