-- That the notification arrives is tested from outside (tests/setup): it is sent at commit.
do $test$
declare
  said text;
begin
  select string_agg(format('%s:%s:%s', evtname, evtevent, evtenabled), ' ' order by evtname) into said
    from pg_event_trigger where evtname like 'pgrst%';
  assert said = 'pgrst_ddl_watch:ddl_command_end:O pgrst_drop_watch:sql_drop:O', said;
  assert (select bool_and(proconfig @> array['search_path=""']) from pg_proc
    where proname in ('pgrst_ddl_watch', 'pgrst_drop_watch')), 'no caller chooses what their names mean';
end
$test$;
