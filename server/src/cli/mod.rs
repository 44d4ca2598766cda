//! Sub-commands: backup and restore, and the check of a data directory.
//!
//! ```text
//! coffer snapshot save FILE      asks a running member for an image (as etcdctl does)
//! coffer snapshot status FILE    checks an image and tells what it holds (as etcdutl does)
//! coffer snapshot restore FILE   makes a data directory of it (as etcdutl does)
//! coffer check DIR               checks a data directory that no member is using
//! ```
//! Flags, texts, forms of output and exit codes are those of etcd's tools where they have them. Results go to standard
//! output, errors and progress to standard error; a progress bar is drawn only on a terminal.

mod args;
mod check;
mod print;
mod progress;
mod restore;
mod save;
mod status;

use args::{Arguments, Command, Unread};
use std::process::ExitCode;

/// Exit code for what failed.
const FAILED: u8 = 1;
/// Exit code for an output format that there is not.
const BAD_FEATURE: u8 = 4;
/// Exit code of a transfer that was cut short.
const INTERRUPTED: u8 = 5;
/// Exit code for too few or too many arguments.
const BAD_ARGUMENTS: u8 = 128;

/// Why a command failed, and the exit code that says so.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn new(code: u8, text: impl Into<String>) -> Failure {
        Failure { code, text: text.into() }
    }
}

type Outcome = Result<ExitCode, Failure>;

/// A sub-command: its words, what it takes, what it does.
struct Sub {
    name: &'static str,
    command: &'static Command,
    run: fn(&Arguments) -> Outcome,
    /// Exit code for flags that cannot be read.
    bad_flags: u8,
}

const SNAPSHOT: &[Sub] = &[
    Sub { name: "save", command: &save::COMMAND, run: save::run, bad_flags: FAILED },
    Sub { name: "status", command: &status::COMMAND, run: status::run, bad_flags: FAILED },
    Sub { name: "restore", command: &restore::COMMAND, run: restore::run, bad_flags: FAILED },
];
const CHECK: Sub =
    Sub { name: "check", command: &check::COMMAND, run: check::run, bad_flags: check::UNCHECKED };

const SNAPSHOT_USAGE: &str = "\
Manages snapshots of a member

Usage:
  coffer snapshot [command]

Available Commands:
  restore     Restores a member's snapshot to a data directory
  save        Stores a member's snapshot to a given file
  status      Gets the status of a given snapshot file

Use \"coffer snapshot [command] --help\" for more information about a command.
";

/// Runs the sub-command that the process's arguments name; `None` where they name none, and a member is to be started.
pub fn run() -> Option<ExitCode> {
    // A name that is not UTF-8 would be one of a file; the words before it are not.
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let (first, rest) = arguments.split_first()?;
    match first.as_str() {
        "snapshot" => Some(snapshot(rest)),
        "check" => Some(execute(&CHECK, rest)),
        _ => None,
    }
}

fn snapshot(arguments: &[String]) -> ExitCode {
    let Some((name, rest)) = arguments.split_first() else {
        print!("{SNAPSHOT_USAGE}");
        return ExitCode::SUCCESS;
    };
    match SNAPSHOT.iter().find(|sub| sub.name == name) {
        Some(sub) => execute(sub, rest),
        None if matches!(name.as_str(), "-h" | "--help" | "help") => {
            print!("{SNAPSHOT_USAGE}");
            ExitCode::SUCCESS
        }
        None => {
            eprint!("Error: unknown command {name:?} for \"coffer snapshot\"\n{SNAPSHOT_USAGE}");
            ExitCode::from(FAILED)
        }
    }
}

fn execute(sub: &Sub, arguments: &[String]) -> ExitCode {
    let text = |(key, value): (std::ffi::OsString, std::ffi::OsString)| {
        key.into_string().ok().zip(value.into_string().ok())
    };
    let variables: Vec<(String, String)> = std::env::vars_os().filter_map(text).collect();
    let outcome = match sub.command.read(arguments, &variables) {
        Ok(arguments) => (sub.run)(&arguments),
        Err(Unread::Help) => {
            print!("{}", sub.command.help());
            return ExitCode::SUCCESS;
        }
        Err(Unread::Wrong(text)) => {
            eprintln!("Error: {text}\n{}", sub.command.help());
            return ExitCode::from(sub.bad_flags);
        }
    };
    outcome.unwrap_or_else(|failure| {
        eprintln!("Error: {}", failure.text);
        ExitCode::from(failure.code)
    })
}

/// The one word that a command takes.
fn one_word<'a>(arguments: &'a Arguments, or_else: &str) -> Result<&'a str, Failure> {
    match &arguments.words[..] {
        [word] => Ok(word),
        _ => Err(Failure::new(BAD_ARGUMENTS, or_else)),
    }
}

/// Bytes as Go prints a list of them.
fn go_list(bytes: &[u8]) -> String {
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", numbers.join(" "))
}
