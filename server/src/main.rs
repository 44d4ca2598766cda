//! The binary `coffer`: arguments in, exit code out.
//!
//! 2 for arguments that cannot be read, 1 for a configuration that cannot be run and for a fault; a signal ends the
//! process as that signal does, after an orderly stop, as etcd's ends.

use coffer_server::config::{self, Config, LogLevel, Start};
use coffer_server::logging;
use coffer_server::member::Member;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(code) = coffer_server::cli::run() {
        return code;
    }
    match config::from_process() {
        Ok(Start::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Start::Run(config)) => run(*config),
        Err(failure) => {
            logging::say_failure(&failure);
            ExitCode::from(u8::try_from(failure.exit_code).unwrap_or(1))
        }
    }
}

/// Runs a member until it is told to stop.
fn run(config: Config) -> ExitCode {
    if let Err(error) = logging::init(&config.log) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    tracing::info!(args = ?logging::json(&args), "Running: ");
    logging::say_notes(&config.notes);
    take_file_size_limit_as_an_error();
    if let Err(error) = coffer_engine::disk::name_bus_errors() {
        tracing::warn!(error = %error, "a page file cut short would end this process without a word");
    }
    logging::say(LogLevel::Info, "starting an etcd server", config.begin.iter().cloned());
    let member = match Member::start(config, Box::new(end_by_fault)) {
        Ok(member) => member,
        Err(error) => {
            tracing::error!(error = %error, "failed to start coffer");
            return ExitCode::FAILURE;
        }
    };
    tell_service_manager("READY=1");
    match wait_for_signal() {
        Ok(number) => {
            tell_service_manager("STOPPING=1");
            let name =
                if number == SignalKind::interrupt().as_raw_value() { "interrupt" } else { "terminated" };
            tracing::info!(signal = name, "received signal; shutting down");
            member.stop();
            tracing::info!(signal = name, "stopped");
            end_by_signal(number)
        }
        Err(error) => {
            tracing::error!(error = %error, "failed to wait for signals");
            member.stop();
            ExitCode::FAILURE
        }
    }
}

/// Tells systemd, or who else has set `NOTIFY_SOCKET`, how it stands (sd_notify(3); etcd does so, too).
fn tell_service_manager(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let tell = || {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.send(state.as_bytes())
    };
    if let Err(error) = tell() {
        tracing::warn!(error = %error, "failed to notify the service manager");
    }
}

/// A file that may not grow any more (`ulimit -f`) is like a full disk: the call that tells so is enough, the signal that
/// comes with it must not end the process.
fn take_file_size_limit_as_an_error() {
    let met = Arc::default();
    if let Err(error) = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, met) {
        tracing::warn!(error = %error, "a limit on the size of files would end this process");
    }
}

/// The core thread met something it cannot go on with: say what (file, offset, expected, found), and end at once, so
/// that nothing is answered any more.
fn end_by_fault(error: coffer_raftlog::error::Error) {
    tracing::error!(error = %error, "the member cannot go on");
    std::process::exit(1);
}

/// Waits for SIGTERM or SIGINT; which one came.
fn wait_for_signal() -> std::io::Result<i32> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => Ok(SignalKind::terminate().as_raw_value()),
            _ = interrupt.recv() => Ok(SignalKind::interrupt().as_raw_value()),
        }
    })
}

/// Ends as the signal's default action does, so that whoever waits sees which it was. The first process of a container
/// has no default action; it ends with 0, as etcd does.
fn end_by_signal(number: i32) -> ExitCode {
    if std::process::id() != 1 {
        // Comes back only if the system refused; then the exit code says what a shell would.
        let _ = signal_hook::low_level::emulate_default_handler(number);
        return ExitCode::from(u8::try_from(128 + number).unwrap_or(1));
    }
    ExitCode::SUCCESS
}
