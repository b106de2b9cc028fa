//! Keeps the [`View`] up to date from informers and tells which Services changed.
//!
//! Invariant: a key is among the dirty ones from the moment the view holds its change until somebody takes it; many
//! changes of one Service are one key, so the set is bounded by the number of Services.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use client::{Change, Informer, WatchConfig};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use netplan::View;
use tokio::sync::Notify;

/// The Services to plan again.
#[derive(Debug, Default)]
pub struct Dirty {
    keys: Mutex<HashSet<String>>,
    wake: Notify,
}

impl Dirty {
    fn mark(&self, key: String) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        self.wake.notify_one();
    }

    /// Waits until there is something.
    pub async fn wait(&self) {
        self.wake.notified().await;
    }

    pub fn take(&self) -> HashSet<String> {
        std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The running watches; dropping it ends them.
#[derive(Debug)]
pub struct Watches {
    pub view: Arc<RwLock<View>>,
    pub dirty: Arc<Dirty>,
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
    namespaces: Arc<Informer<Namespace>>,
}

impl Watches {
    /// Starts to watch Services, EndpointSlices and namespaces of the whole cluster.
    pub fn spawn(client: &kube::Client) -> Self {
        let view = Arc::new(RwLock::new(View::default()));
        let dirty = Arc::new(Dirty::default());
        let services: Arc<Informer<Service>> = Informer::spawn(client.clone(), WatchConfig::default());
        let slices: Arc<Informer<EndpointSlice>> = Informer::spawn(client.clone(), WatchConfig::default());
        let namespaces: Arc<Informer<Namespace>> = Informer::spawn(client.clone(), WatchConfig::default());

        let (to_view, to_dirty) = (view.clone(), dirty.clone());
        services.on_change(move |change| {
            let exists = matches!(change, Change::Applied { .. });
            let key = write(&to_view).set_service(change.object(), exists);
            to_dirty.mark(key);
        });
        let (to_view, to_dirty) = (view.clone(), dirty.clone());
        slices.on_change(move |change| {
            let exists = matches!(change, Change::Applied { .. });
            let key = write(&to_view).set_slice(change.object(), exists);
            key.into_iter().for_each(|key| to_dirty.mark(key));
        });
        let to_view = view.clone();
        namespaces.on_change(move |change| {
            let exists = matches!(change, Change::Applied { .. });
            if let Some(name) = &change.object().metadata.name {
                write(&to_view).set_namespace(name, exists);
            }
        });
        Self { view, dirty, services, slices, namespaces }
    }

    /// Waits until the view has everything that traffic depends on.
    pub async fn synced(&self) {
        self.services.synced().await;
        self.slices.synced().await;
    }

    /// Waits for the complete list of namespaces (for ever, if we may not read them) and tells the view.
    pub async fn learn_namespaces(&self) {
        self.namespaces.synced().await;
        write(&self.view).set_namespaces_known();
    }
}

fn write(view: &RwLock<View>) -> std::sync::RwLockWriteGuard<'_, View> {
    view.write().unwrap_or_else(PoisonError::into_inner)
}
