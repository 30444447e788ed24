//! The parts that every service shares: the store, the runtime, the pods and containers that are known, and the tasks under way.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use slipway_builder::{Builder, BuilderConfig};
use slipway_image::{Lease, Store};
use slipway_runtime::{Owner, Runtime};
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::disk::LastScan;
use crate::error::{Error, Result};
use crate::names::Names;
use crate::records::{ContainerRecord, PodRecord, hex};

/// The node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) runtime: Runtime,
    pub(crate) builder: Builder,
    pub(crate) tasks: TaskTracker,
    pub(crate) pods: Table<Pod>,
    pub(crate) containers: Table<Container>,
    pub(crate) pod_names: Names,
    pub(crate) container_names: Names,
    /// The last scan of the disk usage of containers.
    pub(crate) last_scan: LastScan,
    ending: AtomicBool,
}

impl Node {
    pub(crate) fn new(config: Config, store: Store, runtime: Runtime) -> Result<Self> {
        let tasks = TaskTracker::new();
        let scratch = config.root.join("build");
        let builder = Builder::new(store.clone(), runtime.clone(), BuilderConfig { scratch })?;
        Ok(Self {
            builder,
            pods: Table::new("pod"),
            containers: Table::new("container"),
            pod_names: Names::new("pod", tasks.clone()),
            container_names: Names::new("container", tasks.clone()),
            last_scan: LastScan::default(),
            ending: AtomicBool::new(false),
            config,
            store,
            runtime,
            tasks,
        })
    }

    /// Stops the walks over large trees: the daemon is told to end.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// The directory of a pod or container below the root.
    pub(crate) fn directory(&self, group: &str, id: &str) -> PathBuf {
        self.config.root.join(group).join(id)
    }

    /// A word for whether a container is there, or being removed.
    pub(crate) fn phase(&self, container: &Container) -> &'static str {
        if self.runtime.is_container_removed(&container.record.id) { "removing" } else { "live" }
    }

    /// Whether the daemon is told to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Does work in a task of its own, which the end of the caller does not end, and waits for it.
    pub(crate) async fn detached<T, F>(&self, what: &str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.tasks.spawn(work).await.map_err(|_| Error::Lost { what: what.to_owned() })?
    }

    /// Calls into the store or the runtime, which may block.
    pub(crate) async fn blocking<T, E, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        E: Send + 'static,
        Error: From<E>,
        F: FnOnce() -> Result<T, E> + Send + 'static,
    {
        let done = self.tasks.spawn_blocking(work).await;
        done.map_err(|_| Error::Lost { what: "a call".to_owned() })?.map_err(Error::from)
    }
}

/// A pod that is known.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) record: PodRecord,
    /// Held while it is stopped or removed.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl Pod {
    pub(crate) fn new(record: PodRecord) -> Self {
        Self { record, turn: tokio::sync::Mutex::default() }
    }

    pub(crate) fn id(&self) -> &str {
        self.record.id.as_str()
    }
}

/// A container that is known.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) record: ContainerRecord,
    /// Held while it is started or removed.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Read-locked by attached clients; what ends its pod by itself waits for them.
    pub(crate) streams: Arc<tokio::sync::RwLock<()>>,
    /// Told when it has ended.
    pub(crate) over: tokio::sync::Notify,
    /// Keeps the image's layers; absent when they were lost.
    _lease: Option<Lease>,
}

impl Container {
    pub(crate) fn new(record: ContainerRecord, lease: Option<Lease>) -> Self {
        let (turn, streams, over) = Default::default();
        Self { record, turn, streams, over, _lease: lease }
    }

    pub(crate) fn id(&self) -> &str {
        self.record.id.as_str()
    }
}

/// A row of a table: it has an owner and a name.
pub(crate) trait Owned {
    fn owner(&self) -> Owner;
    fn name(&self) -> &str;
}

impl Owned for Pod {
    fn owner(&self) -> Owner {
        self.record.owner
    }

    fn name(&self) -> &str {
        &self.record.name
    }
}

impl Owned for Container {
    fn owner(&self) -> Owner {
        self.record.owner
    }

    fn name(&self) -> &str {
        &self.record.name
    }
}

/// Pods or containers by their ids.
#[derive(Debug)]
pub(crate) struct Table<T> {
    kind: &'static str,
    rows: RwLock<BTreeMap<String, Arc<T>>>,
}

impl<T: Owned> Table<T> {
    fn new(kind: &'static str) -> Self {
        Self { kind, rows: RwLock::default() }
    }

    pub(crate) fn insert(&self, id: &str, row: T) -> Arc<T> {
        let row = Arc::new(row);
        self.rows.write().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), row.clone());
        row
    }

    pub(crate) fn remove(&self, id: &str) {
        self.rows.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Every row.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The CRI's rows: no one else's are to be seen by its client.
    pub(crate) fn cri(&self) -> Vec<Arc<T>> {
        self.all().into_iter().filter(|row| row.owner() == Owner::Cri).collect()
    }

    /// The CRI's row of this id or unique prefix of one.
    pub(crate) fn find_cri(&self, id: &str) -> Result<Arc<T>> {
        self.find_by(id, |row| row.owner() == Owner::Cri)
    }

    /// The same for who wants it gone: none when it is not there.
    pub(crate) fn left_of_cri(&self, id: &str) -> Result<Option<Arc<T>>> {
        match self.find_cri(id) {
            Err(error) if error.is_not_found() => Ok(None),
            found => found.map(Some),
        }
    }

    /// Any owner's row of this id, name, or unique prefix of an id: a name may be the beginning of another's id.
    pub(crate) fn find(&self, id: &str) -> Result<Arc<T>> {
        let named = {
            let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
            let named = || rows.values().find(|row| row.owner() != Owner::Cri && row.name() == id);
            rows.get(id).or_else(named).cloned()
        };
        named.map_or_else(|| self.find_by(id, |_| true), Ok)
    }

    fn find_by(&self, id: &str, wanted: impl Fn(&T) -> bool) -> Result<Arc<T>> {
        if id.is_empty() {
            return Err(Error::invalid(format!("{}_id", self.kind), "it is empty"));
        }
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = rows.get(id).filter(|row| wanted(row)) {
            return Ok(row.clone());
        }
        let from = rows.range(id.to_owned()..).take_while(|(key, _)| key.starts_with(id));
        let found: Vec<_> = from.map(|(_, row)| row).filter(|row| wanted(row)).collect();
        match found.as_slice() {
            [] => Err(self.absent(id)),
            [row] => Ok(Arc::clone(row)),
            several => Err(Error::Ambiguous { kind: self.kind, id: id.to_owned(), count: several.len() }),
        }
    }

    fn absent(&self, id: &str) -> Error {
        Error::NotFound { kind: self.kind, id: id.to_owned() }
    }
}

/// A fresh id: 64 hexadecimal digits.
pub(crate) fn fresh_id() -> Result<String> {
    let mut bytes = [0_u8; 32];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())
            .map_err(Error::io("read random bytes from", "getrandom(2)"))?;
    }
    Ok(hex(&bytes))
}

/// Now, in nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Locks what no panic can leave half-made.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
