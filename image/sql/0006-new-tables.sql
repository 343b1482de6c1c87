-- supafly: every-run
-- Whether what is made in `public` can be reached through the API from the start (setting `auto_expose`). Done when the
-- setting has changed, and not otherwise: what users grant or take back by default privileges of their own stays.
-- A function is open to everybody in either case, as Postgres makes it; who wants another default for all of a role's
-- functions says `alter default privileges … revoke execute on functions from public`.
do $step$
declare
  wanted text := current_setting('supafly.auto_expose');
  before text := (select value from supafly.remembered where name = 'auto_expose');
  maker text;
  kind text;
begin
  if wanted is distinct from before and (wanted = 'on' or before is not null) then
    foreach maker in array array['postgres', 'supabase_admin'] loop
      foreach kind in array array['tables', 'routines', 'sequences'] loop
        execute format('alter default privileges for role %I in schema public %s all on %s %s anon, authenticated, service_role',
          maker, case wanted when 'on' then 'grant' else 'revoke' end, kind, case wanted when 'on' then 'to' else 'from' end);
      end loop;
    end loop;
  end if;
  if wanted is distinct from before then
    insert into supafly.remembered values ('auto_expose', wanted) on conflict (name) do update set value = excluded.value;
  end if;
end
$step$;
