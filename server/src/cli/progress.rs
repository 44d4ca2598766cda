//! Progress on standard error; nothing where that is no terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

const BAR: &str = "{msg} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const SPINNER: &str = "{msg} {spinner} {elapsed}";
/// How often a spinner turns.
const TURN: Duration = Duration::from_millis(200);

/// How far something has come.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Begins; the total, in bytes, may come later.
    pub(super) fn begin(what: &'static str) -> Progress {
        Progress::drawn(ProgressBar::new(0), BAR, what)
    }

    /// Begins something whose end is not known.
    pub(super) fn begin_endless(what: &'static str) -> Progress {
        let progress = Progress::drawn(ProgressBar::new_spinner(), SPINNER, what);
        // the thread that turns it is not needed where nobody looks
        if !progress.bar.is_hidden() {
            progress.bar.enable_steady_tick(TURN);
        }
        progress
    }

    fn drawn(bar: ProgressBar, form: &str, what: &'static str) -> Progress {
        // the forms are constants, and a test reads them
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Progress { bar }
    }

    /// Tells how far it has come, out of how much.
    pub(super) fn set(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_can_be_drawn_and_positions_are_kept() {
        let progress = Progress::begin("testing");
        progress.set(3, 10);
        assert_eq!((progress.bar.position(), progress.bar.length()), (3, Some(10)));
        for form in [BAR, SPINNER] {
            assert!(ProgressStyle::with_template(form).is_ok(), "{form}");
        }
    }
}
