//! What PostgREST needs from the database, asked as the role and by the way that it will use.

use crate::config::{Secret, Settings};
use crate::exit::Failure;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// How long one connection and its few questions may take.
const ONCE: Duration = Duration::from_secs(5);
/// How long it is asked again when it takes none: after a crash it says READY a moment before it takes connections.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the database says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) max_connections: u32,
    /// Of them, for superusers only.
    pub(super) reserved: u32,
}

/// Asks.
///
/// # Errors
/// 70 with the setting or service that mends it.
pub(super) fn ask(settings: &Settings, password: &Secret) -> Result<Found, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::gave_up(format!("cannot start the event loop: {e}")))?;
    runtime.block_on(async {
        let begun = Instant::now();
        loop {
            let asked = tokio::time::timeout(ONCE, once(settings, password)).await;
            match asked.unwrap_or_else(|_| Err(Trouble::Passing("no answer in time".to_owned()))) {
                Ok(found) => return Ok(found),
                Err(Trouble::Lasting(why)) => return Err(Failure::gave_up(why)),
                Err(Trouble::Passing(why)) if begun.elapsed() > PATIENCE => {
                    return Err(Failure::gave_up(format!(
                        "no connection to Postgres at {}: {why}",
                        settings.pg_socket_dir().display()
                    )));
                }
                Err(Trouble::Passing(_)) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    })
}

/// Why there was no answer.
enum Trouble {
    /// Worth asking again at once.
    Passing(String),
    /// Somebody must do something first.
    Lasting(String),
}

async fn once(settings: &Settings, password: &Secret) -> Result<Found, Trouble> {
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(settings.pg_socket_dir())
        .port(settings.pg_port)
        .user("authenticator")
        .password(password.reveal())
        .dbname("postgres")
        .application_name("supafly postgrest");
    let (client, connection) = config.connect(NoTls).await.map_err(|e| trouble(&e))?;
    let driver = tokio::spawn(connection);
    let answer = questions(&client, settings).await;
    drop(client);
    // A goodbye that fails takes nothing from the answer.
    let _ = driver.await;
    answer
}

async fn questions(client: &Client, settings: &Settings) -> Result<Found, Trouble> {
    let number = async |name: &str| -> Result<u32, Trouble> {
        let shown = text(client, &format!("show {name}")).await?;
        shown.parse().map_err(|_| Trouble::Lasting(format!("Postgres shows {name} as `{shown}`")))
    };
    let found = Found {
        max_connections: number("max_connections").await?,
        reserved: number("superuser_reserved_connections").await?,
    };
    // What the role's own settings say wins over ours in PostgREST.
    for (key, ours, variable) in [
        ("pgrst.db_schemas", &settings.rest.schemas, "SUPAFLY_POSTGREST_SCHEMAS"),
        ("pgrst.db_extra_search_path", &settings.rest.search_path, "SUPAFLY_POSTGREST_SEARCH_PATH"),
    ] {
        let theirs = text(client, &format!("select coalesce(current_setting('{key}', true), '')")).await?;
        let names: Vec<String> =
            theirs.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect();
        let (names, named) = if names.is_empty() {
            (ours, variable.to_owned())
        } else {
            (&names, format!("`{key}` of the role authenticator"))
        };
        for name in names {
            let literal = name.replace('\'', "''");
            let there =
                format!("select exists (select from pg_catalog.pg_namespace where nspname = '{literal}')");
            if text(client, &there).await? != "t" {
                return Err(Trouble::Lasting(format!(
                    "{named}: there is no schema `{name}` in the database: create it, or leave it out; until then \
                     PostgREST would never be ready"
                )));
            }
        }
    }
    Ok(found)
}

/// The one value of a statement's answer.
async fn text(client: &Client, statement: &str) -> Result<String, Trouble> {
    let rows = client.simple_query(statement).await.map_err(|e| trouble(&e))?;
    let value = rows.iter().find_map(|message| {
        let SimpleQueryMessage::Row(row) = message else { return None };
        row.get(0).map(str::to_owned)
    });
    value.ok_or_else(|| Trouble::Lasting(format!("`{statement}` gave no row")))
}

fn trouble(e: &tokio_postgres::Error) -> Trouble {
    let Some(db) = e.as_db_error() else {
        let why = std::iter::successors(Some(e as &dyn std::error::Error), |e| e.source()).last();
        return Trouble::Passing(why.map(ToString::to_string).unwrap_or_default());
    };
    let said = format!("{} ({})", db.message(), db.code().code());
    let code = db.code();
    let no_login = [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION];
    if no_login.contains(code) {
        return Trouble::Lasting(format!(
            "Postgres does not let the role authenticator in: {said}; the service `setup` makes the role and sets its \
             password: restart it"
        ));
    }
    // On its way up or down.
    if *code == SqlState::CANNOT_CONNECT_NOW
        || *code == SqlState::ADMIN_SHUTDOWN
        || *code == SqlState::CRASH_SHUTDOWN
    {
        return Trouble::Passing(said);
    }
    Trouble::Lasting(format!("Postgres does not serve the role authenticator: {said}"))
}
