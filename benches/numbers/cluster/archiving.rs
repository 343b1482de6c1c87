//! `pgbench_archiving`: what archiving costs the database beside it. One cluster, one server after the other on it: no
//! archiving, through keeper, and by the engine.

use super::rig::{self, Server, engine, engine_name, said};
use super::support::bucket::Kind;
use super::support::machine::Machine;
use super::support::{bucket::Bucket, programs};
use super::wal_out::{ENGINES, client_env};
use crate::numbers::contest::{Contestant, WarmUp, contest};
use crate::numbers::row::{Context, Measured, Standing};
use crate::numbers::stats::Samples;
use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A script with the statements of TPC-B as pgbench has it, five of them a transaction, so that there is WAL to speak of.
const SCRIPT: &str = "\\set base random(1, 100000 * :scale - 5000)\n\\set delta random(-5000, 5000)\nbegin;\n\
     update pgbench_accounts set abalance = abalance + :delta where aid in (:base, :base + 1000, :base + 2000, :base + 3000, :base + 4000);\n\
     insert into pgbench_history (tid, bid, aid, delta, mtime) values (1, 1, :base, :delta, current_timestamp);\nend;\n";

struct Place {
    home: std::path::PathBuf,
    seconds: u64,
}

impl Place {
    fn start(&self, more: &[String], env: &rig::Env) -> Result<Server, String> {
        let mut settings: Vec<String> = [
            "shared_buffers=1GB",
            "max_wal_size=2GB",
            "wal_level=logical",
            "wal_compression=on",
            "wal_log_hints=on",
            // The processors and not the disk's flushes shall decide: with them all three are the same.
            "synchronous_commit=off",
            "autovacuum=off",
            "checkpoint_timeout=1h",
        ]
        .map(str::to_owned)
        .into();
        settings.extend(more.iter().cloned());
        let mut server = Server::start(&self.home.join("data/pgdata"), &self.home, &settings, env)?;
        server.ready()?;
        Ok(server)
    }

    /// Transactions a second.
    fn bench(&self, server: &Server, script: &Path) -> Result<f64, String> {
        // From here on every page is in the WAL again.
        server.sql("checkpoint")?;
        let mut pgbench = Command::new(programs::pg_bin().join("pgbench"));
        pgbench.args([
            "-n",
            "-c",
            "8",
            "-j",
            "2",
            "-M",
            "prepared",
            "--random-seed=20261125",
            "-U",
            "postgres",
            "-T",
        ]);
        pgbench.arg(self.seconds.to_string()).arg("-f").arg(script).arg("postgres").env("PGHOST", &self.home);
        let said = rig::output(&mut pgbench)?;
        let tps = said.lines().find_map(|l| l.strip_prefix("tps = ")?.split(' ').next()?.parse::<f64>().ok());
        tps.ok_or_else(|| format!("pgbench said no tps: {said}"))
    }
}

pub(super) fn run(context: &Context) -> Result<Measured, String> {
    rig::install(context)?;
    let place = Place { home: context.disk.join("pgbench"), seconds: context.size(10, 2) };
    let data = place.home.join("data");
    fs::create_dir_all(&data).map_err(said(data.display()))?;
    for dir in [&place.home, &data] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(said(dir.display()))?;
    }
    let script = place.home.join("script.sql");
    fs::write(&script, SCRIPT.replace(":scale", &context.size(30, 2).to_string()))
        .map_err(said(script.display()))?;
    rig::give_to_postgres(&place.home)?;
    rig::initdb(&data.join("pgdata"))?;
    let off = vec!["archive_mode=off".to_owned()];
    let server = place.start(&off, &Vec::new())?;
    let mut pgbench = Command::new(programs::pg_bin().join("pgbench"));
    pgbench.args(["-i", "-q", "-s", &context.size(30, 2).to_string(), "-U", "postgres", "postgres"]);
    rig::run(pgbench.env("PGHOST", &place.home))?;
    server.stop()?;
    rig::made_here(&data)?;

    let bucket = Bucket::start(Kind::S3);
    let services = rig::services(context, &["secrets", "claim", "keeper", "datadir"])?;
    let mut env = bucket.env();
    env.push(("SUPAFLY_SERVICES", services.display().to_string()));
    env.push(("SUPAFLY_DATA", data.display().to_string()));
    let mut machine = Machine::new(&env);

    let ours_env = client_env(&machine);
    let engine_env = engine(bucket.engine_env(ENGINES), &data.join("pgdata"), &[]);
    let command = |program: &str| {
        let program = programs::programs().join(program);
        vec!["archive_mode=on".to_owned(), format!("archive_command=\"{}\" wal-push %p", program.display())]
    };
    let taken: [RefCell<Vec<f64>>; 3] = Default::default();
    let sample = |which: usize, settings: &[String], env: &rig::Env| {
        let server = place.start(settings, env)?;
        let tps = place.bench(&server, &script)?;
        server.stop()?;
        if let Some(taken) = taken.get(which) {
            taken.borrow_mut().push(tps);
        }
        Ok(tps)
    };
    let (ours_on, engine_on) = (command("supafly"), command("engine"));
    // Keeper ships by itself what is ready, so it lives only while it is its turn.
    let ours = || {
        machine.boot();
        rig::wait_service(&mut machine, "datadir", &["done"]);
        let tps = sample(0, &ours_on, &ours_env);
        machine.stop();
        tps
    };
    let peers = vec![
        Contestant::new(format!("{} wal-push", engine_name()), Standing::Rival, || {
            sample(1, &engine_on, &engine_env)
        }),
        Contestant::new("archiving off", Standing::Reference("the others are divided by it"), || {
            sample(2, &off, &Vec::new())
        }),
    ];
    let (_, mut peers) = contest(context, (5, WarmUp::No), ours, peers)?;
    let sent = [
        bucket.stored("e0000000001/wal_005/").len(),
        bucket.stored(&format!("e{ENGINES:010}/wal_005/")).len(),
    ];
    if sent.contains(&0) {
        return Err(format!("segments stored: ours {}, the engine's {}", sent[0], sent[1]));
    }
    let [ours, its, off] = taken.map(RefCell::into_inner);
    let off = Samples::new(off)?.median();
    let ratio = |tps: Vec<f64>| Samples::new(tps.into_iter().map(|t| t / off).collect());
    for peer in &mut peers {
        let Ok(samples) = &peer.samples else { continue };
        peer.samples = match peer.standing {
            Standing::Rival => ratio(its.clone()),
            Standing::Reference(_) => Samples::new(vec![samples.median() / off]),
        };
    }
    Ok(Measured {
        ours: ratio(ours)?,
        peers,
        conditions: Vec::new(),
        notes: vec![format!(
            "{off:.0} transactions a second without; segments sent: ours {}, the engine {}",
            sent[0], sent[1]
        )],
    })
}
