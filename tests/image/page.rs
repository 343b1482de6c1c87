//! The page of what the image costs. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One layer of an image.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) by: String,
    pub(crate) megabytes: f64,
}

/// Medians, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boot {
    pub(crate) cold: f64,
    pub(crate) warm: f64,
    pub(crate) by_hand: Hand,
}

/// The slowest chain of the parts, started by a shell on the same volume.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hand {
    pub(crate) cold: f64,
    pub(crate) warm: f64,
}

/// Megabytes by service: resident, and with each shared page counted once.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) by_service: BTreeMap<String, (f64, f64)>,
}

impl Memory {
    fn sum(&self) -> (f64, f64) {
        self.by_service.values().fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

/// All that was measured, in one run.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) processors: usize,
    pub(crate) rounds: usize,
    pub(crate) layers: Vec<(&'static str, Vec<Layer>)>,
    pub(crate) boot: Boot,
    pub(crate) memory: Vec<(&'static str, Memory)>,
    /// Whether `full` has the real Supavisor, or what stands in for it.
    pub(crate) supavisor: Part,
}

/// What a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Real,
    StandIn,
}

/// Megabytes that an idle image may take.
const IDLE: [(&str, f64); 2] = [("slim", 150.0), ("full", 250.0)];
/// How much longer than its parts by hand a boot may take.
const BOOT: f64 = 1.1;

struct Verdict {
    what: String,
    ours: String,
    goal: String,
    met: bool,
    why: &'static str,
}

/// Each goal against its figure; one that is missed says why.
fn verdicts(figures: &Figures) -> Vec<Verdict> {
    let Boot { cold, warm, by_hand } = figures.boot;
    let mut all = Vec::new();
    for (image, most) in IDLE {
        let Some((_, memory)) = figures.memory.iter().find(|(name, _)| *name == image) else { continue };
        let (rss, pss) = memory.sum();
        let shown = image != "full" || figures.supavisor == Part::Real;
        all.push(Verdict {
            what: format!("memory of {image}, idle"),
            ours: format!("{pss:.0} MB (resident sizes added up: {rss:.0})"),
            goal: format!("≤ {most:.0} MB"),
            met: shown && pss <= most,
            why: if shown {
                "Postgres's own backends and the parts are most of it, see the table below"
            } else {
                "Supavisor is a stand-in here, and the real one takes far more: nothing is shown"
            },
        });
    }
    let mut boot = |what: &str, ours: f64, hand: f64, why| {
        all.push(Verdict {
            what: what.to_owned(),
            ours: format!("{ours:.0} ms"),
            goal: format!("≤ {BOOT} × {hand:.0} ms"),
            met: ours <= BOOT * hand,
            why,
        });
    };
    boot(
        "boot to ready, warm",
        warm,
        by_hand.warm,
        "beside starting its parts it takes the lock, writes secrets and configuration, makes sure of the set-up in the \
         database before PostgREST may start, and makes sure by probes that each part answers",
    );
    boot(
        "boot to ready, cold",
        cold,
        by_hand.cold,
        "beside that it makes keeper's role by a Postgres for one user before the cluster has its name, and starts keeper, web and \
         a second PgBouncer",
    );
    all
}

/// What made a layer, short enough for a table.
fn shown(by: &str) -> String {
    let mut text = by.rsplit_once("#(nop)").map_or(by, |(_, rest)| rest).replace("/bin/sh -c ", "");
    text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    if text.chars().count() > 100 {
        text = text.chars().take(99).collect::<String>() + "…";
    }
    text
}

/// The whole page.
pub(crate) fn page(figures: &Figures) -> String {
    let all = verdicts(figures);
    let met = all.iter().filter(|v| v.met).count();
    let mut page = format!(
        "# What the image costs\n\nWritten by `make bench-image` in one run, on {} processors; run it again to see for yourself. Times are \
         medians of {}. Each container may have 1 GB of memory. MB are 1 000 000 bytes. {met} of {} goals are met.\n\n\
         | what | measured | goal | met | why not |\n|---|---|---|---|---|\n",
        figures.processors,
        figures.rounds,
        all.len()
    );
    for Verdict { what, ours, goal, met, why } in &all {
        let (met, why) = if *met { ("yes", "") } else { ("**no**", *why) };
        writeln!(page, "| {what} | {ours} | {goal} | {met} | {why} |").unwrap();
    }
    page.push_str(
        "\nA boot begins when the container's first process does and ends when the last service is ready; a warm one has its \
         data. By hand: a shell starts Postgres, then PostgREST and PgBouncer at once, with the configuration that was rendered \
         for them, until the last one answers. Cold, `initdb` comes before that, made durable by `syncfs`, and between Postgres \
         and PostgREST the set-up's SQL, in one transaction of one psql. Keeper, web and the second PgBouncer are not started \
         by hand.\n\n## Memory by service\n\nIdle for 30 s. Shared \
         memory is in the resident size of every process that has touched it; in the proportional one, which the goals are \
         about, each page counts once.\n",
    );
    for (image, memory) in &figures.memory {
        let (rss, pss) = memory.sum();
        writeln!(page, "\n| {image} | resident MB | proportional MB |\n|---|---|---|").unwrap();
        for (service, (rss, pss)) in &memory.by_service {
            writeln!(page, "| {service} | {rss:.1} | {pss:.1} |").unwrap();
        }
        writeln!(page, "| all | {rss:.1} | {pss:.1} |").unwrap();
    }
    page.push_str("\n## Size by layer\n");
    for (image, layers) in &figures.layers {
        writeln!(page, "\n| {image} | MB |\n|---|---|").unwrap();
        for layer in layers {
            writeln!(page, "| `{}` | {:.1} |", shown(&layer.by).replace('`', "'"), layer.megabytes).unwrap();
        }
        writeln!(page, "| all | {:.1} |", layers.iter().map(|l| l.megabytes).sum::<f64>()).unwrap();
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(pss: f64, warm: f64) -> Figures {
        let by_service = BTreeMap::from([("postgres".to_owned(), (pss * 3.0, pss))]);
        let layer = Layer { by: "|1 A=1 /bin/sh -c apt-get   update".to_owned(), megabytes: 12.34 };
        Figures {
            processors: 2,
            rounds: 5,
            layers: vec![("slim", vec![layer])],
            boot: Boot { cold: 1000.0, warm, by_hand: Hand { cold: 950.0, warm: 500.0 } },
            memory: vec![("slim", Memory { by_service })],
            supavisor: Part::StandIn,
        }
    }

    #[test]
    fn a_goal_that_is_missed_says_why_and_one_that_is_met_does_not() {
        let good = page(&figures(150.0, 550.0));
        assert!(good.contains("3 of 3 goals are met"), "{good}");
        assert!(
            good.contains(
                "| memory of slim, idle | 150 MB (resident sizes added up: 450) | ≤ 150 MB | yes |  |"
            ),
            "{good}"
        );
        let bad = page(&figures(151.0, 551.0));
        assert!(bad.contains("1 of 3 goals are met"), "{bad}");
        assert!(
            good.contains("| boot to ready, cold | 1000 ms | ≤ 1.1 × 950 ms | yes |"),
            "against what is by hand when cold: {good}"
        );
        assert!(bad.contains("| boot to ready, warm | 551 ms | ≤ 1.1 × 500 ms | **no** | beside"), "{bad}");
    }

    #[test]
    fn the_memory_of_a_stand_in_meets_no_goal() {
        let with = |supavisor| {
            let mut figures = Figures { supavisor, ..figures(1.0, 1.0) };
            let memory = figures.memory.remove(0).1;
            figures.memory.push(("full", memory));
            page(&figures)
        };
        assert!(with(Part::Real).contains("| ≤ 250 MB | yes |"));
        assert!(with(Part::StandIn).contains("| ≤ 250 MB | **no** | Supavisor is a stand-in here"));
    }

    #[test]
    fn layers_are_shown_by_what_made_them() {
        let page = page(&figures(1.0, 1.0));
        assert!(page.contains("| `\\|1 A=1 apt-get update` | 12.3 |"), "{page}");
        assert_eq!(shown("/bin/sh -c #(nop) COPY dir:1 in / "), "COPY dir:1 in /");
    }
}
