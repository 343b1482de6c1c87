//! Supavisor's own database, where that is the pooler: a database cannot be made in a transaction, so it is no step.
//!
//! Each part is compared and brought about by itself, so a kill between two of them is healed by the next run, and a
//! database that is as it should be is not touched. What is in it is Supavisor's affair.

use super::session::{Session, sql};
use crate::config::Settings;
use crate::exit::Failure;
use crate::failpoint;
use crate::pooler::{choice, supavisor};

/// Makes it, gives it to its role, and shuts it to everybody else.
pub(super) async fn settle(settings: &Settings, session: &Session) -> Result<(), Failure> {
    if choice::chosen(settings).is_none_or(|chosen| chosen.kind != choice::Kind::Supavisor) {
        return Ok(());
    }
    let (name, role) = (supavisor::DATABASE, supavisor::ROLE);
    let failed = |e: tokio_postgres::Error| sql(&format!("make the database {name}"), &e);
    let run = async |statement: String| session.client.batch_execute(&statement).await.map_err(failed);
    // A `drop database` that was cut off leaves one that nobody can use, and that can only be dropped.
    let look = "select d.datconnlimit = -2, pg_catalog.pg_get_userbyid(d.datdba) = $2, \
                exists (select from pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a \
                        where a.grantee = 0) \
                from pg_catalog.pg_database d where d.datname = $1";
    let look = async || session.client.query_opt(look, &[&name, &role]).await.map_err(failed);
    let mut there = look().await?;
    if there.as_ref().is_some_and(|row| row.get(0)) {
        tracing::warn!("the database {name} was being dropped when that was cut off: it is made anew");
        run(format!("drop database {name}")).await?;
        there = None;
    }
    if there.is_none() {
        // The one template in which nobody has left anything.
        run(format!("create database {name} owner {role} template template0")).await?;
        tracing::info!("made the database {name}");
        failpoint::hit("setup.in-database");
        there = look().await?;
    }
    let Some(row) = there else {
        return Err(Failure::gave_up(format!("the database {name} was made and is not there")));
    };
    if !row.get::<_, bool>(1) {
        run(format!("alter database {name} owner to {role}")).await?;
    }
    if row.get(2) {
        run(format!("revoke all on database {name} from public")).await?;
    }
    Ok(())
}
