//! One line: its form, its timestamp, its place in the source.

use crate::config::{LogFormat, LogLevel};
use serde::Serialize;
use serde_json::Value;
use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// A field's text is cut here: nobody reads more of it in a log, and a client's bytes must not fill the disk.
pub const FIELD_BYTES_MAX: usize = 8 * 1024;

/// Keys that every line has already; a field of that name gets a "_" behind it.
const TAKEN: [&str; 6] = ["level", "ts", "caller", "msg", "logger", "stacktrace"];

/// What a [`json`] field begins with, so that it is told from a text.
const JSON_MARK: &str = "\u{1}json:";

/// A value that prints as JSON.
struct Json(String);

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(JSON_MARK)?;
        f.write_str(&self.0)
    }
}

/// Makes a list or an object a field of `tracing`'s macros: `args = ?json(&args)`.
pub fn json(value: &impl Serialize) -> impl fmt::Debug {
    Json(serde_json::to_string(value).unwrap_or_default())
}

/// The value that a field's Debug or Display text stands for.
pub(super) fn value_of_text(text: &str) -> Value {
    text.strip_prefix(JSON_MARK)
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// A line being put together.
#[derive(Debug)]
pub(super) struct Line {
    level: &'static str,
    ts: String,
    caller: String,
    msg: String,
    /// `,"name":value` for each field.
    fields: String,
}

impl Line {
    pub(super) fn new(level: LogLevel, file: Option<&str>, line: Option<u32>) -> Line {
        Line {
            level: level_name(level),
            ts: timestamp(SystemTime::now()),
            caller: format!("{}:{}", short_file(file.unwrap_or("unknown")), line.unwrap_or(0)),
            msg: String::new(),
            fields: String::new(),
        }
    }

    pub(super) fn message(&mut self, text: &str) {
        cut(text).clone_into(&mut self.msg);
    }

    pub(super) fn field(&mut self, name: &str, value: &Value) {
        let behind = if TAKEN.contains(&name) { "_" } else { "" };
        let name = Value::String(format!("{name}{behind}"));
        let value = match value {
            Value::String(text) if text.len() > FIELD_BYTES_MAX => &Value::String(cut(text).to_owned()),
            other => other,
        };
        // Writing to a String does not fail.
        let _ = write!(self.fields, ",{name}:{value}");
    }

    pub(super) fn finish(self, format: LogFormat) -> Vec<u8> {
        let Line { level, ts, caller, msg, fields } = self;
        match format {
            LogFormat::Json => {
                let (caller, msg) = (Value::String(caller), Value::String(msg));
                format!(
                    "{{\"level\":\"{level}\",\"ts\":\"{ts}\",\"caller\":{caller},\"msg\":{msg}{fields}}}\n"
                )
            }
            // A message may hold line breaks; a line may not.
            LogFormat::Console => {
                let msg = msg.replace('\n', "\\n");
                let fields =
                    fields.strip_prefix(',').map(|fields| format!("\t{{{fields}}}")).unwrap_or_default();
                format!("{ts}\t{level}\t{caller}\t{msg}{fields}\n")
            }
        }
        .into_bytes()
    }
}

fn cut(text: &str) -> &str {
    if text.len() <= FIELD_BYTES_MAX {
        return text;
    }
    let end = (0..=FIELD_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
        LogLevel::Panic => "panic",
        LogLevel::Fatal => "fatal",
    }
}

/// The last two names of a path, `src` left out: "server/src/rpc/kv.rs" is "rpc/kv.rs", "server/src/member.rs" is
/// "server/member.rs".
pub(super) fn short_file(path: &str) -> String {
    let names: Vec<&str> =
        path.split(['/', '\\']).filter(|name| !name.is_empty() && *name != "src").collect();
    names[names.len().saturating_sub(2)..].join("/")
}

/// `2006-01-02T15:04:05.000000Z`, in UTC.
pub(super) fn timestamp(time: SystemTime) -> String {
    const SECONDS_PER_DAY: u64 = 86_400;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = civil_date(seconds / SECONDS_PER_DAY);
    let of_day = seconds % SECONDS_PER_DAY;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60,
        since.subsec_micros()
    )
}

/// Year, month and day of the Gregorian calendar, from days since 1970-01-01.
///
/// Years are counted from March, so that the leap day is a year's last; 400 years have 146,097 days.
fn civil_date(days_since_1970: u64) -> (u64, u64, u64) {
    const DAYS_PER_400_YEARS: u64 = 146_097;
    const DAYS_FROM_YEAR_0_TO_1970: u64 = 719_468;
    let days = days_since_1970 + DAYS_FROM_YEAR_0_TO_1970;
    let in_era = days % DAYS_PER_400_YEARS;
    let year_of_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March have 153 days in five.
    let month_from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = days / DAYS_PER_400_YEARS * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}
