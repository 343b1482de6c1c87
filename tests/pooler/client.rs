//! A client over TCP, as an application is: it says what it got, an answer or the error in the server's words.

use crate::support::machine::Machine;
use std::time::Duration;

/// Longer than the pooler lets anybody wait.
const LONG: Duration = Duration::from_secs(80);

/// One connection.
pub(crate) struct Client {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
}

/// Who comes, and where to.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) database: String,
}

impl Login {
    /// The database's superuser, with the password that the machine made.
    pub(crate) fn postgres(machine: &Machine, port: u16) -> Login {
        let file = machine.data().join("supafly/secrets/postgres-password");
        Login {
            port,
            user: "postgres".to_owned(),
            password: std::fs::read_to_string(file).unwrap(),
            database: "postgres".to_owned(),
        }
    }

    /// Comes in.
    pub(crate) fn connect(&self) -> Result<Client, String> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user(&self.user).dbname(&self.database);
        config.password(&self.password);
        let connected = runtime.block_on(async {
            let login = tokio::time::timeout(LONG, config.connect(tokio_postgres::NoTls));
            let (client, connection) = login.await.map_err(|_| "hangs".to_owned())?.map_err(|e| said(&e))?;
            // Its error comes out of the query that it cuts.
            tokio::spawn(async move { drop(connection.await) });
            Ok::<_, String>(client)
        });
        let client = connected?;
        Ok(Client { runtime, client })
    }

    /// Comes in, asks and goes.
    pub(crate) fn ask(&self, statement: &str) -> Result<String, String> {
        self.connect()?.ask(statement)
    }
}

impl Client {
    /// The first field of the first row, or nothing.
    pub(crate) fn ask(&self, statement: &str) -> Result<String, String> {
        let answer = self
            .runtime
            .block_on(async { tokio::time::timeout(LONG, self.client.simple_query(statement)).await });
        let messages = answer.map_err(|_| "hangs".to_owned())?.map_err(|e| said(&e))?;
        let rows = messages.iter().filter_map(|m| {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = m { row.get(0) } else { None }
        });
        Ok(rows.map(str::to_owned).next().unwrap_or_default())
    }
}

/// `57P01 terminating connection …`, or what the connection says of its end.
fn said(e: &tokio_postgres::Error) -> String {
    match e.as_db_error() {
        Some(db) => format!("{} {}", db.code().code(), db.message()),
        None => std::iter::successors(Some(e as &dyn std::error::Error), |e| e.source())
            .last()
            .unwrap()
            .to_string(),
    }
}
