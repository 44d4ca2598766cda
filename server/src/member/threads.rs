//! The serving threads and the accept thread: each a current-thread runtime of its own.

use super::probe::ThreadProbe;
use super::{Faults, Stop};
use crate::accept::{self, Accepted, Doors, Listener};
use crate::http::{self, HttpState};
use crate::rpc::door::Door;
use crate::serving::{Serving, Shared, pump};
use coffer_raftlog::error::Error as LogError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

type Task = Box<dyn FnOnce(Arc<Serving>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// One serving thread, from outside.
struct Thread {
    serving: Arc<Serving>,
    connections: Option<mpsc::UnboundedSender<Accepted>>,
    tasks: mpsc::UnboundedSender<Task>,
    handle: Option<JoinHandle<()>>,
}

/// All threads of a member but the core thread.
pub(super) struct Threads {
    threads: Vec<Thread>,
    accept: Option<JoinHandle<()>>,
    /// Told to listeners.
    stop_accepting: Stop,
    /// Told to connections.
    stop_serving: Stop,
    /// Told to threads: how long connections may take to end.
    cut: watch::Sender<Duration>,
}

/// Threads beside a serving thread, for what takes long: ranges of many keys, cold pages, hashes, snapshots.
const BLOCKING_THREADS_MAX: usize = 16;

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS_MAX).build()
}

impl Threads {
    /// Starts a serving thread for each of `servings`.
    pub(super) fn start(
        shared: &Arc<Shared>,
        servings: Vec<Arc<Serving>>,
        faults: &Arc<Faults>,
    ) -> io::Result<Threads> {
        let mut threads = Threads {
            threads: Vec::new(),
            accept: None,
            stop_accepting: watch::Sender::new(false),
            stop_serving: watch::Sender::new(false),
            cut: watch::Sender::new(shared.config.shutdown_timeout),
        };
        for (number, serving) in servings.into_iter().enumerate() {
            let thread = threads.start_one(number, serving, Arc::clone(faults));
            match thread {
                Ok(thread) => threads.threads.push(thread),
                Err(error) => {
                    threads.stop(Duration::ZERO);
                    return Err(error);
                }
            }
        }
        Ok(threads)
    }

    fn start_one(&self, number: usize, serving: Arc<Serving>, faults: Arc<Faults>) -> io::Result<Thread> {
        let (connections, incoming) = mpsc::unbounded_channel();
        let (tasks, queue) = mpsc::unbounded_channel();
        let runtime = runtime()?;
        let (stop, cut) = (self.stop_serving.subscribe(), self.cut.subscribe());
        let own = Arc::clone(&serving);
        let handle = std::thread::Builder::new().name(format!("serving-{number}")).spawn(move || {
            let pump = pump(Arc::clone(&own));
            runtime.block_on(run(own, pump, incoming, queue, stop, cut, &faults));
            // what still blocks a thread reads for somebody who has gone: nothing is lost with it
            runtime.shutdown_background();
        })?;
        Ok(Thread { serving, connections: Some(connections), tasks, handle: Some(handle) })
    }

    /// Runs something on the first serving thread.
    pub(super) fn run_on_first<F>(&self, task: impl FnOnce(Arc<Serving>) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(first) = self.threads.first() {
            // A thread that has ended drops the task, and whoever waits for it learns that.
            let _ = first.tasks.send(Box::new(move |serving| Box::pin(task(serving))));
        }
    }

    /// Starts accepting.
    pub(super) fn accept(&mut self, listeners: Vec<Listener>, connections_max: usize) -> io::Result<()> {
        let runtime = runtime()?;
        let senders = self.threads.iter().filter_map(|thread| thread.connections.clone()).collect();
        let stop = self.stop_accepting.subscribe();
        let handle = std::thread::Builder::new()
            .name("accept".to_owned())
            .spawn(move || runtime.block_on(accept::accept(listeners, senders, connections_max, stop)))?;
        self.accept = Some(handle);
        Ok(())
    }

    /// Stops accepting, then serving; after `patience` what still runs is cut.
    pub(super) fn stop(&mut self, patience: Duration) {
        self.stop_accepting.send_replace(true);
        join(self.accept.take());
        self.cut.send_replace(patience);
        self.stop_serving.send_replace(true);
        for thread in &mut self.threads {
            thread.serving.wake_streams();
            thread.connections = None;
        }
        for thread in &mut self.threads {
            join(thread.handle.take());
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

fn join(handle: Option<JoinHandle<()>>) {
    if let Some(handle) = handle
        && handle.join().is_err()
    {
        tracing::error!("a serving thread panicked");
    }
}

/// One serving thread: pump, tasks and connections, until there will be no more of them.
async fn run(
    serving: Arc<Serving>,
    pump: impl Future<Output = ()> + Send + 'static,
    mut incoming: mpsc::UnboundedReceiver<Accepted>,
    mut tasks: mpsc::UnboundedReceiver<Task>,
    mut stop: watch::Receiver<bool>,
    cut: watch::Receiver<Duration>,
    faults: &Faults,
) {
    let mut pumping = tokio::spawn(pump);
    let doors = Arc::new(doors(&serving));
    let protocol = Arc::new(accept::protocol(&serving.shared.config));
    let mut connections = JoinSet::new();
    let told = stop.clone();
    loop {
        tokio::select! {
            accepted = incoming.recv() => match accepted {
                Some(accepted) => {
                    let (doors, protocol) = (Arc::clone(&doors), Arc::clone(&protocol));
                    connections.spawn(accept::serve(accepted, doors, protocol, told.clone()));
                }
                None => break,
            },
            Some(task) = tasks.recv() => {
                tokio::spawn(task(Arc::clone(&serving)));
            }
            Some(_) = connections.join_next() => {}
            ended = &mut pumping => {
                // no answer and no event would come to this thread any more
                let why = ended.err().map_or_else(|| "it returned".to_owned(), |error| error.to_string());
                tracing::error!(error = %why, "the pump of a serving thread ended");
                return faults.tell(LogError::Unusable(format!("the pump of a serving thread ended: {why}")));
            }
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    let patience = *cut.borrow();
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(patience, ended).await.is_err() && !patience.is_zero() {
        tracing::warn!("connections were cut that did not end in time");
    }
    pumping.abort();
}

fn doors(serving: &Arc<Serving>) -> Doors {
    let shared = &serving.shared;
    let probe = Arc::new(ThreadProbe(Arc::clone(serving)));
    let state = HttpState::new(&shared.config, probe, Arc::clone(&shared.metrics));
    let router = http::router(state.clone());
    let split = !shared.config.listen_client_http_urls.is_empty();
    Doors {
        client: Door::new(Arc::clone(serving), (!split).then(|| router.clone())),
        client_http: Door::http_only(Arc::clone(serving), router),
        metrics: Door::http_only(Arc::clone(serving), http::metrics_router(state)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::testing::member;
    use crate::serving::Mailbox;
    use parking_lot::Mutex;
    use std::sync::mpsc as sync;

    #[test]
    fn a_pump_that_ends_is_a_fault_of_the_member() {
        let directory = tempfile::tempdir().unwrap();
        let member = member(&directory.path().join("data"), &[]);
        let serving = Arc::new(Serving::new(Arc::clone(member.shared()), Arc::new(Mailbox::new(9, 1))));
        let (told, fault) = sync::channel();
        let faults = Faults(Mutex::new(Some(Box::new(move |error| told.send(error).unwrap()))));
        let (_connections, incoming) = mpsc::unbounded_channel();
        let (_tasks, queue) = mpsc::unbounded_channel();
        let (stop, cut) = (watch::Sender::new(false), watch::Sender::new(Duration::ZERO));
        let pump = async { panic!("a hub in pieces") };
        let running = run(serving, pump, incoming, queue, stop.subscribe(), cut.subscribe(), &faults);
        let ended = runtime()
            .unwrap()
            .block_on(async { tokio::time::timeout(Duration::from_secs(20), running).await });
        assert!(ended.is_ok());
        let said = fault.try_recv().unwrap().to_string();
        assert!(said.contains("pump") && said.contains("a hub in pieces"), "{said}");
        member.stop();
    }
}
