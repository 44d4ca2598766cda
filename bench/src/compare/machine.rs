//! Where and when it was measured.

use crate::load::Failed;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Year, month, day and seconds into it, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) year: i64,
    pub(super) month: u32,
    pub(super) day: u32,
    pub(super) seconds: u64,
}

impl Moment {
    pub(super) fn now() -> Moment {
        Moment::at(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }

    /// The Gregorian calendar, counted in years that begin with March, so that a leap day comes last.
    fn at(seconds: u64) -> Moment {
        let days = (seconds / 86_400) as i64 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Moment {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: month as u32,
            day: (day_of_year - (153 * shifted + 2) / 5 + 1) as u32,
            seconds: seconds % 86_400,
        }
    }

    /// `2026-11-24`.
    pub(super) fn date(&self) -> String {
        format!("{}-{:02}-{:02}", self.year, self.month, self.day)
    }

    /// `18:05 UTC`.
    pub(super) fn time(&self) -> String {
        format!("{:02}:{:02} UTC", self.seconds / 3_600, self.seconds / 60 % 60)
    }
}

/// The commit's short name, and whether files differ from it. `None` outside a checkout.
pub(super) fn commit() -> Option<(String, bool)> {
    let git = |arguments: &[&str]| {
        let said = Command::new("git").args(arguments).output().ok()?;
        said.status.success().then(|| String::from_utf8_lossy(&said.stdout).trim().to_owned())
    };
    let name = git(&["rev-parse", "--short=8", "HEAD"])?;
    let differs = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some((name, !differs.is_empty()))
}

fn read(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Processor, cores, memory.
pub(super) fn machine() -> String {
    let processors = read("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or(std::env::consts::ARCH, |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = read("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<f64>().ok());
    let memory = kib.map_or(String::new(), |kib| format!(", {:.0} GiB of memory", kib / 1_048_576.0));
    format!("{model}, {cores} cores{memory}")
}

/// Linux and its release.
pub(super) fn kernel() -> String {
    format!("Linux {}", read("/proc/sys/kernel/osrelease").unwrap_or_default())
}

/// File system and device that `directory` lies on.
pub(super) fn disk(directory: &Path) -> Result<String, Failed> {
    let directory = directory.canonicalize()?;
    let mounts = read("/proc/self/mountinfo").unwrap_or_default();
    let mount = mounts
        .lines()
        .filter_map(Mount::parse)
        .filter(|mount| directory.starts_with(&mount.place))
        // the last of those as deep: it covers the others
        .enumerate()
        .max_by_key(|(number, mount)| (mount.place.len(), *number));
    Ok(mount.map_or("not known".to_owned(), |(_, mount)| mount.text()))
}

/// A line of mountinfo.
struct Mount {
    place: String,
    /// Major and minor number.
    device: String,
    kind: String,
    source: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Mount> {
        let (before, after) = line.split_once(" - ")?;
        let (before, after): (Vec<&str>, Vec<&str>) =
            (before.split(' ').collect(), after.split(' ').collect());
        let field = |fields: &[&str], number: usize| Some((*fields.get(number)?).to_owned());
        Some(Mount {
            device: field(&before, 2)?,
            place: field(&before, 4)?,
            kind: field(&after, 0)?,
            source: field(&after, 1)?,
        })
    }

    fn text(&self) -> String {
        let about = format!("/sys/dev/block/{}", self.device);
        // a partition's facts stand with the disk that it is on
        let fact = |name: &str| {
            [format!("{about}/{name}"), format!("{about}/../{name}")].iter().find_map(|path| read(path))
        };
        let mut text = format!("{} on {}", self.kind, self.source);
        for name in ["device/model", "device/vendor"] {
            if let Some(model) = fact(name).filter(|model| !model.is_empty() && !model.starts_with("0x")) {
                text.push_str(&format!(", {model}"));
                break;
            }
        }
        match fact("queue/rotational").as_deref() {
            Some("0") => text.push_str(", not rotating"),
            Some("1") => text.push_str(", rotating, or not told"),
            _ => {}
        }
        if let Some(cache) = fact("queue/write_cache") {
            text.push_str(&format!(", {cache} cache"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_over_leap_years() {
        let date = |days: u64| Moment::at(days * 86_400).date();
        assert_eq!(
            [date(0), date(59), date(11_016), date(11_017)],
            ["1970-01-01", "1970-03-01", "2000-02-29", "2000-03-01"]
        );
        assert_eq!(date(20_781), "2026-11-24");
        assert_eq!(Moment::at(20_781 * 86_400 + 65_100).time(), "18:05 UTC");
    }

    #[test]
    fn a_mount_is_read_from_its_line() {
        let line = "29 1 254:0 / /var rw,relatime shared:1 - ext4 /dev/vda1 rw,discard";
        let mount = Mount::parse(line).unwrap();
        assert_eq!(
            (&mount.place[..], &mount.device[..], &mount.kind[..], &mount.source[..]),
            ("/var", "254:0", "ext4", "/dev/vda1")
        );
        assert!(Mount::parse("nothing of this kind").is_none());
    }

    #[test]
    fn this_machine_has_a_processor_a_kernel_and_a_disk() {
        assert!(machine().contains("cores") && !kernel().is_empty());
        assert!(!disk(&std::env::temp_dir()).unwrap().is_empty());
    }
}
