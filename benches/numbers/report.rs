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

/// One row of the list.
fn item(line: &Line<'_>) -> Value {
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
}

fn list(rows: &[Value]) -> String {
    let rows: Vec<String> = rows.iter().map(|row| format!("  {row}")).collect();
    format!("[\n{}\n]\n", rows.join(",\n"))
}

/// The list: all rows, in order.
pub(crate) fn json(lines: &[Line<'_>]) -> String {
    list(&lines.iter().map(item).collect::<Vec<_>>())
}

/// How many goals are met, and the words that end the count in the page.
fn count(met: usize, all: usize) -> String {
    format!("{met} of {all} goals are met.")
}

/// The page.
pub(crate) fn page(lines: &[Line<'_>], facts: &Facts) -> String {
    let met = lines.iter().filter(|l| l.met()).count();
    let mut page = String::from("# The numbers, side by side\n\n");
    let _ = write!(
        page,
        "Written by `make bench`; run it again to see for yourself. All contestants of a row are measured in the same run \
         and in turns; figures are medians. MB are 1 000 000 bytes.\n\n{}\n\n",
        count(met, lines.len())
    );
    for (name, value) in &facts.0 {
        let _ = writeln!(page, "- {name}: {value}");
    }
    page.push_str(
        "\n| name | ours | best peer | goal | met | why, and what to know |\n|---|---|---|---|---|---|\n",
    );
    lines.iter().for_each(|line| page.push_str(&table_line(line)));
    page.push_str("\n## What each row is\n");
    lines.iter().for_each(|line| page.push_str(&section(line)));
    page
}

fn table_line(line: &Line<'_>) -> String {
    let unit = line.row.unit;
    let measured = line.outcome.as_ref().ok();
    let ours = measured.map_or_else(|| "–".to_owned(), |m| unit.show(m.ours.median()));
    let best = measured.and_then(|m| m.best(line.better()));
    let best =
        best.map_or_else(|| "–".to_owned(), |(name, median)| format!("{} ({name})", unit.show(median)));
    let met = if line.met() { "yes" } else { "**no**" };
    format!(
        "{}{ours} | {best} | {} | {met} | {} |\n",
        table_head(line.row.name),
        cell(&line.goal()),
        cell(&line.why())
    )
}

fn table_head(name: &str) -> String {
    format!("| `{name}` | ")
}

fn section_head(name: &str) -> String {
    format!("\n### `{name}`\n")
}

fn section(line: &Line<'_>) -> String {
    let mut page = format!("{}\n{}\n", section_head(line.row.name), line.row.what);
    let Ok(measured) = &line.outcome else { return page };
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
    page
}

/// List and page with these rows in place of the former ones; each of them says when and at which commit it was measured
/// again.
///
/// # Errors
/// They are not what a whole run writes, or lack a row.
pub(crate) fn renewed(
    (list_before, page_before): (&str, &str),
    lines: &[Line<'_>],
    facts: &Facts,
) -> Result<(String, String), String> {
    let mut rows: Vec<Value> =
        serde_json::from_str(list_before).map_err(|e| format!("benchmarks.json: {e}"))?;
    let total = |rows: &[Value]| {
        count(rows.iter().filter(|r| r.get("met") == Some(&json!(true))).count(), rows.len())
    };
    let (was, mut page) = (total(&rows), page_before.to_owned());
    let fact = |name: &str| facts.0.iter().find(|(n, _)| n == name).map_or("?", |(_, value)| value.as_str());
    let again = format!(
        "\nMeasured again on {} at commit {} (load when it began: {}).\n",
        fact("date"),
        fact("commit"),
        fact("load when it began")
    );
    for line in lines {
        let name = line.row.name;
        let lacks = || format!("the row `{name}` is not in the report: make a whole run first");
        let row = rows.iter_mut().find(|r| r.get("name").and_then(Value::as_str) == Some(name));
        *row.ok_or_else(lacks)? = item(line);
        let (at, end) = span(&page, &format!("\n{}", table_head(name)), "\n").ok_or_else(lacks)?;
        page.replace_range(at..end, format!("\n{}", table_line(line).trim_end()).as_str());
        let (at, end) = span(&page, &section_head(name), "\n### `").ok_or_else(lacks)?;
        page.replace_range(at..end, &format!("{}{again}", section(line)));
    }
    Ok((list(&rows), page.replacen(&was, &total(&rows), 1)))
}

/// From where `head` begins to where `next` follows it, or to the end.
fn span(page: &str, head: &str, next: &str) -> Option<(usize, usize)> {
    let at = page.find(head)?;
    let after = at + head.len();
    let length = page.get(after..)?.find(next);
    Some((at, length.map_or(page.len(), |n| after + n)))
}

/// What a table's cell can hold.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
