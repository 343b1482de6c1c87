-- PostgREST reads the schema anew when told so on channel `pgrst`: after every change that it can see, without a hand.
create or replace function extensions.pgrst_ddl_watch() returns event_trigger language plpgsql set search_path = '' as $f$
declare
  change record;
begin
  for change in select * from pg_catalog.pg_event_trigger_ddl_commands() loop
    if change.command_tag in (
        'CREATE SCHEMA', 'ALTER SCHEMA',
        'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE',
        'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE', 'IMPORT FOREIGN SCHEMA',
        'CREATE VIEW', 'ALTER VIEW', 'CREATE MATERIALIZED VIEW', 'ALTER MATERIALIZED VIEW',
        'CREATE FUNCTION', 'ALTER FUNCTION', 'CREATE PROCEDURE', 'ALTER PROCEDURE',
        'CREATE TRIGGER', 'CREATE TYPE', 'ALTER TYPE', 'CREATE DOMAIN', 'ALTER DOMAIN',
        'CREATE RULE', 'CREATE EXTENSION', 'ALTER EXTENSION', 'COMMENT')
      and change.schema_name is distinct from 'pg_temp'
      and coalesce(change.schema_name, '') not in ('auth', 'storage', 'realtime', '_realtime', 'supafly')
    then
      notify pgrst, 'reload schema';
      return;
    end if;
  end loop;
end
$f$;

create or replace function extensions.pgrst_drop_watch() returns event_trigger language plpgsql set search_path = '' as $f$
declare
  gone record;
begin
  for gone in select * from pg_catalog.pg_event_trigger_dropped_objects() loop
    if gone.object_type in ('schema', 'table', 'foreign table', 'view', 'materialized view', 'function', 'procedure',
        'trigger', 'type', 'domain', 'rule', 'extension')
      and not gone.is_temporary
      and coalesce(gone.schema_name, '') not in ('auth', 'storage', 'realtime', '_realtime', 'supafly')
    then
      notify pgrst, 'reload schema';
      return;
    end if;
  end loop;
end
$f$;

-- One that was there before keeps its owner, who could make it do anything in a superuser's name.
alter function extensions.pgrst_ddl_watch() owner to postgres;
alter function extensions.pgrst_drop_watch() owner to postgres;

drop event trigger if exists pgrst_ddl_watch;
create event trigger pgrst_ddl_watch on ddl_command_end execute function extensions.pgrst_ddl_watch();
drop event trigger if exists pgrst_drop_watch;
create event trigger pgrst_drop_watch on sql_drop execute function extensions.pgrst_drop_watch();
