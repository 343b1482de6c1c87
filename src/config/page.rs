//! `docs/configuration.md`, made from the tables of settings and variables. Pure.

use super::variables::Of;
use super::{TABLE, VARIABLES, server};
use std::fmt::Write;

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

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
         the volume itself (an official image's volume, mounted at `SUPAFLY_DATA`), `pgdata`, `data` and `<major>/docker` in it,\n\
         `/var/lib/postgresql/data`, `pgdata` in it, `/var/lib/postgresql/<major>/docker`. If there is one, nothing is started\n\
         (exit 77): its directory is said. Then either `SUPAFLY_ADOPT=<that directory>` adopts it, or `SUPAFLY_ADOPT=never` makes\n\
         a new cluster and leaves it alone.\n\n\
         It is adopted when it is of the installed major, was stopped in order, has its WAL and its tables within, and lies on\n\
         the volume (a volume of its own is mounted at `SUPAFLY_DATA`). It is moved, not copied: renamed to `pgdata.adopting`,\n\
         given to Postgres's user, given the roles `postgres` (superuser) and `supafly`, made durable, and only then renamed to\n\
         `pgdata`. Killed at any step, the next boot goes on where it was. Its own `postgresql.conf` and `pg_hba.conf` are not\n\
         read any more; `postgresql.auto.conf` is.\n\n\
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
