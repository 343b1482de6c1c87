do $test$
begin
  assert not exists (
    select from pg_available_extensions a where name in ('pgcrypto', 'uuid-ossp', 'pg_stat_statements')
      and not exists (select from pg_extension e where e.extname = a.name and e.extnamespace = 'extensions'::regnamespace)),
    'all that can be installed is in schema extensions';
  if exists (select from pg_extension where extname = 'uuid-ossp') then
    set local role anon;
    assert extensions.uuid_generate_v4() is not null, 'anon may call it';
    reset role;
  end if;
  if exists (select from pg_extension where extname = 'pg_stat_statements') then
    assert (select count(*) >= 0 from extensions.pg_stat_statements), 'it was loaded, so it answers';
  end if;
end
$test$;
