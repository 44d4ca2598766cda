//! What a process has used, from /proc.

/// CPU and memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// CPU seconds, user and system.
    pub(super) cpu_seconds: f64,
    /// Anonymous memory in bytes.
    pub(super) anonymous_bytes: u64,
    /// All resident memory in bytes, mapped files included.
    pub(super) resident_bytes: u64,
    /// Bytes it has given to the disk, or will have: pages of files it has changed, written at once or later. 0 where the
    /// system does not tell.
    pub(super) written_bytes: u64,
}

impl Usage {
    /// The CPU used and the bytes written since `before`, the memory now.
    pub(super) fn since(&self, before: &Usage) -> Usage {
        Usage {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
            ..*self
        }
    }
}

/// `None` where the process, or /proc, is not there.
pub(super) fn usage(pid: u32) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes:")?.trim().parse().ok());
    // a tick is 1/100 s on every Linux there is
    Some(Usage {
        cpu_seconds: ticks as f64 / 100.0,
        anonymous_bytes: field("RssAnon:"),
        resident_bytes: field("VmRSS:"),
        written_bytes: written.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory() {
        let usage = usage(std::process::id()).expect("this process is there");
        assert!(usage.anonymous_bytes > 0 && usage.resident_bytes >= usage.anonymous_bytes);
    }
}
