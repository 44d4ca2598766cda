//! The real binary: started with nothing but free ports, killed, told to stop.

use crate::damage::metric;
use crate::support::{Client, run};
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

const SIGINT: i32 = 2;
pub(crate) const SIGKILL: i32 = 9;
pub(crate) const SIGTERM: i32 = 15;

/// A running process and where it serves. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) endpoint: String,
    /// Entries of the log that were applied again at its start.
    pub(crate) entries_replayed: u64,
    lines: mpsc::Receiver<String>,
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
    command
        .current_dir(directory)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.args(["--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls=http://127.0.0.1:0"]);
    command
}

impl Process {
    /// Starts it in `directory` and waits until it says that it serves.
    pub(crate) fn start(directory: &Path, flags: &[&str]) -> Process {
        Process::start_by(command(directory).args(flags))
    }

    fn start_by(command: &mut Command) -> Process {
        let mut child = command.spawn().expect("the binary starts");
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut process = Process { child, endpoint: String::new(), entries_replayed: 0, lines };
        let line = process.wait_for("opened page file and log");
        let entries =
            line.split("\"entries-replayed\":").nth(1).and_then(|rest| rest.split([',', '}']).next());
        process.entries_replayed = entries.unwrap().parse().unwrap();
        process.wait_for("ready to serve client requests");
        let line = process.wait_for("serving client traffic insecurely");
        let address = line.split("\"address\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        process.endpoint = format!("http://{address}");
        process
    }

    /// The first line that says this.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(crate::support::PATIENCE) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("{error}; it said {seen:#?}"),
            }
        }
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    fn signal(&self, signal: i32) {
        let signal = match signal {
            SIGINT => rustix::process::Signal::INT,
            SIGKILL => rustix::process::Signal::KILL,
            _ => rustix::process::Signal::TERM,
        };
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Memory of its own, in bytes: without what it maps of files.
    pub(crate) fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a running process");
        let kib: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib * 1024
    }

    /// Waits until it ends by itself; its exit code.
    pub(crate) fn exit_code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Sends a signal and tells which one ended it.
    pub(crate) fn end(mut self, signal: i32) -> Option<i32> {
        self.signal(signal);
        self.child.wait().unwrap().signal()
    }
}

/// Starts one that must not come to serve; its exit code and what it said.
pub(crate) fn refused_start(directory: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let output = command(directory).args(flags).output().expect("the binary starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_starts_without_being_told_anything_and_stops_as_told() {
    let temporary = tempfile::tempdir().unwrap();
    for signal in [SIGTERM, SIGINT] {
        let process = Process::start(temporary.path(), &[]);
        run(async {
            let mut client = Client::connect(&process.endpoint).await;
            client.put("k", "v").await;
        });
        assert!(temporary.path().join("default.coffer").is_dir());
        assert_eq!(process.end(signal), Some(signal), "it dies by the signal, as etcd does");
    }
}

#[test]
fn what_takes_long_to_be_applied_is_warned_about_and_counted() {
    let temporary = tempfile::tempdir().unwrap();
    let mut process = Process::start(temporary.path(), &["--warning-apply-duration=1ns"]);
    run(async {
        let mut client = Client::connect(&process.endpoint).await;
        client.put("not told in the log", "v").await;
        client.get("k").await;
    });
    let line = loop {
        let line = process.wait_for("apply request took too long");
        if line.contains("\"request\":\"Put\"") {
            break line;
        }
    };
    assert!(line.contains("\"expected-duration\":\"1ns\"") && !line.contains("not told"), "{line}");
    assert!(metric(&process.endpoint, "etcd_server_slow_apply_total") >= 1);
    let put = "etcd_server_apply_duration_seconds_count{op=\"Put\",success=\"true\",version=\"v3\"}";
    assert_eq!(metric(&process.endpoint, put), 1);
    assert_eq!(metric(&process.endpoint, "etcd_server_range_duration_seconds_count{success=\"true\"}"), 1);
    assert_eq!(process.end(SIGTERM), Some(SIGTERM));
}

#[test]
fn two_processes_on_one_directory_are_one_too_many() {
    let temporary = tempfile::tempdir().unwrap();
    let first = Process::start(temporary.path(), &[]);
    let second = command(temporary.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("in use by another process"), "{said}");
    assert_eq!(first.end(SIGTERM), Some(SIGTERM));
}

#[test]
fn a_bad_flag_exits_with_2_and_a_bad_configuration_with_1() {
    let temporary = tempfile::tempdir().unwrap();
    let exit = |flag: &str| command(temporary.path()).arg(flag).output().unwrap().status.code();
    assert_eq!(exit("--no-such-flag"), Some(2));
    assert_eq!(exit("--election-timeout=1"), Some(1));
}

#[test]
fn the_service_manager_is_told_when_it_serves_and_when_it_stops() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let told = || {
        let mut message = [0; 64];
        let bytes = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..bytes]).into_owned()
    };
    let process = Process::start_by(command(temporary.path()).env("NOTIFY_SOCKET", &path));
    assert_eq!(told(), "READY=1");
    run(async { Client::connect(&process.endpoint).await.put("k", "v").await });
    assert_eq!(process.end(SIGTERM), Some(SIGTERM));
    assert_eq!(told(), "STOPPING=1");
}
