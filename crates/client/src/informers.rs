//! One informer a kind, shared by all that read it in this process.
//!
//! Invariant: two askers for the same kind get the same informer over all namespaces and all objects of it. Whoever
//! needs a selector makes an [`Informer`] of their own.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::Client;
use reconcile::Object;

use crate::informer::Informer;

/// See the module's text.
pub struct Informers {
    client: Client,
    started: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Informers {
    pub fn new(client: Client) -> Arc<Self> {
        Arc::new(Self { client, started: Mutex::new(HashMap::new()) })
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The informer of all `K`, started on first use.
    pub fn of<K: Object>(&self) -> Arc<Informer<K>> {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let known = started.get(&TypeId::of::<K>()).cloned().and_then(|informer| informer.downcast().ok());
        known.unwrap_or_else(|| {
            let informer = Informer::<K>::spawn(self.client.clone(), crate::WatchConfig::default());
            started.insert(TypeId::of::<K>(), informer.clone());
            informer
        })
    }
}
