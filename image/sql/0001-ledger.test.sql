do $test$
begin
  assert (select count(*) > 5 from supafly.ledger where kind = 'step' and finished is not null), 'steps are entered';
  assert not has_schema_privilege('anon', 'supafly', 'usage'), 'anon may not see the ledger';
  assert not has_table_privilege('authenticator', 'supafly.ledger', 'select'), 'authenticator may not read it';
end
$test$;
