-- supafly: every-run
-- pg_graphql, where this machine has it. Once enabled it is kept at the version of the machine; it has no upgrade scripts,
-- so that is a drop and a create. A user who drops it is left alone.
do $step$
declare
  has record;
  owner text := (select r.rolname from pg_namespace n join pg_roles r on r.oid = n.nspowner
    where n.nspname = 'graphql' and not r.rolsuper);
begin
  select default_version, installed_version into has from pg_available_extensions where name = 'pg_graphql';
  if not found then
    return;
  end if;
  -- Its schema is always that one, and set-up asks what is in it as superuser.
  if owner is not null then
    raise warning 'pg_graphql is not touched: schema graphql belongs to %', owner;
    return;
  end if;
  if has.installed_version is null then
    if not exists (select from supafly.remembered where name = 'extension pg_graphql') then
      create extension pg_graphql;
    end if;
  elsif has.installed_version <> has.default_version then
    begin
      drop extension pg_graphql;
      create extension pg_graphql;
    exception when dependent_objects_still_exist then
      raise warning 'pg_graphql stays at % (this machine has %): something depends on it',
        has.installed_version, has.default_version;
    end;
  end if;
  if not exists (select from supafly.remembered where name = 'extension pg_graphql') then
    insert into supafly.remembered values ('extension pg_graphql', 'created');
  end if;
end
$step$;
