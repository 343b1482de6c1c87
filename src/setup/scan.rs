//! Reads a script as `psql` does: where its statements begin and end, and what in it only `psql` or only a life without a
//! surrounding transaction can run. Pure.
//!
//! It knows quotes, dollar quotes, nested comments, parentheses and `begin atomic` bodies, and nothing of grammar.

/// One statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Statement<'a> {
    /// Without its semicolon.
    pub(super) text: &'a str,
    /// Where it begins, in bytes.
    pub(super) at: usize,
}

/// What a script is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Script<'a> {
    pub(super) statements: Vec<Statement<'a>>,
    /// It has a backslash command, or `copy … from stdin` with its rows: `psql` must run it.
    pub(super) psql: bool,
    /// It begins or ends transactions itself, or connects anew, which ends one as well.
    pub(super) transactions: bool,
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    script: Script<'a>,
    /// Where the statement began, once there is something of one.
    begun: Option<usize>,
    parentheses: usize,
    /// The first words of the statement, in lower case.
    words: Vec<String>,
    /// Depth of `begin atomic … end` and of `case … end` in it.
    atomic: usize,
    /// Words `from stdin` have been seen in a `copy`.
    stdin: bool,
}

/// Reads it.
pub(super) fn scan(text: &str) -> Script<'_> {
    let script = Script::default();
    let words = Vec::new();
    let mut scanner =
        Scanner { text, at: 0, script, begun: None, parentheses: 0, words, atomic: 0, stdin: false };
    while !scanner.rest().is_empty() {
        scanner.step();
    }
    scanner.end();
    scanner.script
}

/// Line and column, from 1, of a byte.
pub(super) fn place(text: &str, byte: usize) -> (usize, usize) {
    let mut cut = byte.min(text.len());
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    let before = text.get(..cut).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    (line, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1)
}

const fn of_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b >= 0x80
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn step(&mut self) {
        let rest = self.rest();
        let first = rest.as_bytes().first().copied().unwrap_or_default();
        match first {
            b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c => self.at += 1,
            // A carriage return ends it too, for Postgres as for psql.
            b'-' if rest.starts_with("--") => self.at += rest.find(['\n', '\r']).unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => self.comment(),
            b';' if self.parentheses == 0 && self.atomic == 0 => {
                self.end();
                self.at += 1;
            }
            b'\\' => {
                // Up to the end of the line it is psql's, quotes and all.
                self.script.psql = true;
                let command = rest.get(1..).unwrap_or_default().split_ascii_whitespace().next();
                self.script.transactions |= matches!(command, Some("c" | "connect"));
                self.at += rest.find('\n').unwrap_or(rest.len());
            }
            b'\'' => self.quoted(b'\'', self.escapes()),
            b'"' => self.quoted(b'"', false),
            b'$' if self.dollar() => {}
            b'(' => {
                self.begin();
                self.parentheses += 1;
                self.at += 1;
            }
            b')' => {
                self.parentheses = self.parentheses.saturating_sub(1);
                self.at += 1;
            }
            b if of_word(b) => self.word(),
            _ => {
                self.begin();
                self.at += 1;
            }
        }
    }

    fn begin(&mut self) {
        self.begun.get_or_insert(self.at);
    }

    fn end(&mut self) {
        let rows = self.stdin;
        if let Some(at) = self.begun.take() {
            let text = self.text.get(at..self.at).unwrap_or_default().trim_end();
            self.script.statements.push(Statement { text, at });
            let nth = |n: usize| self.words.get(n).map(String::as_str).unwrap_or_default();
            let control = match nth(0) {
                "begin" | "commit" | "end" | "abort" => true,
                // `rollback to` a savepoint stays inside.
                "rollback" => !self.words.iter().any(|w| w == "to"),
                "start" | "prepare" => nth(1) == "transaction",
                _ => false,
            };
            self.script.transactions |= control;
            self.script.psql |= rows;
        }
        self.words.clear();
        self.parentheses = 0;
        self.atomic = 0;
        self.stdin = false;
        if rows {
            // Its rows are no SQL.
            let rest = self.rest();
            self.at += rest.find("\n\\.").map_or(rest.len().saturating_sub(1), |end| end + "\n\\.".len());
        }
    }

    /// `E'…'` knows backslashes.
    fn escapes(&self) -> bool {
        let before = self.text.as_bytes().get(..self.at).unwrap_or_default();
        let mut back = before.iter().rev().copied();
        matches!(back.next(), Some(b'e' | b'E')) && !back.next().is_some_and(of_word)
    }

    fn quoted(&mut self, quote: u8, escapes: bool) {
        self.begin();
        let bytes = self.text.as_bytes();
        self.at += 1;
        while let Some(b) = bytes.get(self.at) {
            self.at += 1;
            if escapes && *b == b'\\' {
                self.at = (self.at + 1).min(bytes.len());
            } else if *b == quote && bytes.get(self.at) == Some(&quote) {
                self.at += 1;
            } else if *b == quote {
                break;
            }
        }
        // Never inside of a character, whatever a backslash stood before.
        while !self.text.is_char_boundary(self.at) {
            self.at += 1;
        }
    }

    fn comment(&mut self) {
        let bytes = self.text.as_bytes();
        let mut depth = 0usize;
        while self.at < bytes.len() {
            let rest = bytes.get(self.at..).unwrap_or_default();
            if rest.starts_with(b"/*") {
                depth += 1;
                self.at += 2;
            } else if rest.starts_with(b"*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return;
                }
            } else {
                self.at += 1;
            }
        }
    }

    /// `$tag$ … $tag$`; false when it is none.
    fn dollar(&mut self) -> bool {
        let rest = self.rest();
        let Some(length) = rest.get(1..).and_then(|r| r.find('$')) else { return false };
        let tag = rest.get(..length + 2).unwrap_or_default();
        let name = tag.trim_matches('$');
        if !name.bytes().all(of_word) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return false;
        }
        self.begin();
        let body = rest.get(tag.len()..).unwrap_or_default();
        self.at += tag.len() + body.find(tag).map_or(body.len(), |end| end + tag.len());
        true
    }

    fn word(&mut self) {
        self.begin();
        let rest = self.rest();
        let length = rest.bytes().take_while(|b| of_word(*b)).count();
        let word = rest.get(..length).unwrap_or_default().to_ascii_lowercase();
        self.at += length;
        let nth = |n: usize| self.words.get(n).map(String::as_str).unwrap_or_default();
        if nth(0) == "copy" && word == "stdin" && self.words.last().is_some_and(|w| w == "from") {
            self.stdin = true;
        }
        let routine = |w: &str| w == "function" || w == "procedure";
        let makes = nth(0) == "create" && (routine(nth(1)) || (nth(1) == "or" && routine(nth(3))));
        match word.as_str() {
            "atomic" if makes && self.words.last().is_some_and(|w| w == "begin") => self.atomic += 1,
            "case" if self.atomic > 0 => self.atomic += 1,
            "end" => self.atomic = self.atomic.saturating_sub(1),
            _ => {}
        }
        // The first ones tell the kind, the last one the neighbour.
        if self.words.len() > 7 {
            self.words.pop();
        }
        self.words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(sql: &str) -> Vec<&str> {
        scan(sql).statements.iter().map(|s| s.text).collect()
    }

    #[test]
    fn statements_end_where_psql_ends_them() {
        let comments = "select 1;;\n -- x; y\n select 2 /* ; /* ; */ ; */ ; ";
        assert_eq!(texts(comments), ["select 1", "select 2 /* ; /* ; */ ; */"]);
        assert_eq!(
            texts("select 'a;''b;', \"c;\"\"\";select 1"),
            ["select 'a;''b;', \"c;\"\"\"", "select 1"]
        );
        assert_eq!(texts(r"select E'\';', 'a\';select 1"), [r"select E'\';', 'a\'", "select 1"]);
        assert_eq!(texts(r"select E'a''\';b';select 1"), [r"select E'a''\';b'", "select 1"]);
        let dollars = "do $$ a; $x$ b; $$; do $a$ $$; $a$; select $1;";
        assert_eq!(texts(dollars), ["do $$ a; $x$ b; $$", "do $a$ $$; $a$", "select $1"]);
        assert_eq!(texts("create rule r as on insert to t do (select 1; select 2); select 3").len(), 2);
        let atomic = "create or replace function f() returns int begin atomic select case when true then 1 end; \
                      select 2; end; select 3";
        assert_eq!(texts(atomic).len(), 2);
        assert_eq!(texts("create function begin() returns int as 'x' language sql; select 1").len(), 2);
        assert_eq!(texts("-- nothing\n;"), Vec::<&str>::new());
    }

    #[test]
    fn what_only_psql_can_run_is_found_and_nothing_else() {
        assert!(scan("\\set x 1\nselect 1;").psql);
        assert!(scan("copy t (a) from stdin;\n1\n\\.\n").psql);
        assert!(scan("COPY public.t FROM stdin WITH (format csv);\n1\n").psql);
        assert!(!scan(r"select 'a\b', E'\\', $$ \d $$; -- \d").psql);
        assert!(!scan("copy t from '/tmp/x'; select 'from stdin'").psql);
    }

    #[test]
    fn a_script_with_transactions_of_its_own_is_known() {
        let after_psql = "\\restrict it's\nbegin;\ncommit;";
        let after_comment = "-- x\rcommit;";
        let after_rows = "copy t from stdin;\nit's\tbegin;\n\\.\ncommit;";
        for own in ["begin; select 1; commit;", "BEGIN;", "start transaction;", "select 1; end;", "rollback"]
            .into_iter()
            .chain([after_psql, after_comment, after_rows, "\\c other", "select 1;\n\\connect - ann\n"])
        {
            assert!(scan(own).transactions, "{own}");
        }
        for none in [
            "\\copy t from 'c'\n\\conninfo",
            "savepoint a; rollback to a;",
            "do $$ begin end $$;",
            "create function f() returns int begin atomic select 1; end;",
            "copy t from stdin;\nx;\nbegin;\n\\.\nselect 1;",
        ] {
            assert!(!scan(none).transactions, "{none}");
        }
    }

    #[test]
    fn a_byte_has_a_line_and_a_column() {
        assert_eq!(place("ä\nbc", 4), (2, 2));
        assert_eq!(place("", 9), (1, 1));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_every_statement_is_a_piece_of_it(text in "[-a-e'\"$;/*() \\\\\nä]{0,80}", copy: bool) {
            let text = if copy { format!("copy t from stdin;{text}") } else { text };
            for s in scan(&text).statements {
                prop_assert_eq!(&text[s.at..s.at + s.text.len()], s.text);
            }
        }
    }
}
