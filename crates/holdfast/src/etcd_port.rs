//! The etcd v3 API over a server's own store, for etcdctl and etcd's monitoring: on a port of its own, with mutual TLS.
//!
//! Who may come in has a certificate of the etcd authority, which signs nothing else: no user or node of the cluster has one,
//! because whoever writes here goes around the API server. The administrator's lies beside it (`pki/etcd-client.crt`, `.key`); its
//! name is root, so that it stays the administrator's should access control be enabled.

use std::sync::Arc;

use apiserver::pki::Pki;
use base::Clock;
use etcd::{AccessSettings, EtcdServer, Settings};
use store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::network;
use crate::server::{ServerError, ServerSettings};

/// Serves until the process ends. A server that has joined begins when it has what the others have.
pub async fn serve(
    settings: &ServerSettings,
    pki: &Arc<Pki>,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    listener: TcpListener,
) -> Result<(), ServerError> {
    let tls = pki.etcd_tls()?;
    pki.etcd_client()?;
    let url = |port| vec![network::server_url(settings.advertise, port)];
    let settings = Settings {
        name: settings.hostname.clone(),
        client_urls: url(settings.etcd_port),
        peer_urls: url(settings.peer_port),
        access: AccessSettings { trusts_common_names: true, ..AccessSettings::default() },
        ..Settings::default()
    };
    let server = EtcdServer::new(store, settings, clock).await?;
    let (serving, config) = (server.clone(), tls.config());
    tokio::spawn(async move {
        serving.publish().await;
        serving.serve(listener, Some(config), CancellationToken::new()).await;
    });
    tokio::spawn(pki.clone().keep_renewed("the etcd port", move |pki| {
        tls.replace(&pki.etcd_serving()?)?;
        pki.etcd_client().map(|_| ())
    }));
    Ok(())
}
