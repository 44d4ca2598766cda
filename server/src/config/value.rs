//! Values of flags, read by the rules of Go's flag, strconv, time and net/url packages as far as etcd uses them.
//!
//! Every function returns Go's wording of an error, because that is what an operator of etcd knows and what scripts
//! look for.

use super::{Scheme, Url};
use std::time::Duration;

const PARSE_ERROR: &str = "parse error";
const OUT_OF_RANGE: &str = "value out of range";

/// Go's `strconv.ParseBool`.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Base and digits of a number written as in Go source: `0x`, `0o`, `0b`, a leading 0 for octal; underscores between
/// digits where there is such a prefix.
fn base_and_digits(text: &str) -> Result<(u32, String), String> {
    let lower = text.to_ascii_lowercase();
    let (base, rest) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // An underscore stands between two digits, or between the prefix and a digit.
    let misplaced = rest.ends_with('_') || rest.contains("__") || (base == 10 && rest.starts_with('_'));
    let digits = rest.replace('_', "");
    if misplaced || digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(base)) {
        return Err(PARSE_ERROR.to_owned());
    }
    Ok((base, digits))
}

/// A whole number from 0 to `max`.
pub(crate) fn unsigned(text: &str, max: u64) -> Result<u64, String> {
    let (base, digits) = base_and_digits(text)?;
    match u64::from_str_radix(&digits, base) {
        Ok(value) if value <= max => Ok(value),
        _ => Err(OUT_OF_RANGE.to_owned()),
    }
}

/// A whole number with an optional sign.
pub(super) fn signed(text: &str) -> Result<i64, String> {
    let (negative, rest) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let (base, digits) = base_and_digits(rest)?;
    let magnitude = i128::from_str_radix(&digits, base).map_err(|_| OUT_OF_RANGE.to_owned())?;
    i64::try_from(if negative { -magnitude } else { magnitude }).map_err(|_| OUT_OF_RANGE.to_owned())
}

const UNITS_NS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Go's `time.ParseDuration`: "1h30m", "100ms", "1.5s", "0". In nanoseconds, because it may be negative.
pub(crate) fn duration_ns(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (integer.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let Some((_, unit_ns)) = UNITS_NS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
        };
        let part = part_ns(integer, fraction, *unit_ns).and_then(|part| total.checked_add(part));
        total = part.ok_or_else(invalid)?;
        rest = next;
    }
    let total = i64::try_from(total).map_err(|_| invalid())?;
    Ok(if negative { -total } else { total })
}

/// `integer.fraction` units in nanoseconds; the fraction is cut, not rounded.
fn part_ns(integer: &str, fraction: &str, unit_ns: u64) -> Option<u64> {
    let whole = if integer.is_empty() { 0 } else { integer.parse::<u64>().ok()? };
    let mut ns = whole.checked_mul(unit_ns)?;
    let mut scale = unit_ns;
    for digit in fraction.chars() {
        // A digit's worth shrinks by ten; below a nanosecond it counts for nothing, as nearly as Go's floating point.
        let digit = u64::from(digit.to_digit(10)?);
        ns = ns.checked_add(scale.checked_mul(digit)? / 10)?;
        scale /= 10;
    }
    Some(ns)
}

/// A duration as Go prints it: "1h0m0s", "100ms", "0s".
pub(super) fn duration_text(duration: Duration) -> String {
    let ns = duration.as_nanos();
    let decimal = |value: u128, unit: u128| {
        let fraction = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let whole = value / unit;
        if fraction.is_empty() || unit == 1 { whole.to_string() } else { format!("{whole}.{fraction}") }
    };
    match ns {
        0 => "0s".to_owned(),
        1..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}\u{b5}s", decimal(ns, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(ns, 1_000_000)),
        _ => {
            let seconds = decimal(ns % 60_000_000_000, 1_000_000_000);
            let minutes = ns / 60_000_000_000;
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// One URL.
pub(super) fn url(text: &str) -> Result<Url, String> {
    let text = text.trim();
    let bad_scheme = || format!("URL scheme must be http, https, unix, or unixs: {text}");
    let (scheme, rest) = text.split_once("://").ok_or_else(bad_scheme)?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        "unix" => Scheme::Unix,
        "unixs" => Scheme::Unixs,
        _ => return Err(bad_scheme()),
    };
    if matches!(scheme, Scheme::Unix | Scheme::Unixs) {
        if rest.is_empty() {
            return Err(format!("URL must name a socket: {text}"));
        }
        return Ok(Url { text: text.to_owned(), scheme, host: rest.to_owned(), port: 0 });
    }
    let (address, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let (host, port) = host_and_port(address)
        .ok_or_else(|| format!("URL address does not have the form \"host:port\": {text}"))?;
    if !path.is_empty() {
        return Err(format!("URL must not contain a path: {text}"));
    }
    Ok(Url { text: text.to_owned(), scheme, host, port })
}

fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    if host.contains(['[', ']', '@', '?', '#', ' ']) || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((host.to_owned(), port.parse().ok()?))
}

/// URLs separated by commas, sorted, each once; an empty text is no URL.
pub(super) fn urls(text: &str) -> Result<Vec<Url>, String> {
    let mut urls = list(text).iter().map(|each| url(each)).collect::<Result<Vec<Url>, String>>()?;
    urls.sort_by(|left, right| left.text.cmp(&right.text));
    urls.dedup();
    Ok(urls)
}

/// Texts separated by commas, in order, each once; an empty text is none.
pub(super) fn list(text: &str) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    if text.is_empty() {
        return texts;
    }
    for each in text.split(',').map(str::trim) {
        if !texts.iter().any(|known| known == each) {
            texts.push(each.to_owned());
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (text, value) in
            [("0", 0), ("10", 10), ("0x10", 16), ("0b101", 5), ("0o17", 15), ("017", 15), ("0x_f_f", 255)]
        {
            assert_eq!(unsigned(text, u64::MAX), Ok(value), "{text}");
        }
        for text in ["", "-1", "+1", "1s", "1.0", "0x", "_1", "1_", "0x1__0", "08", " 1"] {
            assert_eq!(unsigned(text, u64::MAX), Err("parse error".to_owned()), "{text}");
        }
        assert_eq!(unsigned("4294967296", u64::from(u32::MAX)), Err("value out of range".to_owned()));
        assert_eq!(unsigned("99999999999999999999", u64::MAX), Err("value out of range".to_owned()));
        assert_eq!(signed("-0x10"), Ok(-16));
        assert_eq!(signed("+7"), Ok(7));
        assert_eq!(signed("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(signed("9223372036854775808"), Err("value out of range".to_owned()));
        assert_eq!(signed("--1"), Err("parse error".to_owned()));
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, ns) in [
            ("0", 0),
            ("0s", 0),
            ("100ms", 100_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5m", 30_000_000_000),
            ("2us", 2_000),
            ("2\u{b5}s", 2_000),
            ("-10s", -10_000_000_000),
            ("1m0.25s", 60_250_000_000),
        ] {
            assert_eq!(duration_ns(text), Ok(ns), "{text}");
        }
        for (text, error) in [
            ("", "time: invalid duration \"\""),
            ("x", "time: invalid duration \"x\""),
            ("5", "time: missing unit in duration \"5\""),
            ("-1", "time: missing unit in duration \"-1\""),
            ("5d", "time: unknown unit \"d\" in duration \"5d\""),
            (".s", "time: invalid duration \".s\""),
            ("1.2.3s", "time: invalid duration \"1.2.3s\""),
            ("9999999999h", "time: invalid duration \"9999999999h\""),
        ] {
            assert_eq!(duration_ns(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (duration, text) in [
            (Duration::ZERO, "0s"),
            (Duration::from_millis(100), "100ms"),
            (Duration::from_micros(1_500), "1.5ms"),
            (Duration::from_millis(1_500), "1.5s"),
            (Duration::from_secs(7_200), "2h0m0s"),
            (Duration::from_secs(61), "1m1s"),
        ] {
            assert_eq!(duration_text(duration), text);
        }
    }

    #[test]
    fn urls_have_the_forms_that_etcd_takes() {
        let parsed = url("http://[::1]:2379").map(|url| (url.scheme, url.host, url.port));
        assert_eq!(parsed, Ok((Scheme::Http, "::1".to_owned(), 2379)));
        let parsed = url("unix:///tmp/x.sock").map(|url| (url.scheme, url.host, url.port));
        assert_eq!(parsed, Ok((Scheme::Unix, "/tmp/x.sock".to_owned(), 0)));
        for (text, error) in [
            ("localhost:1", "URL scheme must be http, https, unix, or unixs: localhost:1"),
            ("ftp://a:1", "URL scheme must be http, https, unix, or unixs: ftp://a:1"),
            ("http://a", "URL address does not have the form \"host:port\": http://a"),
            ("http://1.2.3.4/foo", "URL address does not have the form \"host:port\": http://1.2.3.4/foo"),
            ("http://a:70000", "URL address does not have the form \"host:port\": http://a:70000"),
            ("http://a:b", "URL address does not have the form \"host:port\": http://a:b"),
            ("http://::1:2379", "URL address does not have the form \"host:port\": http://::1:2379"),
            ("http://a:1/", "URL must not contain a path: http://a:1/"),
            ("unix://", "URL must name a socket: unix://"),
        ] {
            assert_eq!(url(text).map(|url| url.text), Err(error.to_owned()), "{text}");
        }
        let sorted = urls("http://b:1,http://a:1,http://b:1")
            .map(|urls| urls.into_iter().map(|url| url.text).collect());
        assert_eq!(sorted, Ok(vec!["http://a:1".to_owned(), "http://b:1".to_owned()]));
        assert_eq!(urls(""), Ok(Vec::new()));
    }
}
