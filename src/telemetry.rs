//! Our own log lines. A role writes text to its stderr, where PID 1 picks it up like any service's; PID 1 writes
//! through the same bounded writer and in the same form as the lines of its services, with `service` = `supafly`, so
//! that one reader understands all and a stalled reader stalls nobody.

use crate::os::output::{Level, Line, Writer};
use std::io::IsTerminal;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

fn filter(log: &str) -> EnvFilter {
    EnvFilter::try_new(log).unwrap_or_else(|_| EnvFilter::new("info"))
}

/// For roles and short-lived commands: text on stderr, coloured only on a terminal.
pub fn init_role(log: &str) {
    let format = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time();
    // A second call (tests) changes nothing.
    let _ = tracing_subscriber::registry().with(filter(log)).with(format).try_init();
}

/// For `supafly run`: through the writer of its services.
pub fn init_run(log: &str, writer: &Writer) {
    let layer = Own { source: writer.source("supafly"), writer: writer.clone() };
    let _ = tracing_subscriber::registry().with(filter(log)).with(layer).try_init();
}

struct Own {
    writer: Writer,
    source: crate::os::output::Source,
}

#[derive(Default)]
struct Fields {
    message: String,
    others: serde_json::Map<String, serde_json::Value>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.others.insert(field.name().to_owned(), format!("{value:?}").into());
        }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.others.insert(field.name().to_owned(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.insert(field.name().to_owned(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.insert(field.name().to_owned(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.insert(field.name().to_owned(), value.into());
    }
}

impl<S: tracing::Subscriber> Layer<S> for Own {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let tracing_level = *event.metadata().level();
        let level = if tracing_level == tracing::Level::ERROR {
            Level::Error
        } else if tracing_level == tracing::Level::WARN {
            Level::Warn
        } else if tracing_level == tracing::Level::INFO {
            Level::Info
        } else {
            Level::Debug
        };
        let mut line = Line::new("supafly", level, &fields.message);
        line.fields = fields.others;
        self.writer.line(self.source, &line);
    }
}
