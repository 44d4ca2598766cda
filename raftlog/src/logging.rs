//! raft-rs's log lines, handed on to `tracing`.

use slog::{Drain, Level, OwnedKVList, Record};

/// raft-rs speaks of every election at "info"; here only what needs a look is above "debug".
struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), slog::Never> {
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{}", record.msg()),
            Level::Warning => tracing::warn!(target: "raft", "{}", record.msg()),
            Level::Info => tracing::debug!(target: "raft", "{}", record.msg()),
            Level::Debug | Level::Trace => {}
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        level.is_at_least(Level::Info)
    }
}

/// A logger for raft-rs.
pub(crate) fn raft_logger() -> slog::Logger {
    slog::Logger::root(ToTracing, slog::o!())
}
