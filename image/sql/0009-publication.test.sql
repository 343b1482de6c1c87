do $test$
begin
  assert exists (select from pg_publication where pubname = 'supabase_realtime' and not puballtables), 'it is there';
  assert current_setting('wal_level') = 'logical', 'wal_level';
  create table public.of_the_test (id int primary key);
  alter publication supabase_realtime add table public.of_the_test;
  drop table public.of_the_test;
end
$test$;
