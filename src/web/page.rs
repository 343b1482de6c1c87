//! The status page: what `supafly status` says, for a browser. It needs no script and loads nothing.

use crate::spec::duration;
use crate::status::Status;
use std::fmt::Write;
use std::time::Duration;

/// What a browser may do with the page: show it.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem;color:#1c2024;\
background:#fff}h1{font-size:1.4rem;margin:0}p{margin:.3rem 0 1.2rem}table{border-collapse:collapse;width:100%}th,td{\
text-align:left;vertical-align:top;padding:.35rem .8rem .35rem 0;border-bottom:1px solid #e3e6e8}th{font-weight:600}\
td.n{white-space:nowrap}tr.r td.n{padding-left:1.2rem}.good{color:#18794e}.bad{color:#b4232a}.wait{color:#8a5a00}\
@media(prefers-color-scheme:dark){body{background:#16181a;color:#e6e8ea}th,td{border-color:#33383c}.good{color:#4cc38a}\
.bad{color:#ff8a8a}.wait{color:#f0c000}}";

/// The page.
pub(super) fn render(word: &str, reason: &str, status: Option<&Status>) -> String {
    let mut out = String::with_capacity(4_096);
    let up = status.map(|s| format!(", up {}", show(s.up_ms))).unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>supafly: {word}</title>\
         <meta http-equiv=\"refresh\" content=\"5\"><meta name=\"viewport\" content=\"width=device-width\">\
         <style>{STYLE}</style></head><body>\n<h1>supafly: <span class=\"{}\">{word}</span>{up}</h1>\n<p>{}</p>\n",
        class(word),
        escape(reason)
    );
    if let Some(status) = status {
        out.push_str(
            "<table>\n<tr><th>Service</th><th>State</th><th>For</th><th>Restarts</th><th>Detail</th></tr>\n",
        );
        for service in &status.services {
            let (age, restarts) = (show(service.for_ms), service.restarts.to_string());
            row(&mut out, "s", &service.name, &service.state, &age, &restarts, &service.detail);
            for own in &service.rows {
                row(&mut out, "r", &own.name, &own.state, "", "", &own.detail);
            }
        }
        out.push_str("</table>\n");
    }
    out.push_str("</body></html>\n");
    out
}

fn row(out: &mut String, of: &str, name: &str, state: &str, age: &str, restarts: &str, detail: &str) {
    let _ = writeln!(
        out,
        "<tr class=\"{of}\"><td class=\"n\">{}</td><td class=\"{}\">{}</td><td class=\"n\">{age}</td><td>{restarts}</td>\
         <td>{}</td></tr>",
        escape(name),
        class(state),
        escape(state),
        escape(detail)
    );
}

/// By how it sounds; a word that a later service brings is shown as neither.
fn class(state: &str) -> &'static str {
    match state {
        "ready" | "ok" | "done" => "good",
        "starting" | "stopping" | "waiting" | "backoff" => "wait",
        "absent" | "stopped" => "",
        _ => "bad",
    }
}

fn show(ms: u64) -> String {
    duration::show(Duration::from_millis(ms))
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::testkit;

    #[test]
    fn a_detail_cannot_become_markup() {
        let mut status = testkit::status();
        status.services[0].detail = "<script>alert('1')</script> & \"more\"".to_owned();
        let page = render("degraded", "<b>", Some(&status));
        assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
        assert!(
            page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;more&quot;"),
            "{page}"
        );
    }

    #[test]
    fn every_service_and_row_is_shown_and_nothing_is_loaded() {
        let page = render("ready", "", Some(&testkit::status()));
        for word in ["keeper", "archive", "backup (wal-x 1)", "unprotected", "setup"] {
            assert!(page.contains(&format!(">{word}<")), "{word}: {page}");
        }
        for word in ["http://", "https://", "<script", "<link", "<img", "url("] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.contains("http-equiv=\"refresh\""));
    }

    #[test]
    fn without_a_status_there_is_a_page_all_the_same() {
        let page = render("unknown", "the supervisor has not answered yet", None);
        assert!(page.contains("has not answered yet") && page.ends_with("</html>\n"));
    }
}
