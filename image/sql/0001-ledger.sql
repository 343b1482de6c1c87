-- supafly: every-run
-- What was done to this database, by whom and when. The first step: all others are entered here.
do $step$
declare
  owner text := (select r.rolname from pg_namespace n join pg_roles r on r.oid = n.nspowner
    where n.nspname = 'supafly' and not r.rolsuper);
begin
  -- A trigger of its owner would run with our rights at every line that we enter.
  if owner is not null then
    raise exception 'schema supafly belongs to %, and set-up keeps its ledger there: rename it', owner;
  end if;
  if to_regclass('supafly.ledger') is not null and to_regclass('supafly.remembered') is not null then
    return;
  end if;
  create schema if not exists supafly;
  revoke all on schema supafly from public;
  create table if not exists supafly.ledger (
    kind text not null check (kind in ('step', 'migration')),
    name text not null,
    sha256 text not null,
    version text not null,
    began timestamptz not null default pg_catalog.clock_timestamp(),
    -- Null: it was begun outside of a transaction, and nobody has said that it came to its end.
    finished timestamptz,
    primary key (kind, name)
  );
  -- What set-up must remember of its own past decisions.
  create table if not exists supafly.remembered (
    name text primary key,
    value text not null
  );
  revoke all on all tables in schema supafly from public;
end
$step$;
