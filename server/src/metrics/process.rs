//! What the kernel knows of this process, read from `/proc/self`.
//!
//! What cannot be read (another system, a sandbox) is left out rather than told as 0.

use super::exposition::{Page, whole};
use std::fs;

/// The kernel's unit of time in `/proc/self/stat`, per second; it has been 100 on Linux for all architectures.
const CLOCK_TICKS_PER_SECOND: f64 = 100.0;

/// Fields of `/proc/self/stat` that are told.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name in parentheses may hold anything, a parenthesis included; numbers follow the last one.
    let rest = text.get(text.rfind(')')? + 1..)?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Numbered from 3 (state) in proc(5).
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_ticks: field(14)?.saturating_add(field(15)?),
        threads: field(20)?,
        start_ticks: field(22)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

/// The soft limit of a line of `/proc/self/limits`; `None` for "unlimited".
fn parse_limit(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.get(name.len()..)?.split_ascii_whitespace().next()?.parse().ok()
}

/// Seconds since 1970 at which the system booted.
fn parse_boot_time(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Bytes received and sent over IP in this network namespace, the loopback included, as etcd tells them.
fn parse_network(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().filter(|line| line.starts_with("IpExt:")).collect::<Vec<_>>();
    let [names, values] = line.as_slice() else { return None };
    let value = |wanted: &str| {
        let place = names.split_ascii_whitespace().position(|name| name == wanted)?;
        values.split_ascii_whitespace().nth(place)?.parse::<u64>().ok()
    };
    Some((value("InOctets")?, value("OutOctets")?))
}

/// Adds what can be read.
pub(super) fn add(page: &mut Page) {
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().and_then(|text| parse_stat(&text)) {
        add_stat(page, &stat);
    }
    if let Ok(limits) = fs::read_to_string("/proc/self/limits") {
        if let Some(files) = parse_limit(&limits, "Max open files") {
            page.gauge("process_max_fds", "Most open file descriptors.", &[], whole(files));
            page.gauge("os_fd_limit", "Most open file descriptors.", &[], whole(files));
        }
        let memory = parse_limit(&limits, "Max address space").unwrap_or(u64::MAX);
        page.gauge("process_virtual_memory_max_bytes", "Most virtual memory in bytes.", &[], whole(memory));
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // The directory being listed is one of them.
        let open = whole((entries.count() as u64).saturating_sub(1));
        page.gauge("process_open_fds", "Open file descriptors.", &[], open);
        page.gauge("os_fd_used", "Open file descriptors.", &[], open);
    }
    if let Some((received, sent)) =
        fs::read_to_string("/proc/self/net/netstat").ok().and_then(|text| parse_network(&text))
    {
        page.counter(
            "process_network_receive_bytes_total",
            "Bytes received in this network namespace.",
            &[],
            received,
        );
        page.counter(
            "process_network_transmit_bytes_total",
            "Bytes sent in this network namespace.",
            &[],
            sent,
        );
    }
}

fn add_stat(page: &mut Page, stat: &Stat) {
    let page_bytes = rustix::param::page_size() as u64;
    let cpu = whole(stat.cpu_ticks) / CLOCK_TICKS_PER_SECOND;
    page.value(
        super::exposition::Kind::Counter,
        "process_cpu_seconds_total",
        "Processor time used, in seconds.",
        &[],
        cpu,
    );
    page.gauge(
        "process_resident_memory_bytes",
        "Memory in use, in bytes.",
        &[],
        whole(stat.resident_pages.saturating_mul(page_bytes)),
    );
    page.gauge("process_virtual_memory_bytes", "Virtual memory, in bytes.", &[], whole(stat.virtual_bytes));
    // etcd's name for the number of system threads.
    page.gauge("go_threads", "Threads of the process.", &[], whole(stat.threads));
    if let Some(boot) = fs::read_to_string("/proc/stat").ok().and_then(|text| parse_boot_time(&text)) {
        let start = whole(boot) + whole(stat.start_ticks) / CLOCK_TICKS_PER_SECOND;
        page.gauge(
            "process_start_time_seconds",
            "When the process began, in seconds since 1970.",
            &[],
            start,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_numbers() {
        let text = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 12345 4096000 321 1844";
        let stat = parse_stat(text);
        assert_eq!(
            stat,
            Some(Stat {
                cpu_ticks: 200,
                threads: 9,
                start_ticks: 12345,
                virtual_bytes: 4_096_000,
                resident_pages: 321
            })
        );
        assert_eq!(parse_stat("7 (a"), None);
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[test]
    fn a_limit_that_is_unlimited_has_no_number() {
        let text = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\nMax address space         unlimited            unlimited            bytes\n";
        assert_eq!(parse_limit(text, "Max open files"), Some(1024));
        assert_eq!(parse_limit(text, "Max address space"), None);
    }

    #[test]
    fn network_bytes_are_found_by_the_names_of_their_columns() {
        let text = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 5 600 700\n";
        assert_eq!(parse_network(text), Some((600, 700)));
        assert_eq!(parse_network("IpExt: InOctets\n"), None);
    }
}
