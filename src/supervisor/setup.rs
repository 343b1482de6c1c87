//! What is made once, before the first service: subreaper, sockets, and what is said of a world that lacks something.

use super::RunArgs;
use super::driver::{Driver, Ears};
use super::probing::Probes;
use super::rundir::RunDir;
use crate::control::server;
use crate::exit::Failure;
use crate::os::limits::OpenFiles;
use crate::os::notify::NotifySocket;
use crate::os::oom::OomWatch;
use crate::os::output::{Rings, Writer};
use crate::os::privilege::Privilege;
use crate::os::reaper::Processes;
use crate::os::signals::Signals;
use crate::plan::Plan;
use crate::state::Machine;
use std::collections::BTreeMap;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What is known before.
pub(super) struct Given {
    pub(super) args: RunArgs,
    pub(super) plan: Plan,
    pub(super) rundir: RunDir,
    pub(super) privilege: Privilege,
    pub(super) holder: String,
    pub(super) writer: Writer,
    pub(super) rings: Rings,
    pub(super) signals: Signals,
}

/// A driver with nothing started yet, and what it listens to. Must be called inside the event loop.
pub(super) fn set_up(given: Given) -> Result<(Driver, Ears), Failure> {
    let Given { args, plan, rundir, privilege, holder, writer, rings, signals } = given;
    let failed = |what: String| move |e: std::io::Error| Failure::config(format!("cannot {what}: {e}"));
    let processes = Processes::new().map_err(failed("become a subreaper".to_owned()))?;
    let path = rundir.notify_socket();
    let notify = NotifySocket::bind(&path).map_err(failed(format!("make {}", path.display())))?;
    let path = rundir.control_socket();
    let listener = server::bind(&path).map_err(failed(format!("make {}", path.display())))?;
    let (calls, called) = mpsc::channel(64);
    let mut servers = JoinSet::new();
    servers.spawn(server::serve(listener, calls));
    let begun = Instant::now();
    let absent = super::load::absent(&plan, &args.environment);
    let nofile = crate::os::limits::raise_open_files();
    say_what_lacks(&plan, privilege, nofile);
    let driver = Driver {
        machine: Machine::new(plan, &absent, begun),
        args,
        processes,
        rundir,
        privilege,
        holder,
        writer,
        lives: BTreeMap::new(),
        locks: BTreeMap::new(),
        waiting_for_lock: Vec::new(),
        refused: None,
        rings,
        reported: BTreeMap::new(),
        readers: JoinSet::new(),
        probes: Probes::new(begun),
        looks: crate::os::room::Looks::default(),
        oom: OomWatch::new(),
        begun,
        recheck: None,
        pause: None,
        blind: None,
        freezers: Vec::new(),
        shown: BTreeMap::new(),
        stop_told: false,
        quiet: None,
        nofile,
    };
    Ok((driver, Ears { signals, notify, called, _servers: servers }))
}

fn say_what_lacks(plan: &Plan, privilege: Privilege, nofile: Option<OpenFiles>) {
    let mut specs = plan.order().iter().filter_map(|n| plan.spec(n));
    let asks = |s: &crate::spec::ServiceSpec| {
        s.user.is_some() || s.group.is_some() || s.capabilities.as_ref().is_some_and(|c| !c.is_empty())
    };
    if matches!(privilege, Privilege::None) && specs.any(asks) {
        tracing::warn!(
            "not privileged: `user`, `group`, `groups` and `capabilities` are ignored, everything runs as one user"
        );
    }
    let too_many = |s: &&crate::spec::ServiceSpec| {
        s.nofile.zip(nofile).is_some_and(|(wanted, there)| !there.grants(wanted))
    };
    let names = plan.order().iter().filter_map(|n| plan.spec(n)).filter(too_many);
    let names: Vec<&str> = names.map(|s| s.name.as_str()).collect();
    if let (Some(there), false) = (nofile, names.is_empty()) {
        tracing::warn!(
            "{} get {} open files each, less than their `nofile`: that is the hard limit here, and we may not raise it \
             (docker and podman: --ulimit nofile=…)",
            names.join(", "),
            there.hard
        );
    }
    if !crate::os::procfs::is_ours() {
        tracing::warn!(
            "/proc does not show our processes: descendants are ended by their process group only"
        );
    }
}
