//! The status of an image, in the forms etcdutl prints one.

use super::{BAD_FEATURE, Failure};
use serde::Serialize;

/// What an image holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Status {
    pub(super) hash: u32,
    pub(super) revision: i64,
    #[serde(rename = "totalKey")]
    pub(super) total_key: u64,
    #[serde(rename = "totalSize")]
    pub(super) total_size: u64,
    pub(super) version: String,
}

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Simple,
    Json,
    Fields,
    Table,
}

impl Form {
    /// The form of that name.
    pub(super) fn read(name: &str) -> Result<Form, Failure> {
        match name {
            "simple" => Ok(Form::Simple),
            "json" => Ok(Form::Json),
            "fields" => Ok(Form::Fields),
            "table" => Ok(Form::Table),
            "protobuf" => Err(Failure::new(BAD_FEATURE, "protobuf not supported as output format")),
            _ => Err(Failure::new(BAD_FEATURE, "unsupported output format")),
        }
    }
}

impl Status {
    /// Its text in a form, with the last line's end.
    pub(super) fn text(&self, form: Form) -> String {
        match form {
            Form::Simple => format!("{}\n", self.row().join(", ")),
            // No map in it whose keys could fail, and no number that JSON lacks.
            Form::Json => format!("{}\n", serde_json::to_string(self).unwrap_or_default()),
            Form::Fields => format!(
                "\"Hash\" : {}\n\"Revision\" : {}\n\"Keys\" : {}\n\"Size\" : {}\n\"Version\" : {}\n",
                self.hash, self.revision, self.total_key, self.total_size, self.version
            ),
            Form::Table => table(&["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"], &self.row()),
        }
    }

    fn row(&self) -> [String; 5] {
        [
            format!("{:x}", self.hash),
            self.revision.to_string(),
            self.total_key.to_string(),
            bytes_text(self.total_size),
            self.version.clone(),
        ]
    }
}

/// A table of one row, its head centred and its cells to the right.
fn table<const N: usize>(head: &[&str; N], row: &[String; N]) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|place| head[place].chars().count().max(row[place].chars().count()));
    let rule = |left: char, middle: &str, right: char| {
        let lines: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", lines.join(middle))
    };
    let cells = |cell: &dyn Fn(usize) -> String| {
        let cells: Vec<String> = (0..N).map(|place| format!(" {} ", cell(place))).collect();
        format!("│{}│\n", cells.join("│"))
    };
    [
        rule('┌', "┬", '┐'),
        cells(&|place| format!("{:^width$}", head[place], width = widths[place])),
        rule('├', "┼", '┤'),
        cells(&|place| format!("{:>width$}", row[place], width = widths[place])),
        rule('└', "┴", '┘'),
    ]
    .concat()
}

/// A number of bytes as etcd's tools print it: thousands, one digit behind the point below ten.
pub(super) fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let power = bytes.ilog10() / 3;
    let unit = 1000_u128.pow(power);
    // in tenths, rounded half up
    let tenths = (u128::from(bytes) * 10 * 2 + unit) / (unit * 2);
    let name = UNITS[power as usize];
    if tenths < 100 {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    } else {
        format!("{} {name}", round_to_even(tenths))
    }
}

/// Tenths to whole numbers as Go's `%.0f` rounds: a half goes to the even neighbour.
fn round_to_even(tenths: u128) -> u128 {
    let whole = tenths / 10;
    match tenths % 10 {
        0..=4 => whole,
        5 => whole + whole % 2,
        _ => whole + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            hash: 0x9adc_8282,
            revision: 5,
            total_key: 2,
            total_size: 20_480,
            version: "3.7.0".to_owned(),
        }
    }

    /// The expected texts are what etcdutl 3.7.3 prints for a snapshot with these numbers.
    #[test]
    fn a_status_is_printed_as_etcdutl_prints_it() {
        assert_eq!(status().text(Form::Simple), "9adc8282, 5, 2, 20 kB, 3.7.0\n");
        assert_eq!(
            status().text(Form::Json),
            "{\"hash\":2598142594,\"revision\":5,\"totalKey\":2,\"totalSize\":20480,\"version\":\"3.7.0\"}\n"
        );
        assert_eq!(
            status().text(Form::Fields),
            "\"Hash\" : 2598142594\n\"Revision\" : 5\n\"Keys\" : 2\n\"Size\" : 20480\n\"Version\" : 3.7.0\n"
        );
        assert_eq!(
            status().text(Form::Table),
            "┌──────────┬──────────┬────────────┬────────────┬─────────┐\n\
             │   HASH   │ REVISION │ TOTAL KEYS │ TOTAL SIZE │ VERSION │\n\
             ├──────────┼──────────┼────────────┼────────────┼─────────┤\n\
             │ 9adc8282 │        5 │          2 │      20 kB │   3.7.0 │\n\
             └──────────┴──────────┴────────────┴────────────┴─────────┘\n"
        );
    }

    #[test]
    fn only_forms_that_there_are_are_taken() {
        assert_eq!(Form::read("table"), Ok(Form::Table));
        let refused = Form::read("protobuf").unwrap_err();
        assert_eq!((refused.code, refused.text.as_str()), (4, "protobuf not supported as output format"));
        assert_eq!(Form::read("").unwrap_err().text, "unsupported output format");
    }

    #[test]
    fn bytes_are_counted_in_thousands() {
        for (bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_049, "1.0 kB"),
            (1_050, "1.1 kB"),
            (20_480, "20 kB"),
            (9_940, "9.9 kB"),
            (9_950, "10 kB"),
            (82_854_982, "83 MB"),
            (8_589_934_592, "8.6 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(bytes_text(bytes), text, "{bytes}");
        }
    }
}
