//! For tests, beside the code and black-box: a reader of Prometheus's text format that forgives nothing.

use std::collections::{BTreeMap, BTreeSet};

/// Reads the text format strictly: each family announced once by HELP and TYPE before its samples, no sample twice,
/// every name, label and number well formed.
pub(super) fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let (mut family, mut helped, mut seen) = (String::new(), String::new(), BTreeSet::new());
    assert!(text.ends_with('\n'), "the last line ends");
    // Not `lines()`: a carriage return is part of a label's value.
    for line in text.split_terminator('\n') {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helped = rest.split_once(' ').expect("a help text").0.to_owned();
            assert!(seen.insert(helped.clone()), "{helped} is announced twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(name == helped && matches!(kind, "gauge" | "counter"), "{line}");
            family = name.to_owned();
        } else {
            let name_end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).expect("a value");
            let (name, rest) = line.split_at(name_end);
            assert_eq!(name, family, "{line}");
            let rest = match rest.strip_prefix('{') {
                Some(labels) => skip_labels(labels),
                None => rest,
            };
            let number = rest.strip_prefix(' ').expect("a blank before the value");
            let value: f64 = number.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            let key = line[..line.len() - rest.len()].to_owned();
            assert!(samples.insert(key, value).is_none(), "twice: {line}");
        }
    }
    samples
}

/// What follows the closing brace.
fn skip_labels(mut text: &str) -> &str {
    loop {
        let end = text.find('=').expect("a label's name");
        assert!(end > 0 && text[..end].bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{text}");
        text = text[end + 1..].strip_prefix('"').expect("a quote");
        let mut escaped = false;
        let close = text.char_indices().find(|(_, c)| {
            let closes = *c == '"' && !escaped;
            assert!(!escaped || matches!(c, '\\' | '"' | 'n'), "a wrong escape in {text}");
            escaped = *c == '\\' && !escaped;
            closes
        });
        text = &text[close.expect("the closing quote").0 + 1..];
        match text.as_bytes().first() {
            Some(b',') => text = &text[1..],
            Some(b'}') => return &text[1..],
            other => panic!("{other:?} after a label"),
        }
    }
}
