//! The keys of the way down and of what follows an end: ladder, restart policy, giving up, outages.

use super::parse::{one_name, signal};
use super::reader::{File, Value};
use super::{
    AfterOutage, GivesUp, GivesUpRule, Length, Manner, OutageSignals, Restart, Rung, StopLadder, When,
};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn ladder(f: &File<'_>, v: Value<'_>) -> Option<StopLadder> {
    let shape = "a list of rungs, [{ signal = \"SIGTERM\", share = 1 }]";
    let Some(array) = v.get_ref().as_array() else {
        f.problem(v.span(), format!("write {shape}"));
        return None;
    };
    let mut rungs = Vec::new();
    for value in array.iter() {
        let Some(table) = f.table(value, "{ signal = \"SIGTERM\", share = 1 }") else { continue };
        let sent = table.get("signal").and_then(|v| signal(f, v));
        let share =
            table.get("share").and_then(|v| f.integer::<u32>(v, "a share of 1 or more").filter(|s| *s > 0));
        let wait = table.get("wait").and_then(|v| f.duration(v));
        let orderly = table.get("orderly").and_then(|v| f.boolean(v));
        table.finish();
        let manner = if orderly.unwrap_or(rungs.is_empty()) { Manner::Orderly } else { Manner::Forced };
        match (sent, share, wait) {
            (Some(Signal::SIGKILL), _, _) => {
                f.problem(value.span(), "SIGKILL always follows the last rung by itself");
            }
            (Some(signal), Some(share), None) => {
                rungs.push(Rung { signal, length: Length::Share(share), manner })
            }
            (Some(signal), None, Some(wait)) => {
                rungs.push(Rung { signal, length: Length::Wait(wait), manner })
            }
            (None, _, _) => f.problem(value.span(), "a rung needs a `signal`"),
            (Some(_), _, _) => f.problem(value.span(), "a rung needs either `share` or `wait`"),
        }
    }
    let ladder = StopLadder::new(rungs);
    if ladder.is_none() && array.is_empty() {
        f.problem(v.span(), format!("an empty ladder; write {shape}"));
    }
    ladder
}

pub(super) fn restart(f: &File<'_>, v: Value<'_>, base: &Restart) -> Restart {
    let Some(table) = f.table(v, "a table, { when = \"always\", delay = \"1s\" }") else {
        return base.clone();
    };
    let words = [("always", When::Always), ("on-failure", When::OnFailure), ("never", When::Never)];
    let delay = table.get("delay").and_then(|v| f.duration(v)).unwrap_or(base.delay);
    let restart = Restart {
        when: table.get("when").and_then(|v| f.word(v, &words)).unwrap_or(base.when),
        delay,
        max_delay: table
            .get("max_delay")
            .and_then(|v| f.duration(v))
            .unwrap_or_else(|| base.max_delay.max(delay)),
        window: table.get("window").and_then(|v| f.duration(v)).unwrap_or(base.window),
        max: table.get("max").and_then(|v| f.integer(v, "how many restarts")).unwrap_or(base.max),
        final_codes: table.get("final_codes").map(|v| codes(f, v)).unwrap_or_default(),
    };
    if let Some(v) = table.get("max_delay").filter(|_| restart.max_delay < restart.delay) {
        f.problem(v.span(), "`max_delay` is shorter than `delay`");
    }
    table.finish();
    restart
}

const GIVING_UP: [(&str, GivesUp); 3] =
    [("stop-all", GivesUp::StopAll), ("degrade", GivesUp::Degrade), ("hold", GivesUp::Hold)];

pub(super) fn gives_up(f: &File<'_>, v: Value<'_>) -> Option<GivesUpRule> {
    if v.get_ref().as_table().is_none() {
        let default = f.word(v, &GIVING_UP)?;
        return Some(GivesUpRule { default, when_env: BTreeMap::new(), codes: BTreeMap::new() });
    }
    let table = f.table(v, "\"stop-all\"")?;
    let default = table.get("default").and_then(|v| f.word(v, &GIVING_UP));
    let mut when_env = BTreeMap::new();
    if let Some(names) = table.get("when_env").and_then(|v| f.table(v, "a table, { NAME = \"hold\" }")) {
        for (key, _, value) in names.all() {
            if let Some(what) = f.word(value, &GIVING_UP) {
                when_env.insert(key.to_owned(), what);
            }
        }
    }
    let mut by_code = BTreeMap::new();
    if let Some(table) = table.get("codes").and_then(|v| f.table(v, "a table, { 77 = \"hold\" }")) {
        for (key, span, value) in table.all() {
            match (key.parse(), f.word(value, &GIVING_UP)) {
                (Ok(code), Some(what)) => {
                    by_code.insert(code, what);
                }
                (Err(_), _) => f.problem(span, format!("`{key}` is not an exit code from 0 to 255")),
                (Ok(_), None) => {}
            }
        }
    }
    table.finish();
    if default.is_none() {
        f.problem(v.span(), "`default` is missing");
    }
    Some(GivesUpRule { default: default?, when_env, codes: by_code })
}

pub(super) fn codes(f: &File<'_>, v: Value<'_>) -> BTreeSet<u8> {
    let Some(array) = v.get_ref().as_array() else {
        f.problem(v.span(), "write a list of exit codes, [76, 77]");
        return BTreeSet::new();
    };
    array.iter().filter_map(|v| f.integer(v, "an exit code from 0 to 255")).collect()
}

pub(super) fn after_outage(f: &File<'_>, v: Value<'_>) -> Option<AfterOutage> {
    let table = f.table(v, "{ of = \"postgres\", longer_than = \"8s\", ready_within = \"2s\" }")?;
    let of = table.get("of").and_then(|v| one_name(f, v));
    let longer_than = table.get("longer_than").and_then(|v| f.duration(v));
    let ready_within = table.get("ready_within").and_then(|v| f.duration(v));
    for key in ["of", "longer_than", "ready_within"] {
        if table.get(key).is_none() {
            f.problem(v.span(), format!("`{key}` is missing"));
        }
    }
    table.finish();
    Some(AfterOutage { of: of?, longer_than: longer_than?, ready_within: ready_within? })
}

pub(super) fn outage_signals(f: &File<'_>, v: Value<'_>) -> Option<OutageSignals> {
    let table = f.table(v, "{ of = \"postgres\", begins = \"SIGUSR1\", ends = \"SIGUSR2\" }")?;
    let of = table.get("of").and_then(|v| one_name(f, v));
    let begins = table.get("begins").and_then(|v| signal(f, v));
    let ends = table.get("ends").and_then(|v| signal(f, v));
    for key in ["of", "begins", "ends"] {
        if table.get(key).is_none() {
            f.problem(v.span(), format!("`{key}` is missing"));
        }
    }
    table.finish();
    Some(OutageSignals { of: of?, begins: begins?, ends: ends? })
}
