-- supafly: every-run
-- What projects count on, in schema `extensions`, where it is installed on this machine. What is not installed is said
-- by the role itself (it looks anyway), and is no error. One that a user has elsewhere stays where it is.
do $step$
declare
  want text;
begin
  for want in
    select a.name from pg_available_extensions a
    where a.name in ('pgcrypto', 'uuid-ossp', 'pg_stat_statements') and a.installed_version is null
      -- Made once: whoever drops one of them does not want it.
      and not exists (select from supafly.remembered r where r.name = 'extension ' || a.name)
    order by a.name
  loop
    execute format('create extension %I with schema extensions', want);
    insert into supafly.remembered values ('extension ' || want, 'created');
  end loop;
end
$step$;
