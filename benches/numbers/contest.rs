//! Contestants take turns: on a machine with other work on it, one after the other would compare two different hours.

use super::row::{Context, Peer, Standing};
use super::stats::Samples;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Somebody who is measured: one call is one sample.
pub(crate) struct Contestant<'a> {
    pub(crate) name: String,
    pub(crate) standing: Standing,
    pub(crate) sample: Box<dyn FnMut() -> Result<f64, String> + 'a>,
}

impl<'a> Contestant<'a> {
    pub(crate) fn new(
        name: impl Into<String>,
        standing: Standing,
        sample: impl FnMut() -> Result<f64, String> + 'a,
    ) -> Contestant<'a> {
        Contestant { name: name.into(), standing, sample: Box::new(sample) }
    }
}

/// Whether there is a round before those that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WarmUp {
    Yes,
    No,
}

/// Measures all in turns: in every round each once, ours first in even rounds and last in odd ones. Who fails is out of the
/// rounds that follow, with its reason.
///
/// # Errors
/// We ourselves failed.
pub(crate) fn contest<'a>(
    context: &Context,
    (rounds, warm_up): (usize, WarmUp),
    ours: impl FnMut() -> Result<f64, String> + 'a,
    peers: Vec<Contestant<'a>>,
) -> Result<(Samples, Vec<Peer>), String> {
    let mut all = vec![Contestant::new("supafly", Standing::Rival, ours)];
    all.extend(peers);
    let mut taken: Vec<Result<Vec<f64>, String>> = all.iter().map(|_| Ok(Vec::new())).collect();
    let unheard = usize::from(warm_up == WarmUp::Yes && context.depth == super::row::Depth::Full);
    for round in 0..unheard + context.rounds(rounds) {
        let mut order: Vec<usize> = (0..all.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for i in order {
            let (Some(contestant), Some(taken)) = (all.get_mut(i), taken.get_mut(i)) else { continue };
            let Ok(values) = taken else { continue };
            match caught(&mut contestant.sample) {
                Ok(value) if round >= unheard => values.push(value),
                Ok(_) => {}
                Err(why) => *taken = Err(why),
            }
        }
    }
    let mut taken = taken.into_iter().map(|t| t.and_then(Samples::new));
    let ours = taken.next().unwrap_or_else(|| Err("no contestant".to_owned()))?;
    let peers = all.into_iter().skip(1).zip(taken);
    let peers = peers.map(|(c, samples)| Peer { name: c.name, standing: c.standing, samples }).collect();
    Ok((ours, peers))
}

/// A panic is an error like any other: one row that breaks must not cost the others.
pub(crate) fn caught<T>(act: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panicked: {}", text.unwrap_or("(no text)")))
    })
}
