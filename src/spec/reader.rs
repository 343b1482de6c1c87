//! Reads a TOML table key by key, with the place of each, and collects every problem instead of stopping at the first.
//!
//! serde's derive would stop at the first unknown key; an operator who mends one line at a time at three in the morning
//! is not served by that. What was not asked for by name in the end is an unknown key.

use super::duration;
use super::problem::Problem;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(super) type Value<'a> = &'a Spanned<DeValue<'a>>;

/// The file being read: its text, the variables that `${…}` may name, and the problems so far.
pub(super) struct File<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
    pub(super) variables: &'a BTreeMap<String, String>,
    pub(super) problems: RefCell<Vec<Problem>>,
}

impl File<'_> {
    pub(super) fn problem(&self, span: Range<usize>, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem::at(self.name, self.text, span, message));
    }

    /// A text with its variables filled in.
    pub(super) fn text(&self, value: Value<'_>) -> Option<String> {
        let Some(text) = value.get_ref().as_str() else {
            self.problem(
                value.span(),
                format!("a {} here; write a text in quotes", value.get_ref().type_str()),
            );
            return None;
        };
        self.expand(text, value.span())
    }

    fn expand(&self, text: &str, span: Range<usize>) -> Option<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            let Some(end) = from.find('}') else {
                self.problem(span, "`${` without its `}`");
                return None;
            };
            let name = from.get(2..end).unwrap_or_default();
            let Some(value) = self.variables.get(name) else {
                let all: Vec<_> = self.variables.keys().map(String::as_str).collect();
                let names = if all.is_empty() { "there are none".to_owned() } else { all.join(", ") };
                self.problem(span, format!("unknown variable `${{{name}}}`; known are {names}"));
                return None;
            };
            out.push_str(value);
            rest = from.get(end + 1..).unwrap_or_default();
        }
        out.push_str(rest);
        if out.contains('\0') {
            self.problem(span, "a NUL byte cannot be handed to a program");
            return None;
        }
        Some(out)
    }

    pub(super) fn texts(&self, value: Value<'_>) -> Option<Vec<String>> {
        let Some(array) = value.get_ref().as_array() else {
            self.problem(value.span(), "write a list of texts, [\"like\", \"this\"]");
            return None;
        };
        let read: Vec<Option<String>> = array.iter().map(|v| self.text(v)).collect();
        read.into_iter().collect()
    }

    pub(super) fn duration(&self, value: Value<'_>) -> Option<Duration> {
        let parsed = value.get_ref().as_str().and_then(duration::parse);
        if parsed.is_none() {
            self.problem(value.span(), "not a duration; write 500ms, 10s or 2m");
        }
        parsed
    }

    pub(super) fn integer<T: TryFrom<i64>>(&self, value: Value<'_>, right: &str) -> Option<T> {
        let number =
            value.get_ref().as_integer().and_then(|i| i64::from_str_radix(i.as_str(), i.radix()).ok());
        // A port may come from a setting, and a setting is text.
        let number = number.or_else(|| self.expand(value.get_ref().as_str()?, value.span())?.parse().ok());
        let fits = number.and_then(|n| T::try_from(n).ok());
        if fits.is_none() {
            self.problem(value.span(), format!("write {right}"));
        }
        fits
    }

    /// A number within bounds that its type alone does not give.
    pub(super) fn number<T: TryFrom<i64>>(
        &self,
        value: Value<'_>,
        bounds: RangeInclusive<i64>,
        right: &str,
    ) -> Option<T> {
        let number: i64 = self.integer(value, right)?;
        let fits = bounds.contains(&number).then(|| T::try_from(number).ok()).flatten();
        if fits.is_none() {
            self.problem(value.span(), format!("write {right}"));
        }
        fits
    }

    pub(super) fn boolean(&self, value: Value<'_>) -> Option<bool> {
        let read = value.get_ref().as_bool();
        if read.is_none() {
            self.problem(value.span(), "write true or false");
        }
        read
    }

    pub(super) fn table<'a>(&'a self, value: Value<'a>, what: &str) -> Option<Reader<'a>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.problem(value.span(), format!("write {what}"));
        }
        table.map(|table| Reader::new(self, table))
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, value: Value<'_>, words: &[(&str, T)]) -> Option<T> {
        let text = value.get_ref().as_str().unwrap_or_default();
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, t)| *t);
        if found.is_none() {
            let all: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            self.problem(value.span(), format!("write {}", all.join(" or ")));
        }
        found
    }
}

/// One table, and which of its keys were asked for.
pub(super) struct Reader<'a> {
    pub(super) file: &'a File<'a>,
    table: &'a DeTable<'a>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a File<'a>, table: &'a DeTable<'a>) -> Reader<'a> {
        Reader { file, table, asked: RefCell::default() }
    }

    /// The value of a key, with its place.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'a>> {
        self.asked.borrow_mut().insert(key);
        self.table.iter().find(|(k, _)| k.get_ref() == key).map(|(_, v)| v)
    }

    /// Every key and value, for tables whose keys are the operator's own.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'a str, Range<usize>, Value<'a>)> {
        self.table.iter().map(|(k, v)| (k.get_ref().as_ref(), k.span(), v))
    }

    /// What was never asked for is an unknown key.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table {
            let text = key.get_ref().as_ref();
            if asked.contains(text) {
                continue;
            }
            let hint = nearest(text, asked.iter().copied()).map_or_else(
                || format!("the keys here are {}", asked.iter().copied().collect::<Vec<_>>().join(", ")),
                |near| format!("did you mean {near}?"),
            );
            self.file.problem(key.span(), format!("unknown key `{text}`; {hint}"));
        }
    }
}

/// The words that `text` is likely a slip for, all that are equally near; `None` when none is near.
pub(super) fn nearest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<String> {
    let mut least = usize::MAX;
    let mut near: Vec<&str> = Vec::new();
    for word in words {
        let d = distance(word, text);
        if d > word.len().max(text.len()) / 3 || d > least {
            continue;
        }
        if d < least {
            near.clear();
            least = d;
        }
        near.push(word);
    }
    let quoted: Vec<_> = near.iter().map(|w| format!("`{w}`")).collect();
    (!quoted.is_empty()).then(|| quoted.join(" or "))
}

/// Edits between two words (transpositions count twice); words here are short.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or_default();
            let here = (diagonal + usize::from(x != *y)).min(above + 1).min(left + 1);
            if let Some(cell) = row.get_mut(j) {
                *cell = left;
            }
            diagonal = above;
            left = here;
        }
        if let Some(cell) = row.last_mut() {
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}
