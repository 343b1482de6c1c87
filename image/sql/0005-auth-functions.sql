-- Who is asking, for policies. Without GoTrue nobody else makes these. PostgREST 12 and later set `request.jwt.claims`
-- only; the older settings, one for each claim, win where somebody still sets them.
-- Bodies are parsed here and now (`return`), so no search_path of a caller changes what they mean, and they are inlined.
-- Once: GoTrue's own migrations replace them, and that must stay.
create or replace function auth.jwt() returns jsonb language sql stable parallel safe
  return coalesce(
    nullif(current_setting('request.jwt.claim', true), ''),
    nullif(current_setting('request.jwt.claims', true), ''))::jsonb;

create or replace function auth.uid() returns uuid language sql stable parallel safe
  return coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid;

create or replace function auth.role() returns text language sql stable parallel safe
  return coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role');

create or replace function auth.email() returns text language sql stable parallel safe
  return coalesce(
    nullif(current_setting('request.jwt.claim.email', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email');

comment on function auth.uid() is 'The id of whoever asks: the claim `sub`.';
comment on function auth.role() is 'The role of whoever asks: the claim `role`.';
comment on function auth.jwt() is 'All claims of whoever asks.';
comment on function auth.email() is 'The address of whoever asks: the claim `email`.';
-- GoTrue replaces them, and only their owner may.
alter function auth.jwt() owner to supabase_auth_admin;
alter function auth.uid() owner to supabase_auth_admin;
alter function auth.role() owner to supabase_auth_admin;
alter function auth.email() owner to supabase_auth_admin;
