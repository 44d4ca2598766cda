//! Processes that end with whoever started them: at the end of a scope, and when this process is asked to end.

use crate::load::Failed;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Lines of a log that an error shows.
const LOG_LINES: usize = 15;

/// The processes that run.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process whose output goes to a log. It is killed when this is dropped.
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it says is appended to `log`.
    pub(super) fn start(command: &mut Command, log: &Path) -> Result<Process, Failed> {
        let out = OpenOptions::new().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let mut running = running();
        let child =
            command.spawn().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        running.push(child.id());
        Ok(Process { child, log: log.to_owned() })
    }

    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `found` finds something in its log.
    ///
    /// # Errors
    /// It ended, or nothing was found within `limit`.
    pub(super) fn await_log<T>(
        &mut self,
        limit: Duration,
        found: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Failed> {
        let begun = Instant::now();
        loop {
            if let Some(value) = std::fs::read_to_string(&self.log)?.lines().find_map(&found) {
                return Ok(value);
            }
            self.still_there()?;
            if begun.elapsed() > limit {
                return Err(self.error("does not say where it listens"));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// An error if it has ended.
    pub(super) fn still_there(&mut self) -> Result<(), Failed> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.error(&format!("ended by itself ({status})"))),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It still ran after `limit` and was killed.
    pub(super) fn wait(mut self, limit: Duration) -> Result<ExitStatus, Failed> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(LOOK);
        }
        Err(self.error(&format!("was not done after {} s", limit.as_secs())))
    }

    /// Asks it to end and waits for that, but not longer than `limit`.
    pub(super) fn stop(self, limit: Duration) -> Result<(), Failed> {
        signal("TERM", self.pid());
        self.wait(limit).map(drop)
    }

    /// `what` it did, and the end of its log.
    pub(super) fn error(&self, what: &str) -> Failed {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        format!("process {} {what}\n{end}", self.pid()).into()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // from here on its number may be somebody else's
        running().retain(|pid| *pid != self.child.id());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The shell's own, because std only knows how to kill.
fn signal(name: &str, pid: u32) {
    let script = format!("kill -{name} {pid}");
    drop(Command::new("/bin/sh").args(["-c", &script]).stderr(Stdio::null()).status());
}

/// From now on an interrupt or a request to end kills what was started, and then ends this process.
pub(super) fn end_all_on_signals() -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            // held to the end: nothing is started any more
            let running = running();
            for pid in running.iter() {
                self::signal("KILL", *pid);
            }
            std::process::exit(130);
        });
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (Process, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::start(Command::new("/bin/sh").args(["-c", script]), &dir.path().join("log"));
        (process.unwrap(), dir)
    }

    #[test]
    fn a_process_says_where_it_is_and_is_stopped() {
        let (mut process, _dir) = shell("echo listening on here; exec sleep 100");
        let place = process
            .await_log(Duration::from_secs(60), |line| line.strip_prefix("listening on ").map(str::to_owned));
        assert_eq!(place.unwrap(), "here");
        process.stop(Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn one_that_ended_is_told_with_the_end_of_its_log() {
        let (mut process, _dir) = shell("echo out of luck; exit 3");
        let error = process.await_log(Duration::from_secs(60), |_| None::<()>).unwrap_err().to_string();
        assert!(error.contains("out of luck") && error.contains("ended by itself"), "{error}");
    }

    #[test]
    fn a_process_is_gone_when_it_is_dropped() {
        let (process, _dir) = shell("exec sleep 100");
        let pid = process.pid();
        assert!(running().contains(&pid));
        drop(process);
        assert!(!running().contains(&pid));
        assert!(!Path::new(&format!("/proc/{pid}/fd/0")).exists());
    }
}
