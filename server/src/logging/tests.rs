//! Lines, and which of them are heard.

use super::line::{short_file, timestamp};
use super::subscriber::Lines;
use super::*;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber, debug, error, info, trace, warn};

/// Writes the lines of the subscriber in use to a buffer.
#[derive(Clone)]
struct Captured {
    lines: Arc<Mutex<Vec<String>>>,
    hears: Arc<Lines>,
    format: LogFormat,
}

impl Subscriber for Captured {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        self.hears.register_callsite(metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.hears.enabled(metadata)
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        self.hears.new_span(span)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let line = Lines::line(event).finish(self.format);
        self.lines.lock().push(String::from_utf8(line).expect("a line is text"));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

fn captured(level: LogLevel, format: LogFormat, log: impl FnOnce()) -> Vec<String> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let subscriber = Captured { lines: Arc::clone(&lines), hears: Arc::new(Lines::new(level)), format };
    tracing::subscriber::with_default(subscriber, log);
    let lines = lines.lock();
    lines.clone()
}

fn only(lines: &[String]) -> Value {
    assert_eq!(lines.len(), 1, "{lines:?}");
    serde_json::from_str(&lines[0]).expect("a line is a JSON object")
}

#[test]
fn a_line_is_a_json_object_with_etcds_keys_in_etcds_order() {
    let args = ["a", "b\"c"];
    let lines = captured(LogLevel::Info, LogFormat::Json, || {
        info!(
            "data-dir" = "x\n",
            number = -7,
            big = u64::MAX,
            share = 0.5,
            truth = true,
            shown = %"plain",
            seen = ?Some(1),
            args = ?json(&args),
            level = "mine",
            "ready to serve client requests"
        );
    });
    assert!(
        lines[0].starts_with("{\"level\":\"info\",\"ts\":\"") && lines[0].ends_with("}\n"),
        "{}",
        lines[0]
    );
    assert_eq!(lines[0].matches('\n').count(), 1);
    let line = only(&lines);
    let caller = line["caller"].as_str().expect("a caller");
    let number = caller.strip_prefix("logging/tests.rs:").expect("the file");
    assert!(number.parse::<u32>().is_ok_and(|number| number > 0), "{caller}");
    assert_eq!(line["msg"], "ready to serve client requests");
    assert_eq!(line["data-dir"], "x\n");
    assert_eq!(line["number"], -7);
    assert_eq!(line["big"], u64::MAX);
    assert_eq!(line["share"], 0.5);
    assert_eq!(line["truth"], true);
    assert_eq!(line["shown"], "plain");
    assert_eq!(line["seen"], "Some(1)");
    assert_eq!(line["args"], serde_json::json!(["a", "b\"c"]));
    assert_eq!(line["level_"], "mine", "a field does not stand in for a key of the line");
    assert_eq!(line["level"], "info");
}

#[test]
fn levels_below_the_chosen_one_are_not_heard() {
    let all = || {
        trace!("t");
        debug!("d");
        info!("i");
        warn!("w");
        error!("e");
    };
    let heard = |level| {
        let lines = captured(level, LogFormat::Json, all);
        lines
            .iter()
            .map(|line| only(std::slice::from_ref(line))["level"].as_str().unwrap_or("").to_owned())
            .collect()
    };
    let cases: [(LogLevel, &[&str]); 5] = [
        (LogLevel::Debug, &["debug", "info", "warn", "error"]),
        (LogLevel::Info, &["info", "warn", "error"]),
        (LogLevel::Warn, &["warn", "error"]),
        (LogLevel::Error, &["error"]),
        (LogLevel::Fatal, &[]),
    ];
    for (level, expected) in cases {
        let heard: Vec<String> = heard(level);
        assert_eq!(heard, expected, "{level:?}");
    }
}

#[test]
fn libraries_are_heard_at_debug_only() {
    let noise = || {
        warn!(target: "h2::codec", "noise");
        debug!(target: "hyper::proto", "noise");
        warn!(target: "coffer_engine::wal", "own");
    };
    assert_eq!(captured(LogLevel::Info, LogFormat::Json, noise).len(), 1);
    assert_eq!(captured(LogLevel::Debug, LogFormat::Json, noise).len(), 3);
}

#[test]
fn the_console_form_has_columns_and_keeps_a_message_on_its_line() {
    let lines = captured(LogLevel::Info, LogFormat::Console, || {
        warn!(a = 1, b = "c", "two\nlines");
        info!("bare");
    });
    let columns: Vec<&str> = lines[0].trim_end_matches('\n').split('\t').collect();
    assert_eq!(columns[1], "warn");
    assert_eq!(&columns[3..], ["two\\nlines", "{\"a\":1,\"b\":\"c\"}"]);
    assert_eq!(lines[1].split('\t').count(), 4);
}

#[test]
fn long_fields_are_cut_between_characters() {
    let long = "\u{fc}".repeat(FIELD_BYTES_MAX);
    let line = only(&captured(LogLevel::Info, LogFormat::Json, || info!(long, "m")));
    let text = line["long"].as_str().expect("a text");
    assert!(text.len() <= FIELD_BYTES_MAX && text.chars().all(|c| c == '\u{fc}'));
}

#[test]
fn a_text_that_looks_like_a_list_but_is_none_stays_a_text() {
    let line = only(&captured(LogLevel::Info, LogFormat::Json, || {
        info!(forged = %"\u{1}json:]", "m");
    }));
    assert_eq!(line["forged"], "\u{1}json:]");
}

#[test]
fn timestamps_have_etcds_form() {
    for (seconds, micros, text) in [
        (0, 0, "1970-01-01T00:00:00.000000Z"),
        (951_782_400, 1, "2000-02-29T00:00:00.000001Z"),
        (951_868_799, 999_999, "2000-02-29T23:59:59.999999Z"),
        (1_709_164_800, 0, "2024-02-29T00:00:00.000000Z"),
        (1_735_689_599, 0, "2024-12-31T23:59:59.000000Z"),
        (4_107_542_400, 0, "2100-03-01T00:00:00.000000Z"),
    ] {
        let time = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
        assert_eq!(timestamp(time), text);
    }
}

#[test]
fn a_caller_is_the_last_two_names_of_its_path() {
    for (path, short) in [
        ("server/src/rpc/kv.rs", "rpc/kv.rs"),
        ("server/src/member.rs", "server/member.rs"),
        ("/x/h2-0.4.20/src/server.rs", "h2-0.4.20/server.rs"),
        ("main.rs", "main.rs"),
        ("", ""),
    ] {
        assert_eq!(short_file(path), short);
    }
}

#[test]
fn a_file_gets_lines_appended_and_one_that_cannot_be_opened_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    std::fs::write(&path, "before\n").expect("a file");
    let config = LogConfig {
        level: LogLevel::Info,
        format: LogFormat::Json,
        outputs: vec![LogOutput::File(path.clone())],
    };
    let log = Log::open(&config).expect("the file is opened");
    let mut line = Line::new(LogLevel::Fatal, Some("a/b.rs"), Some(1));
    line.message("gone");
    log.write(line);
    let text = std::fs::read_to_string(&path).expect("the file is read");
    assert!(text.starts_with("before\n{\"level\":\"fatal\""), "{text}");
    assert!(text.ends_with("\"caller\":\"a/b.rs:1\",\"msg\":\"gone\"}\n"), "{text}");
    let missing = dir.path().join("no/log");
    let config = LogConfig { outputs: vec![LogOutput::File(missing.clone())], ..config };
    let error = Log::open(&config).map(|_| ()).expect_err("its directory is not there");
    assert!(error.contains(missing.to_str().expect("a text")), "{error}");
}
