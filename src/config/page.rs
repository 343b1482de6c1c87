//! `docs/configuration.md`, made from the tables of settings and variables. Pure.

use super::variables::Of;
use super::{TABLE, VARIABLES, server};
use std::fmt::Write;

/// Text for a cell of a table; what is between backticks stays as it is.
fn cell(text: &str) -> String {
    let mut code = false;
    let parts = text.split('`').map(|part| {
        let part = if code { part.to_owned() } else { part.replace('<', "&lt;") };
        code = !code;
        part.replace('|', "\\|")
    });
    parts.collect::<Vec<_>>().join("`")
}

/// What else is given by the environment alone, because it is secret, or because other programs call it so.
const GIVEN: &[(&str, &str, &str)] = &[
    ("`SUPAFLY_CONFIG`", "/etc/supafly/supafly.toml, if there", "the file of settings, as `--config`"),
    (
        "`POSTGRES_PASSWORD`, `POSTGRES_PASSWORD_FILE`",
        "made with the cluster",
        "password of the database role postgres",
    ),
    ("`JWT_SECRET`, `JWT_SECRET_FILE`", "made", "signs and proves tokens"),
    ("`ANON_KEY`, `ANON_KEY_FILE`", "made from it", "API key of the role anon"),
    ("`SERVICE_ROLE_KEY`, `SERVICE_ROLE_KEY_FILE`", "made from it", "API key of the role service_role"),
    ("`JWT_EXPIRY`, `JWT_EXPIRY_FILE`", "3600", "how long a user's token is good, in seconds"),
    ("`AUTHENTICATOR_PASSWORD`, `AUTHENTICATOR_PASSWORD_FILE`", "made", "password of the role authenticator"),
    ("`PGBOUNCER_PASSWORD`, `PGBOUNCER_PASSWORD_FILE`", "made", "password of the role pgbouncer"),
    (
        "`SUPABASE_ADMIN_PASSWORD`, `SUPABASE_ADMIN_PASSWORD_FILE`",
        "made",
        "password of the role supabase_admin",
    ),
    (
        "`SUPAVISOR_ADMIN_PASSWORD`, `SUPAVISOR_ADMIN_PASSWORD_FILE`",
        "made",
        "password of the role supavisor_admin",
    ),
    ("`WEB_TOKEN`, `WEB_TOKEN_FILE`", "made", "token of the private routes where they are not on loopback"),
    ("`BUCKET_NAME`", "none", "the bucket, as `fly storage create` names it: enough without `SUPAFLY_STORE`"),
    (
        "`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`",
        "none",
        "keys of the store; each also by `…_FILE`",
    ),
    (
        "`AWS_WEB_IDENTITY_TOKEN_FILE`, `AWS_ROLE_ARN`, `AWS_ROLE_SESSION_NAME`, `AWS_ENDPOINT_URL_STS`",
        "none",
        "temporary keys instead of keys",
    ),
    ("`AWS_REGION`, `AWS_DEFAULT_REGION`", "us-east-1; auto at Tigris", "region of the bucket"),
    (
        "`AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_ENDPOINT`",
        "Amazon's",
        "where the store is; the first that is set, for both writers",
    ),
    ("`AWS_S3_FORCE_PATH_STYLE`", "by the endpoint", "the bucket's name in the path, not in the host"),
    ("`AWS_CA_BUNDLE`", "the system's", "certificates that the store's is proved with"),
    ("`S3_SSE`, `S3_SSE_KMS_ID`", "none", "encryption by the store: AES256, or aws:kms with its key"),
    ("`S3_SSE_C`", "none", "refused: both writers cannot do it alike"),
    (
        "`FLY_APP_NAME`, `FLY_MACHINE_ID`",
        "none",
        "set by Fly: the project's name; a shorter stop, and holding in place of ending",
    ),
    ("`TZ`", "UTC", "handed on to PostgREST"),
];

/// The whole page.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         Nothing has to be given but `POSTGRES_PASSWORD`, and even that is made when it is not. What was chosen is said at the\n\
         start; `supafly check` prints every setting with its value and where that came from.\n\n\
         A setting is read from the environment, else from `supafly.toml` (`--config`, else `/etc/supafly/supafly.toml`), else\n\
         its default holds. Durations are written `500ms`, `10s`, `2m`, `1h`.\n\n\
         This page is made from `src/config/` by `make docs`; a test holds the two together.\n\n\
         ## Settings\n\n\
         | environment | in `supafly.toml` | default | means |\n|---|---|---|---|\n",
    );
    for row in TABLE {
        let (default, meaning) = (cell(row.default), cell(row.meaning));
        let _ = writeln!(text, "| `{}` | `{}` | {default} | {meaning} |", row.variable, row.key);
    }
    text.push_str(
        "\n## Secrets, the store and the platform\n\n\
         By the environment alone. A secret reaches its consumer in a file of its own, never by an environment or a command \
         line;\nwhat is made is kept on the volume, and `supafly keys` shows it.\n\n\
         | environment | without it | means |\n|---|---|---|\n",
    );
    for (names, default, meaning) in GIVEN {
        let _ = writeln!(text, "| {names} | {default} | {} |", cell(meaning));
    }
    text.push_str(
        "\n## Arguments of the image\n\n\
         The image starts `supafly run -- ARGUMENTS`, with what follows the image's name:\n\n\
         | arguments | then |\n|---|---|\n\
         | none | everything is started |\n\
         | the first begins with `-`: `-c work_mem=8MB`, `--work_mem=8MB`, `-N 100` | server settings of Postgres; everything is started |\n\
         | the first is `postgres`: `postgres -c work_mem=8MB` | the same, and it is said: Postgres is not started alone |\n\
         | `--version`, `--help`, `--describe-config` (also after `postgres`) | Postgres's own program answers |\n\
         | any other first word: `bash`, `psql`, `supafly check` | it is executed, in our place |\n\n\
         They come on top of `SUPAFLY_PG_SETTINGS`. What somebody has set by `ALTER SYSTEM` wins over both, and the log says so.\n\
         `shared_preload_libraries` is joined with what the product loads. These are refused:\n\n\
         | setting | because, or instead |\n|---|---|\n",
    );
    for (name, why) in server::refusals() {
        let _ = writeln!(text, "| `{name}` | {} |", cell(why));
    }
    text.push_str("| `recovery_target…` | a restore is done before the server starts |\n");
    text.push_str(
        "\n## A cluster that is there already\n\n\
         A cluster that another image made is never touched unasked. At the first boot of a volume these places are looked at:\n\
         the volume itself (an official image's volume, mounted at `SUPAFLY_DATA`), `pgdata`, `data`, `pgdata.adopting`, `<major>/docker` in it,\n\
         `/var/lib/postgresql/data`, `pgdata` in it, `/var/lib/postgresql/<major>/docker`. If there is one, nothing is started\n\
         (exit 77): its directory is said. Then either `SUPAFLY_ADOPT=<that directory>` adopts it, or `SUPAFLY_ADOPT=never` makes\n\
         a new cluster and leaves it alone.\n\n\
         It is adopted when it is of the installed major, was stopped in order, has its WAL and its tables within, and lies on\n\
         the volume (a volume of its own is mounted at `SUPAFLY_DATA`). It is moved, not copied: renamed to `pgdata.adopting`,\n\
         given to Postgres's user, given the roles `postgres` (superuser) and `supafly`, made durable, and only then renamed to\n\
         `pgdata`. Killed at any step, the next boot goes on where it was. Its own `postgresql.conf` and `pg_hba.conf` are not\n\
         read any more; `postgresql.auto.conf` is.\n\n\
         An adopted cluster can only claim a prefix that has no owner. Where `SUPAFLY_STORE` has one and `SUPAFLY_TAKEOVER` would\n\
         take it over, the two settings contradict each other: `claim` refuses (exit 77) before it takes anything, so the former\n\
         owner goes on; `supafly check` refuses an epoch beside a directory (exit 78). Take `SUPAFLY_ADOPT` away to restore what is\n\
         archived, or name an empty prefix to adopt the cluster. Both may stay set once the volume has its cluster.\n\n\
         What would fail later is refused beforehand: what `ALTER SYSTEM` has set there and is ours here (`port`, `archive_command`),\n\
         libraries to be loaded that are not installed, something mounted in its directory. Out of the root of a volume only what\n\
         Postgres itself names there is moved; the rest is left, and said.\n\n\
         After that the log says what is to be done by hand. Where the system's collations are of another version than where the\n\
         cluster was made, or nobody knows of which, indexes on texts may miss rows: `reindex database …`, then `alter database …\n\
         refresh collation version`, in each database that is named. And only SCRAM passwords are let in: a role whose password is\n\
         kept as md5 needs `alter role … password …` once.\n\n\
         ## Variables of other images\n\n\
         *Same*: it does here what it does there. *Refused*: nothing is started (exit 78), because what was asked for cannot be\n\
         had. *Ignored*: the log and `supafly check` say so.\n",
    );
    for (of, title) in [
        (Of::Official, "The official Postgres image"),
        (Of::Supabase, "Supabase's all-in-one image, beside these"),
    ] {
        let _ = write!(text, "\n### {title}\n\n| variable | here | |\n|---|---|---|\n");
        for variable in VARIABLES.iter().filter(|v| v.of == of) {
            let (word, why) = variable.in_general();
            let _ = writeln!(text, "| `{}` | {word} | {} |", variable.name, cell(&why));
        }
    }
    text
}
