//! What is wrong in a file, and where: `file:line:col: message`, the line, a caret, and what would be right.
//!
//! A reader of a configuration collects every problem before it gives up, so that one look is enough to mend the file.

use std::fmt;
use std::ops::Range;

/// One thing wrong at one place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as the operator names it.
    pub file: String,
    /// Line and column, both from 1; `None` when it concerns the whole file.
    pub at: Option<Place>,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A place in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The line itself.
    pub text: String,
    /// How many characters the caret underlines, at least 1.
    pub width: usize,
}

impl Problem {
    /// A problem at a byte range of `source`.
    #[must_use]
    pub fn at(file: &str, source: &str, span: Range<usize>, message: impl Into<String>) -> Problem {
        Problem { file: file.to_owned(), at: Some(Place::of(source, span)), message: message.into() }
    }

    /// A problem of the file as a whole, or of something outside any file.
    #[must_use]
    pub fn whole(file: &str, message: impl Into<String>) -> Problem {
        Problem { file: file.to_owned(), at: None, message: message.into() }
    }
}

impl Place {
    fn of(source: &str, span: Range<usize>) -> Place {
        let mut start = span.start.min(source.len());
        while !source.is_char_boundary(start) {
            start -= 1;
        }
        let before = source.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let begin = before.rfind('\n').map_or(0, |i| i + 1);
        let rest = source.get(begin..).unwrap_or_default();
        let text = rest.lines().next().unwrap_or_default().trim_end_matches('\r').to_owned();
        let column = before.get(begin..).unwrap_or_default().chars().count() + 1;
        let mut end = span.end.clamp(start, source.len());
        while !source.is_char_boundary(end) {
            end -= 1;
        }
        let marked = source.get(start..end).unwrap_or_default();
        let room = (text.chars().count() + 1).saturating_sub(column - 1).max(1);
        let width = marked.lines().next().unwrap_or_default().chars().count().clamp(1, room);
        Place { line, column, text, width }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(place) = &self.at else { return write!(f, "{}: {}", self.file, self.message) };
        let Place { line, column, text, width } = place;
        let gutter = " ".repeat(line.to_string().len());
        let tabs: String =
            text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "{}:{line}:{column}: {}", self.file, self.message)?;
        writeln!(f, "{line} | {text}")?;
        write!(f, "{gutter} | {tabs}{}", "^".repeat(*width))
    }
}

/// Every problem found, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_problem_shows_file_line_column_and_a_caret() {
        let source = "a = 1\nstop = \"9 parsecs\"\n";
        let at = source.find("\"9").unwrap();
        let p = Problem::at("x.toml", source, at..at + 11, "not a duration; write 500ms, 10s or 2m");
        assert_eq!(
            p.to_string(),
            "x.toml:2:8: not a duration; write 500ms, 10s or 2m\n2 | stop = \"9 parsecs\"\n  |        ^^^^^^^^^^^"
        );
    }

    proptest! {
        #[test]
        fn no_span_panics(source in "(\\PC|\n|\t){0,60}", a in 0usize..80, b in 0usize..80) {
            let _ = Problem::at("f", &source, a.min(b)..a.max(b), "m").to_string();
        }
    }
}
