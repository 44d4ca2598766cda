//! What hears `tracing`'s events. Spans are not kept: a line stands for itself.

use super::line::{Line, value_of_text};
use crate::config::LogLevel;
use serde_json::Value;
use std::error::Error;
use std::fmt;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

/// Targets of this program begin so; all others are libraries.
const OWN: &str = "coffer";

#[derive(Debug)]
pub(super) struct Lines {
    level: LogLevel,
}

/// Makes it the process's subscriber.
pub(super) fn install(level: LogLevel) -> Result<(), String> {
    tracing::subscriber::set_global_default(Lines::new(level)).map_err(|error| error.to_string())
}

fn level_of(level: Level) -> Option<LogLevel> {
    match level {
        Level::ERROR => Some(LogLevel::Error),
        Level::WARN => Some(LogLevel::Warn),
        Level::INFO => Some(LogLevel::Info),
        Level::DEBUG => Some(LogLevel::Debug),
        _ => None,
    }
}

impl Lines {
    pub(super) fn new(level: LogLevel) -> Lines {
        Lines { level }
    }

    fn hears(&self, metadata: &Metadata<'_>) -> bool {
        let heard = level_of(*metadata.level()).is_some_and(|level| level >= self.level);
        heard && metadata.is_event() && (self.level == LogLevel::Debug || metadata.target().starts_with(OWN))
    }

    /// The line of an event.
    pub(super) fn line(event: &Event<'_>) -> Line {
        let metadata = event.metadata();
        let level = level_of(*metadata.level()).unwrap_or(LogLevel::Debug);
        let mut line = Line::new(level, metadata.file().or(Some(metadata.target())), metadata.line());
        event.record(&mut Fields(&mut line));
        line
    }
}

impl Subscriber for Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.hears(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.hears(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.level {
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Panic | LogLevel::Fatal => LevelFilter::OFF,
        })
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        super::write(Lines::line(event));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Fields<'a>(&'a mut Line);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: &Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.0.message(text),
            (name, value) => self.0.field(name, value),
        }
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, &Value::String(value.to_owned()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, &Value::Bool(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, &Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, &Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, &Value::from(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field, &Value::String(value.to_string()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &value_of_text(&format!("{value:?}")));
    }
}
