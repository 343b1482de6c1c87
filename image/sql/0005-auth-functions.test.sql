do $test$
begin
  assert auth.uid() is null and auth.role() is null and auth.jwt() is null and auth.email() is null, 'nobody asks';
  perform set_config('request.jwt.claims',
    '{"sub": "11111111-2222-3333-4444-555555555555", "role": "authenticated", "email": "a@b.c"}', true);
  set local role authenticated;
  assert auth.uid() = '11111111-2222-3333-4444-555555555555', 'sub of the claims';
  assert auth.role() = 'authenticated' and auth.email() = 'a@b.c', 'role and email of the claims';
  assert auth.jwt() ->> 'sub' = '11111111-2222-3333-4444-555555555555', 'the claims';
  perform set_config('request.jwt.claim.sub', 'aaaaaaaa-2222-3333-4444-555555555555', true);
  perform set_config('request.jwt.claim.role', 'anon', true);
  assert auth.uid() = 'aaaaaaaa-2222-3333-4444-555555555555' and auth.role() = 'anon', 'older settings win';
  perform set_config('request.jwt.claim.sub', '', true);
  perform set_config('request.jwt.claims', '', true);
  assert auth.uid() is null, 'an empty setting is none';
  reset role;
  assert (select bool_and(proowner = 'supabase_auth_admin'::regrole) from pg_proc
    where pronamespace = 'auth'::regnamespace), 'GoTrue may replace them';
end
$test$;
