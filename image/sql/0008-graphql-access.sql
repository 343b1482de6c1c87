-- `graphql_public.graphql` is what PostgREST calls for /graphql/v1. While pg_graphql is not there it says so; the moment
-- it is created the function becomes a call of it, and a member of it, so that DROP EXTENSION takes it away and the
-- trigger puts the first one back. It looks at pg_graphql and nothing else: a user's own function `resolve` is none of it.
create or replace function extensions.graphql_placeholder() returns void language plpgsql set search_path = '' as $f$
begin
  if pg_catalog.to_regnamespace('graphql_public') is null then
    return;
  end if;
  create or replace function graphql_public.graphql(
    "operationName" text default null, query text default null, variables jsonb default null, extensions jsonb default null
  ) returns jsonb language plpgsql set search_path = '' as $body$
  begin
    return pg_catalog.jsonb_build_object('errors', pg_catalog.jsonb_build_array(
      pg_catalog.jsonb_build_object('message', 'pg_graphql extension is not enabled.')));
  end
  $body$;
  alter function graphql_public.graphql(text, text, jsonb, jsonb) owner to postgres;
  revoke all on function graphql_public.graphql(text, text, jsonb, jsonb) from public;
  grant execute on function graphql_public.graphql(text, text, jsonb, jsonb) to postgres, anon, authenticated, service_role;
end
$f$;

create or replace function extensions.graphql_wrapper() returns void language plpgsql set search_path = '' as $f$
begin
  grant usage on schema graphql to postgres with grant option;
  -- `supafly` is keeper, which asks whether it answers.
  grant usage on schema graphql to anon, authenticated, service_role, supafly;
  grant execute on all routines in schema graphql to postgres, anon, authenticated, service_role, supafly;
  grant select on all tables in schema graphql to postgres, anon, authenticated, service_role, supafly;
  grant usage on all sequences in schema graphql to postgres, anon, authenticated, service_role, supafly;
  alter default privileges in schema graphql grant execute on routines to postgres, anon, authenticated, service_role;
  alter default privileges in schema graphql grant select on tables to postgres, anon, authenticated, service_role;
  if pg_catalog.to_regnamespace('graphql_public') is null then
    return;
  end if;
  grant usage on schema graphql_public to postgres with grant option;
  -- What belongs to an extension cannot be replaced from outside of it; whoever calls this again has it already.
  if exists (
    select from pg_catalog.pg_depend d join pg_catalog.pg_extension e on e.oid = d.refobjid
    where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.deptype = 'e' and e.extname = 'pg_graphql'
      and d.objid = pg_catalog.to_regprocedure('graphql_public.graphql(text, text, jsonb, jsonb)'))
  then
    return;
  end if;
  -- A text, not a parsed body: that would depend on `graphql.resolve` and forbid DROP EXTENSION.
  create or replace function graphql_public.graphql(
    "operationName" text default null, query text default null, variables jsonb default null, extensions jsonb default null
  ) returns jsonb language sql as $body$
    select graphql.resolve(
      query := query, variables := coalesce(variables, '{}'), "operationName" := "operationName", extensions := extensions)
  $body$;
  alter function graphql_public.graphql(text, text, jsonb, jsonb) owner to postgres;
  revoke all on function graphql_public.graphql(text, text, jsonb, jsonb) from public;
  grant execute on function graphql_public.graphql(text, text, jsonb, jsonb) to postgres, anon, authenticated, service_role;
  alter extension pg_graphql add function graphql_public.graphql(text, text, jsonb, jsonb);
end
$f$;

create or replace function extensions.grant_pg_graphql_access() returns event_trigger
  language plpgsql set search_path = '' as $f$
begin
  if exists (
    select from pg_catalog.pg_event_trigger_ddl_commands() c join pg_catalog.pg_extension e on e.oid = c.objid
    where c.classid = 'pg_catalog.pg_extension'::pg_catalog.regclass and e.extname = 'pg_graphql')
  then
    perform extensions.graphql_wrapper();
  end if;
end
$f$;

create or replace function extensions.set_graphql_placeholder() returns event_trigger
  language plpgsql set search_path = '' as $f$
begin
  if exists (
    select from pg_catalog.pg_event_trigger_dropped_objects() o
    where o.object_type = 'extension' and o.object_identity = 'pg_graphql')
  then
    perform extensions.graphql_placeholder();
  end if;
end
$f$;

-- Functions are open to everybody when they are made; these change what the API calls.
revoke all on function extensions.graphql_placeholder(), extensions.graphql_wrapper() from public;
-- One that was there before keeps its owner, who could make it do anything in a superuser's name.
alter function extensions.graphql_placeholder() owner to postgres;
alter function extensions.graphql_wrapper() owner to postgres;
alter function extensions.grant_pg_graphql_access() owner to postgres;
alter function extensions.set_graphql_placeholder() owner to postgres;

drop event trigger if exists issue_pg_graphql_access;
create event trigger issue_pg_graphql_access on ddl_command_end when tag in ('CREATE EXTENSION')
  execute function extensions.grant_pg_graphql_access();
drop event trigger if exists issue_graphql_placeholder;
create event trigger issue_graphql_placeholder on sql_drop when tag in ('DROP EXTENSION', 'DROP SCHEMA', 'DROP OWNED')
  execute function extensions.set_graphql_placeholder();

-- A restored dump may have brought the extension before the trigger that would have noticed it.
do $step$
begin
  if exists (select from pg_extension where extname = 'pg_graphql') then
    perform extensions.graphql_wrapper();
  else
    perform extensions.graphql_placeholder();
  end if;
end
$step$;

-- For keeper's watch and for set-up itself: does it answer? As whoever asks, never with more rights.
create or replace function supafly.graphql_health(out state text, out detail text)
  language plpgsql set search_path = '' as $f$
declare
  said jsonb;
begin
  detail := (select e.extversion from pg_catalog.pg_extension e where e.extname = 'pg_graphql');
  if detail is null then
    state := 'absent';
    detail := case when exists (select from pg_catalog.pg_available_extensions() a where a.name = 'pg_graphql')
      then 'pg_graphql is installed on this machine but not in the database: `create extension pg_graphql` enables it'
      else 'pg_graphql is not installed on this machine' end;
    return;
  end if;
  begin
    said := graphql.resolve('{__typename}');
    if said ? 'errors' or said -> 'data' ->> '__typename' is null then
      state := 'broken';
      detail := 'pg_graphql ' || detail || ' answers ' || pg_catalog.left(said::text, 200);
    else
      state := 'ok';
      detail := 'pg_graphql ' || detail;
    end if;
  exception when others then
    state := 'broken';
    detail := 'pg_graphql ' || detail || ': ' || sqlerrm;
  end;
end
$f$;
grant usage on schema supafly to supafly;
revoke all on function supafly.graphql_health() from public;
grant execute on function supafly.graphql_health() to supafly;
