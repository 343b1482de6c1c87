//! How values look. Pure.

use super::Value;

/// For whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// People: a title and, below it, the value, which nothing cuts.
    People,
    /// `NAME="value"`, as shells and dotenv files read it.
    Env,
    /// One object.
    Json,
}

pub(super) fn render(values: &[Value], format: Format) -> String {
    match format {
        Format::People => {
            let one = |v: &Value| format!("{}\n  {}\n", v.name.title(), v.value);
            values.iter().map(one).collect()
        }
        Format::Env => values.iter().map(|v| format!("{}=\"{}\"\n", v.shown, escaped(&v.value))).collect(),
        Format::Json => {
            let all: serde_json::Map<String, serde_json::Value> =
                values.iter().map(|v| (v.shown.clone(), v.value.clone().into())).collect();
            serde_json::to_string_pretty(&all).unwrap_or_default() + "\n"
        }
    }
}

/// Between double quotes, for a shell.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::values::{self, tests};
    use super::*;

    #[test]
    fn a_shell_reads_every_value_back_as_it_was() {
        let mut all = values::values(&tests::endpoints(), &tests::secrets(Some("p")), None);
        let odd = "a\"b\\c$HOME`id`'!é #";
        all[0].value = odd.to_owned();
        let script = format!("{}printf %s \"$DB_URL\"", render(&all, Format::Env));
        let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), odd);
    }

    #[test]
    fn programs_get_one_object_and_people_a_title_for_each() {
        let all = values::values(&tests::endpoints(), &tests::secrets(Some("p")), None);
        let json: serde_json::Value = serde_json::from_str(&render(&all, Format::Json)).unwrap();
        assert_eq!(json["JWT_SECRET"], "s$cret");
        assert_eq!(json.as_object().unwrap().len(), all.len());
        let people = render(&all, Format::People);
        assert!(
            people.starts_with("Database\n  postgresql://postgres:p@127.0.0.1:5432/postgres\n"),
            "{people}"
        );
        assert!(people.lines().filter(|l| !l.starts_with("  ")).all(|l| l.len() <= 80));
    }
}
