//! A steady load of writes and reads on one API server: what was acknowledged, and the longest that anybody waited.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::{Clock, SystemClock};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::process::PATIENCE;

/// One client that creates ConfigMaps, one after the other, and reads each back.
pub struct Writer {
    acknowledged: watch::Receiver<usize>,
    is_measured: Arc<AtomicBool>,
    stop: CancellationToken,
    task: JoinHandle<Written>,
}

pub struct Written {
    /// Names of what was acknowledged.
    pub names: Vec<String>,
    /// From the begin of a write or read to its success, attempts that failed included; of those that ended after
    /// [`Writer::measure`].
    pub longest: Duration,
}

impl Writer {
    /// Names begin with `prefix`.
    pub fn start(maps: kube::Api<ConfigMap>, prefix: String) -> Self {
        let (count, acknowledged) = watch::channel(0);
        let (stop, is_measured) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(write(maps, prefix, (count, is_measured.clone()), stop.clone()));
        Self { acknowledged, is_measured, stop, task }
    }

    /// Waits until so many more writes are acknowledged, for each as long as for anything.
    pub async fn more(&mut self, writes: usize) {
        let before = *self.acknowledged.borrow();
        for goal in before + 1..=before + writes {
            let reached = self.acknowledged.wait_for(|count| *count >= goal);
            tokio::time::timeout(PATIENCE, reached).await.expect("writes go on").expect("the writer lives");
        }
    }

    /// From now on it counts how long things take.
    pub fn measure(&self) {
        self.is_measured.store(true, Ordering::SeqCst);
    }

    pub async fn end(self) -> Written {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

async fn write(
    maps: kube::Api<ConfigMap>,
    prefix: String,
    (count, is_measured): (watch::Sender<usize>, Arc<AtomicBool>),
    stop: CancellationToken,
) -> Written {
    let clock = SystemClock::new();
    let mut written = Written { names: Vec::new(), longest: Duration::ZERO };
    while !stop.is_cancelled() {
        let name = format!("{prefix}-{}", written.names.len());
        let began = clock.monotonic();
        while !create(&maps, &name).await {
            tokio::task::yield_now().await;
        }
        let wrote = clock.monotonic();
        // Whatever a server has acknowledged, it shows.
        maps.get(&name).await.unwrap();
        if is_measured.load(Ordering::SeqCst) {
            written.longest = written.longest.max(wrote - began).max(clock.monotonic() - wrote);
        }
        written.names.push(name);
        count.send_replace(written.names.len());
    }
    written
}

/// Whether it is there. An earlier attempt, whose answer was lost, may have made it.
pub async fn create(maps: &kube::Api<ConfigMap>, name: &str) -> bool {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    match maps.create(&PostParams::default(), &map).await {
        Err(kube::Error::Api(status)) => status.code == 409,
        created => created.is_ok(),
    }
}
