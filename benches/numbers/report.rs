//! The report: a page for people, a list for machines. Pure.

use super::machine::Facts;
use super::row::{Line, Standing};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Figures to four digits that mean something: what is beyond is noise.
fn rounded(value: f64) -> Value {
    let shown = format!("{value:.3e}");
    shown.parse::<f64>().map_or(Value::Null, |v| json!(v))
}

/// The list: all rows, in order.
pub(crate) fn json(lines: &[Line<'_>]) -> String {
    let rows: Vec<Value> = lines
        .iter()
        .map(|line| {
            let measured = line.outcome.as_ref().ok();
            let best = measured.and_then(|m| m.best(line.better()));
            json!({
                "name": line.row.name,
                "ours": measured.map(|m| rounded(m.ours.median())),
                "best_peer": best.map(|(_, median)| rounded(median)),
                "peer": best.map(|(name, _)| name),
                "unit": line.row.unit.shown(),
                "goal": line.goal(),
                "met": line.met(),
                "why": line.why(),
            })
        })
        .collect();
    let rows: Vec<String> = rows.iter().map(|row| format!("  {row}")).collect();
    format!("[\n{}\n]\n", rows.join(",\n"))
}

/// The page.
pub(crate) fn page(lines: &[Line<'_>], facts: &Facts) -> String {
    let met = lines.iter().filter(|l| l.met()).count();
    let mut page = String::from("# The numbers, side by side\n\n");
    let _ = write!(
        page,
        "Written by `make bench`; run it again to see for yourself. All contestants of a row are measured in the same run \
         and in turns; figures are medians. MB are 1 000 000 bytes. {met} of {} goals are met.\n\n",
        lines.len()
    );
    for (name, value) in &facts.0 {
        let _ = writeln!(page, "- {name}: {value}");
    }
    page.push_str(
        "\n| name | ours | best peer | goal | met | why, and what to know |\n|---|---|---|---|---|---|\n",
    );
    for line in lines {
        let unit = line.row.unit;
        let measured = line.outcome.as_ref().ok();
        let ours = measured.map_or_else(|| "–".to_owned(), |m| unit.show(m.ours.median()));
        let best = measured.and_then(|m| m.best(line.better()));
        let best =
            best.map_or_else(|| "–".to_owned(), |(name, median)| format!("{} ({name})", unit.show(median)));
        let met = if line.met() { "yes" } else { "**no**" };
        let _ = writeln!(
            page,
            "| `{}` | {ours} | {best} | {} | {met} | {} |",
            line.row.name,
            cell(&line.goal()),
            cell(&line.why())
        );
    }
    page.push_str("\n## What each row is\n");
    for line in lines {
        let _ = write!(page, "\n### `{}`\n\n{}\n", line.row.name, line.row.what);
        let Ok(measured) = &line.outcome else { continue };
        let unit = line.row.unit;
        let row = |name: &str, s: &super::stats::Samples, remark: &str| {
            format!(
                "| {name} | {} | {} … {} | {} | {remark} |\n",
                unit.show(s.median()),
                unit.show(s.least()),
                unit.show(s.most()),
                s.count()
            )
        };
        page.push_str("\n| | median | least … most | samples | |\n|---|---|---|---|---|\n");
        page.push_str(&row("supafly", &measured.ours, ""));
        for peer in &measured.peers {
            let remark = match peer.standing {
                Standing::Rival => "",
                Standing::Reference(why) => why,
            };
            match &peer.samples {
                Ok(samples) => page.push_str(&row(&peer.name, samples, remark)),
                Err(why) => {
                    let _ = writeln!(page, "| {} | – | – | 0 | {} |", peer.name, cell(why));
                }
            }
        }
        for c in &measured.conditions {
            let _ = write!(page, "\n{}: {} (goal: {}).\n", c.what, c.unit.show(c.value), c.goal.show(c.unit));
        }
    }
    page
}

/// What a table's cell can hold.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
