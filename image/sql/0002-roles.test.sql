do $test$
declare
  said text;
begin
  select string_agg(format('%s:%s', rolname, concat_ws(' ',
      case when rolsuper then 'super' end, case when rolcreatedb then 'createdb' end,
      case when rolcreaterole then 'createrole' end, case when rolinherit then 'inherit' end,
      case when rolcanlogin then 'login' end, case when rolreplication then 'replication' end,
      case when rolbypassrls then 'bypassrls' end)), E'\n' order by rolname collate "C")
    into said
    from pg_roles where rolname !~ '^pg_' and rolname <> 'supafly' and rolname !~ '^users_';
  assert said = concat_ws(E'\n',
    'anon:inherit',
    'authenticated:inherit',
    'authenticator:login',
    'dashboard_user:createdb createrole inherit replication',
    'pgbouncer:inherit login',
    'postgres:super createdb createrole inherit login replication bypassrls',
    'service_role:inherit bypassrls',
    'supabase_admin:super createdb createrole inherit login replication bypassrls',
    'supabase_auth_admin:createrole login',
    'supabase_read_only_user:inherit login bypassrls',
    'supabase_replication_admin:inherit login replication',
    'supabase_storage_admin:createrole login',
    'supavisor_admin:inherit login'), said;

  select string_agg(format('%s>%s', roleid::regrole, member::regrole), ' ' order by
      roleid::regrole::text collate "C", member::regrole::text collate "C") into said
    from pg_auth_members where member::regrole::text not in ('supafly', 'pg_monitor')
      and member::regrole::text !~ '^users_' and roleid::regrole::text !~ '^users_';
  assert said = 'anon>authenticator anon>postgres authenticated>authenticator authenticated>postgres '
    'authenticator>supabase_storage_admin pg_monitor>postgres pg_read_all_data>postgres '
    'pg_read_all_data>supabase_read_only_user pg_signal_backend>postgres service_role>authenticator '
    'service_role>postgres', said;

  select string_agg(format('%s %s', setrole::regrole, c), E'\n' order by setrole::regrole::text collate "C", c collate "C")
    into said from pg_db_role_setting, unnest(setconfig) c where setdatabase = 0;
  assert said = concat_ws(E'\n',
    'anon statement_timeout=3s',
    'authenticated statement_timeout=8s',
    'authenticator lock_timeout=8s',
    'authenticator statement_timeout=8s',
    'postgres search_path="$user", public, extensions',
    'supabase_admin search_path="$user", public, auth, extensions',
    'supabase_auth_admin idle_in_transaction_session_timeout=60000',
    'supabase_auth_admin search_path=auth',
    'supabase_storage_admin search_path=storage'), said;
end
$test$;
