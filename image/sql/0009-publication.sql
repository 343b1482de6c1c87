-- What Realtime reads; empty until somebody adds a table.
do $step$
begin
  if not exists (select from pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;
end
$step$;
