//! The protocol of ownership, as a decision: from what is on the volume, what is in the store and what the settings
//! allow, to the one thing to do next.
//!
//! Pure. The order of effects around it is the edge's (`claim.rs`): the identity with its new incarnation is durable
//! *before* the owner object is created, so that a lost reply or a kill is settled by reading the object and comparing.

use super::{Epoch, Identity, Origin, Record};
use crate::config::{Mode, Takeover};

/// Whether there is a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// `pgdata` is there and not empty.
    Present,
    /// It is not.
    Missing,
}

/// A cluster of others that is to become this volume's own, and is not yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// None.
    Nothing,
    /// `SUPAFLY_ADOPT` names the one in this directory.
    Named(String),
    /// `SUPAFLY_ADOPT` names this directory, where no cluster can be seen: the setting may have outlived its volume, or be
    /// wrong.
    Absent(String),
    /// An adoption was cut off: the cluster is in this directory.
    Begun(String),
}

/// What this machine has for a restore of what another archived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Means {
    /// Nothing is taken over, so nobody has looked.
    NotAsked,
    /// Postgres of this major, its users, and an engine.
    Whole {
        /// Which.
        major: u32,
    },
    /// Not: what lacks, and what to do.
    Lacking(String),
}

/// What the archive of another holds, looked at when everything else allows to take it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archived {
    /// Nothing is taken over, so nobody has looked.
    NotAsked,
    /// No epoch ever opened a cluster.
    Nothing,
    /// A cluster of this major, of which there is no base backup.
    NoBackup {
        /// Which.
        major: u32,
    },
    /// A cluster of this major, with base backups.
    Cluster {
        /// Which.
        major: u32,
    },
}

/// What the store showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// There is no store.
    NoStore,
    /// It did not answer.
    Unreachable(String),
    /// It answered.
    Reached {
        /// The present owner.
        highest: Option<Record>,
        /// The owner object of this volume's own epoch.
        own: Option<Record>,
        /// Whether a prefix without owner holds other objects.
        strangers: Strangers,
    },
}

/// Objects of nobody we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strangers {
    /// None.
    None,
    /// At least this one.
    Some(String),
}

/// Everything that the decision rests on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `SUPAFLY_PROJECT`
    pub project: String,
    /// `SUPAFLY_STORE`, as shown.
    pub store: String,
    /// `SUPAFLY_TAKEOVER`
    pub takeover: Takeover,
    /// `SUPAFLY_MODE`
    pub mode: Mode,
    /// What the volume says of itself.
    pub identity: Option<Identity>,
    /// Whether it has data.
    pub data: Data,
    /// What is to be adopted.
    pub awaited: Awaited,
    /// What there is for a restore.
    pub means: Means,
    /// What the store showed.
    pub seen: Seen,
    /// What is archived there.
    pub archived: Archived,
}

/// The one thing to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is no store: the volume's identity is local.
    Local,
    /// This volume is the owner; or, without an answer of the store, goes on as the owner that it was.
    Proceed {
        /// Of this epoch.
        epoch: Epoch,
        /// Why the store could not confirm it; `None` when it did.
        unconfirmed: Option<String>,
    },
    /// Claim this epoch with a new incarnation.
    Claim {
        /// Which.
        epoch: Epoch,
        /// How the volume comes to it.
        origin: Origin,
    },
    /// The identity is on the volume, its object is not in the store: create it.
    Finish {
        /// Which.
        epoch: Epoch,
    },
    /// Touch nothing, and say why.
    Refuse(String),
    /// Nothing can be decided without the store; try again.
    Wait(String),
}

/// Decides.
#[must_use]
pub fn decide(facts: &Facts) -> Decision {
    match (&facts.seen, &facts.identity) {
        (Seen::NoStore, identity) => without_store(identity.as_ref()),
        (Seen::Unreachable(why), Some(identity)) => match (identity.epoch, facts.mode, facts.data) {
            // Only what `datadir` has recorded in the store proves that this volume ever owned its epoch: an identity
            // whose owner object was never created must not go on because nobody answers.
            (Some(epoch), Mode::Available, Data::Present)
                if identity.system_identifier.is_some() && matches(facts, identity).is_none() =>
            {
                Decision::Proceed { epoch, unconfirmed: Some(why.clone()) }
            }
            (Some(_) | None, Mode::Available | Mode::Strict, Data::Present | Data::Missing) => {
                Decision::Wait(why.clone())
            }
        },
        (Seen::Unreachable(why), None) => Decision::Wait(why.clone()),
        (Seen::Reached { highest, own, strangers }, Some(identity)) => match identity.epoch {
            Some(epoch) => {
                if let Some(refusal) = matches(facts, identity) {
                    return Decision::Refuse(refusal);
                }
                with_epoch(facts, identity, epoch, highest.as_ref(), own.as_ref(), strangers)
            }
            None => without_epoch(facts, highest.as_ref(), strangers),
        },
        (Seen::Reached { highest, strangers, .. }, None) => without_epoch(facts, highest.as_ref(), strangers),
    }
}

fn without_store(identity: Option<&Identity>) -> Decision {
    match identity.and_then(|i| i.epoch.map(|e| (i, e))) {
        Some((identity, epoch)) => Decision::Refuse(format!(
            "this volume owns epoch {epoch} of {} and SUPAFLY_STORE is not set: without its store it would go on \
             unprotected; set SUPAFLY_STORE={}",
            identity.store, identity.store
        )),
        None => Decision::Local,
    }
}

/// Why this volume's identity does not fit the settings.
fn matches(facts: &Facts, identity: &Identity) -> Option<String> {
    if identity.project != facts.project {
        return Some(format!(
            "this volume belongs to project `{}`, and SUPAFLY_PROJECT says `{}`: mount the right volume or set the right \
             project",
            identity.project, facts.project
        ));
    }
    (!identity.store.is_empty() && identity.store != facts.store).then(|| {
        format!(
            "this volume archives to {}, and SUPAFLY_STORE says {}: set SUPAFLY_STORE back (a cluster moves to another \
             store by a restore there)",
            identity.store, facts.store
        )
    })
}

fn with_epoch(
    facts: &Facts,
    identity: &Identity,
    epoch: Epoch,
    highest: Option<&Record>,
    own: Option<&Record>,
    strangers: &Strangers,
) -> Decision {
    match own {
        Some(own) if own.incarnation == identity.incarnation => {
            if let Some(successor) = highest.filter(|h| h.epoch > epoch) {
                return Decision::Refuse(format!(
                    "epoch {epoch} of this volume was taken over: {} (machine {}) owns {} now. Nothing here was touched; \
                     what it had not archived is only on this volume. To make it a new machine, empty {{data}}",
                    successor.epoch, successor.machine, facts.store
                ));
            }
            // Without data it restores within its own epoch, on a new timeline: nobody else writes there.
            Decision::Proceed { epoch, unconfirmed: None }
        }
        Some(other) => match facts.data {
            // We never owned it: somebody else's PUT was first. Without data we are as new.
            Data::Missing => without_epoch(facts, highest, strangers),
            Data::Present => Decision::Refuse(format!(
                "epoch {epoch} of this volume is owned by another claim (machine {}): this volume is a copy of its, or of \
                 an older time. Nothing was touched; to make it a new machine, empty {{data}}",
                other.machine
            )),
        },
        None => {
            let expected = match identity.origin {
                Origin::Fresh => None,
                Origin::Takeover { from } => Some(from),
            };
            let there = highest.map(|h| h.epoch);
            let never_owned = identity.system_identifier.is_none();
            if never_owned && there == expected {
                // What was allowed when the identity was made must be allowed now, too.
                match (highest, strangers) {
                    (None, Strangers::None) => {
                        return absent(facts).map_or(Decision::Finish { epoch }, Decision::Refuse);
                    }
                    (Some(former), _) => match take(facts, former) {
                        Decision::Claim { .. } => return Decision::Finish { epoch },
                        decided @ (Decision::Refuse(_)
                        | Decision::Local
                        | Decision::Proceed { .. }
                        | Decision::Finish { .. }
                        | Decision::Wait(_)) => return decided,
                    },
                    (None, Strangers::Some(_)) => {}
                }
            }
            if facts.data == Data::Missing && there.is_some() {
                return without_epoch(facts, highest, strangers);
            }
            Decision::Refuse(format!(
                "this volume owns epoch {epoch}, and {} has no object of it (its newest is {}): is SUPAFLY_STORE the right \
                 one, or was the bucket emptied?",
                facts.store,
                there.map_or_else(|| "none".to_owned(), |e| e.to_string())
            ))
        }
    }
}

fn without_epoch(facts: &Facts, highest: Option<&Record>, strangers: &Strangers) -> Decision {
    let local = facts.identity.as_ref().filter(|i| i.epoch.is_none()).and_then(|i| i.system_identifier);
    if let (Some(cluster), Data::Missing) = (local, facts.data) {
        return Decision::Refuse(format!(
            "the data of cluster {cluster} is gone from this volume, and it never had a store to restore from: put it back, \
             or empty {{data}} to begin anew with SUPAFLY_STORE={}",
            facts.store
        ));
    }
    match (highest, strangers, facts.data) {
        (None, Strangers::None, Data::Present | Data::Missing) => absent(facts)
            .map_or(Decision::Claim { epoch: Epoch::FIRST, origin: Origin::Fresh }, Decision::Refuse),
        (None, Strangers::Some(key), _) => Decision::Refuse(format!(
            "{} holds objects that are not ours (such as {key}) and no owner: set SUPAFLY_STORE to an empty prefix",
            facts.store
        )),
        (Some(owner), _, Data::Present) => Decision::Refuse(format!(
            "this volume has data of its own, and {} belongs to epoch {} (project `{}`, machine {}): existing data can only \
             claim an empty prefix; set SUPAFLY_STORE to one, or empty the volume to restore from that prefix",
            facts.store, owner.epoch, owner.project, owner.machine
        )),
        (Some(owner), _, Data::Missing) => take(facts, owner),
    }
}

fn take(facts: &Facts, owner: &Record) -> Decision {
    if owner.project != facts.project {
        return Decision::Refuse(format!(
            "{} belongs to project `{}`, not to `{}`: set SUPAFLY_STORE to a prefix of its own, or SUPAFLY_PROJECT={}",
            facts.store, owner.project, facts.project, owner.project
        ));
    }
    let epoch = owner.epoch;
    let allowed = match facts.takeover {
        Takeover::Never => false,
        Takeover::Auto => true,
        Takeover::Epoch(n) => n == epoch.0,
    };
    // Before the epoch: who is taken over stops for ever, and for a boot that comes to nothing nobody should.
    if let Some(why) = both(facts, owner, allowed) {
        return Decision::Refuse(why);
    }
    if allowed {
        if let Some(why) = unable(facts) {
            return Decision::Refuse(format!(
                "{} is owned by epoch {epoch} (machine {}), and this machine could not restore what is archived there, so \
                 nothing was taken over: {why}",
                facts.store, owner.machine
            ));
        }
        return Decision::Claim { epoch: epoch.next(), origin: Origin::Takeover { from: epoch } };
    }
    Decision::Refuse(format!(
        "{} is owned by epoch {epoch} (machine {}) and this volume is not its. If that machine is gone for good, boot with \
         SUPAFLY_TAKEOVER={} to restore here and become the owner{}",
        facts.store,
        owner.machine,
        epoch.0,
        match facts.takeover {
            Takeover::Epoch(n) => format!(" (it says {n} now)"),
            Takeover::Never | Takeover::Auto => String::new(),
        }
    ))
}

/// Why this machine could not restore what it is allowed to take over.
fn unable(facts: &Facts) -> Option<String> {
    match (&facts.means, facts.archived) {
        (Means::Lacking(why), _) => Some(why.clone()),
        (
            Means::Whole { major },
            Archived::NoBackup { major: archived } | Archived::Cluster { major: archived },
        ) if archived != *major => Some(format!(
            "the archive holds Postgres {archived}, installed is {major} (PG_VERSION): use the image of that major"
        )),
        (Means::Whole { .. }, Archived::Nothing) => Some(
            "no epoch there ever opened a cluster; if its owner does not come up, use an empty SUPAFLY_STORE"
                .to_owned(),
        ),
        (Means::Whole { .. }, Archived::NoBackup { .. }) => Some(
            "there is no base backup yet; wait until the owner has made one (`supafly backup now` there)"
                .to_owned(),
        ),
        (Means::Whole { .. }, Archived::NotAsked | Archived::Cluster { .. }) | (Means::NotAsked, _) => None,
    }
}

/// Why an empty prefix is not claimed for a cluster that is not there: nothing can be adopted and nothing restored, and whoever
/// comes back with the right volume would find that prefix owned, by nobody who has data. Not said to a volume with a cluster
/// of its own, which was adopted and moved from there.
fn absent(facts: &Facts) -> Option<String> {
    let settled = facts.identity.as_ref().is_some_and(|identity| identity.system_identifier.is_some());
    match &facts.awaited {
        Awaited::Absent(path) if !settled => Some(format!(
            "SUPAFLY_ADOPT={path}: there is no cluster to adopt, and {} is empty, so there is nothing to restore either; nothing was \
             claimed: name the directory of the cluster, mount its volume, or take SUPAFLY_ADOPT away for a new one",
            facts.store
        )),
        Awaited::Absent(_) | Awaited::Nothing | Awaited::Named(_) | Awaited::Begun(_) => None,
    }
}

/// Why an archive is not taken over where a cluster is to be adopted: one volume holds one cluster.
fn both(facts: &Facts, owner: &Record, allowed: bool) -> Option<String> {
    let (store, takeover) = (&facts.store, facts.takeover);
    let owned = format!("{store} is owned by epoch {} (machine {})", owner.epoch, owner.machine);
    let restore =
        if allowed { String::new() } else { format!(" and set SUPAFLY_TAKEOVER={}", owner.epoch.0) };
    // A claim that was cut off before its object was there has bound the volume to this prefix, and to nothing else.
    let elsewhere = match facts.identity.as_ref().and_then(|identity| identity.epoch) {
        None => "set SUPAFLY_STORE to an empty prefix to adopt that cluster".to_owned(),
        Some(begun) => format!(
            "set SUPAFLY_STORE to an empty prefix and remove {{data}}/supafly/identity.json, which is of a claim of epoch {begun} \
             that came to nothing, to adopt that cluster"
        ),
    };
    match &facts.awaited {
        Awaited::Nothing | Awaited::Absent(_) => None,
        Awaited::Named(cluster) if allowed => Some(format!(
            "SUPAFLY_ADOPT={cluster} and SUPAFLY_TAKEOVER={takeover} contradict each other: {owned}, and one volume holds either \
             the cluster in {cluster} or what is archived there; nothing was taken: take SUPAFLY_ADOPT away to restore what is \
             archived, or {elsewhere}"
        )),
        Awaited::Named(cluster) => Some(format!(
            "{owned}, and the cluster in {cluster} that SUPAFLY_ADOPT names can only claim an empty prefix; nothing was taken: \
             {elsewhere}, or, if that machine is gone for good, take SUPAFLY_ADOPT away{restore} to restore what is archived"
        )),
        Awaited::Begun(cluster) => Some(format!(
            "{owned}, and the adoption of the cluster in {cluster}, which was cut off, can only go on with an empty prefix; nothing \
             was taken: {elsewhere}, or move that directory away{restore} to restore what is archived"
        )),
    }
}

/// Whether a strict owner must freeze: no confirmation for the TTL, on its own clock that counts suspended time.
#[must_use]
pub fn must_freeze(mode: Mode, since_last: std::time::Duration, ttl: std::time::Duration) -> bool {
    match mode {
        Mode::Strict => since_last >= ttl,
        Mode::Available => false,
    }
}
