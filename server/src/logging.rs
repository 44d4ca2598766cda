//! The log in etcd's shape: one JSON object a line, or columns for people.
//!
//! ```text
//! {"level":"info","ts":"2026-01-02T03:04:05.000006Z","caller":"rpc/kv.rs:12","msg":"...","field":"value"}
//! ```
//!
//! Rules kept here:
//! - Every line has `level`, `ts`, `caller` and `msg`, and nothing but lines goes to the outputs: panics become lines too.
//! - A level that is off costs one comparison: its call sites are told once that nobody listens.
//! - What the network libraries say is heard at debug only, where it belongs to looking for a fault.
//! - A line has a bound: a field's text is cut at [`FIELD_BYTES_MAX`].
//! - A line that cannot be written is lost; the server goes on.
//!
//! Code logs by way of `tracing`'s macros. A field that is a list or an object goes through [`json`].

mod line;
mod subscriber;

pub use line::{FIELD_BYTES_MAX, json};

use crate::config::{Failure, LogConfig, LogFormat, LogLevel, LogOutput, Note, NoteLevel};
use line::Line;
use parking_lot::Mutex;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::panic::Location;
use std::sync::OnceLock;

/// Where lines go, opened.
#[derive(Debug)]
enum Output {
    Stderr,
    Stdout,
    File(File),
}

/// A log that is set up.
#[derive(Debug)]
struct Log {
    level: LogLevel,
    format: LogFormat,
    /// Behind one lock, so that all outputs have the same order.
    outputs: Mutex<Vec<Output>>,
}

static LOG: OnceLock<Log> = OnceLock::new();

impl Log {
    fn open(config: &LogConfig) -> Result<Log, String> {
        let open = |output: &LogOutput| match output {
            LogOutput::Stderr => Ok(Output::Stderr),
            LogOutput::Stdout => Ok(Output::Stdout),
            LogOutput::File(path) => OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map(Output::File)
                .map_err(|error| format!("open sink {:?}: {error}", path.display().to_string())),
        };
        let outputs = config.outputs.iter().map(open).collect::<Result<Vec<Output>, String>>()?;
        Ok(Log { level: config.level, format: config.format, outputs: Mutex::new(outputs) })
    }

    fn write(&self, line: Line) {
        let bytes = line.finish(self.format);
        for output in self.outputs.lock().iter_mut() {
            // There is nobody to tell that the log cannot be written.
            let _ = match output {
                Output::Stderr => std::io::stderr().lock().write_all(&bytes),
                Output::Stdout => {
                    let mut stdout = std::io::stdout().lock();
                    stdout.write_all(&bytes).and_then(|()| stdout.flush())
                }
                Output::File(file) => file.write_all(&bytes),
            };
        }
    }
}

/// Sets the process's log up, and makes panics lines of it. To be called once, before anything is logged.
///
/// # Errors
/// An output that cannot be opened (its name and what the system said), or a log that was set up before.
pub fn init(config: &LogConfig) -> Result<(), String> {
    let log = Log::open(config)?;
    LOG.set(log).map_err(|_| "the log is set up already".to_owned())?;
    subscriber::install(config.level)?;
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "without a text".to_owned());
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let place = info.location();
        let mut line = Line::new(LogLevel::Panic, place.map(Location::file), place.map(Location::line));
        line.message(&format!("panic: {text}"));
        line.field("thread", &Value::String(thread));
        write(line);
    }));
    Ok(())
}

/// Writes a line to the log, or to standard error while there is none yet.
fn write(line: Line) {
    match LOG.get() {
        Some(log) => log.write(line),
        None => {
            let _ = std::io::stderr().lock().write_all(&line.finish(LogFormat::Json));
        }
    }
}

fn is_on(level: LogLevel) -> bool {
    LOG.get().is_none_or(|log| level >= log.level)
}

/// Logs a line whose level or fields are not known when the program is compiled; for all else there are `tracing`'s
/// macros. The caller's place is that of the call.
#[track_caller]
pub fn say<'a>(level: LogLevel, message: &str, fields: impl IntoIterator<Item = (&'a str, Value)>) {
    if !is_on(level) {
        return;
    }
    let place = Location::caller();
    let mut line = Line::new(level, Some(place.file()), Some(place.line()));
    line.message(message);
    for (name, value) in fields {
        line.field(name, &value);
    }
    write(line);
}

/// Logs what there is to say about a configuration.
pub fn say_notes(notes: &[Note]) {
    for note in notes {
        let level = match note.level {
            NoteLevel::Info => LogLevel::Info,
            NoteLevel::Warn => LogLevel::Warn,
        };
        say(
            level,
            &note.message,
            note.fields.iter().map(|(name, text)| (*name, Value::String(text.clone()))),
        );
    }
}

/// Says why the process will not run: plainly on standard error where arguments could not be read, else as a line.
pub fn say_failure(failure: &Failure) {
    let Some((level, message)) = failure.line else {
        let _ = writeln!(std::io::stderr().lock(), "{}", failure.text);
        return;
    };
    let fields = failure.fields.iter().map(|(name, text)| (*name, Value::String(text.clone())));
    // etcd's own message says it all where it has one; else the reason is the error.
    let error = failure.fields.is_empty().then(|| ("error", Value::String(failure.text.clone())));
    say(level, message, fields.chain(error));
}

#[cfg(test)]
mod tests;
