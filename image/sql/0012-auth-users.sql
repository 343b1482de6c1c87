-- What foreign keys and triggers of projects point to. Without GoTrue nobody else makes it. The columns are those of GoTrue's
-- first migration, which finds the table and goes on from there; so it is GoTrue's role that owns it. No role of the API
-- may look at it.
create table if not exists auth.users (
  instance_id uuid,
  id uuid not null unique,
  aud varchar(255),
  role varchar(255),
  email varchar(255) unique,
  encrypted_password varchar(255),
  confirmed_at timestamptz,
  invited_at timestamptz,
  confirmation_token varchar(255),
  confirmation_sent_at timestamptz,
  recovery_token varchar(255),
  recovery_sent_at timestamptz,
  email_change_token varchar(255),
  email_change varchar(255),
  email_change_sent_at timestamptz,
  last_sign_in_at timestamptz,
  raw_app_meta_data jsonb,
  raw_user_meta_data jsonb,
  is_super_admin bool,
  created_at timestamptz,
  updated_at timestamptz,
  constraint users_pkey primary key (id)
);

do $step$
begin
  -- One that a restored dump has brought is as it is; but it must be its role's.
  if (select relowner from pg_class where oid = 'auth.users'::regclass) <> to_regrole('supabase_auth_admin') then
    alter table auth.users owner to supabase_auth_admin;
  end if;
end
$step$;

grant all on auth.users to postgres, dashboard_user;
