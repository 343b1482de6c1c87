do $test$
declare
  exposed boolean := (select value = 'on' from supafly.remembered where name = 'auto_expose');
begin
  create table public.of_the_test (id int);
  assert has_table_privilege('anon', 'public.of_the_test', 'select, insert') = exposed, 'anon and a new table';
  assert has_table_privilege('service_role', 'public.of_the_test', 'select') = exposed, 'service_role and a new table';
  drop table public.of_the_test;
end
$test$;
