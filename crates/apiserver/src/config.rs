//! What an API server is told at its start. The binary parses flags and files into this.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::chain::{
    Admission, AlwaysAllow, AuditSink, Authenticator, Authorizer, MetricsSource, NobodyAuthenticator, NodeConnector,
    PathHandler, Review, TokenIssuer, Transformer,
};

/// Settings with the cluster's defaults, and the parts that others supply.
pub struct ApiServerConfig {
    /// Network of Service cluster IPs: address and prefix length (at least 2 free bits).
    pub service_cidr: (Ipv4Addr, u8),
    /// Inclusive.
    pub node_port_range: (u16, u16),
    /// Where the `kubernetes` Service leads: this server's address as others see it. `None`: no such endpoints are kept.
    pub advertise: Option<(IpAddr, u16)>,
    /// Bytes of a request body.
    pub body_bytes_max: usize,
    /// For all but watches, logs and upgrades.
    pub request_timeout: Duration,
    /// How long Events live.
    pub event_ttl: Duration,
    /// Shortest life of a revision before compaction; watches and continued lists may go back this far.
    pub history_min: Duration,
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub admission: Vec<Arc<dyn Admission>>,
    pub audit: Option<Arc<dyn AuditSink>>,
    pub reviews: Vec<Arc<dyn Review>>,
    pub token_issuer: Option<Arc<dyn TokenIssuer>>,
    /// Encrypts Secrets at rest.
    pub transformer: Option<Arc<dyn Transformer>>,
    /// Reaches kubelets, pods and services. `None`: logs, exec and proxies answer 503.
    pub connector: Option<Arc<dyn NodeConnector>>,
    /// Discovery, OpenAPI and the like.
    pub paths: Vec<Arc<dyn PathHandler>>,
    /// What `/metrics` tells beside the requests.
    pub metrics: Vec<Arc<dyn MetricsSource>>,
}

impl Default for ApiServerConfig {
    fn default() -> Self {
        Self {
            service_cidr: (Ipv4Addr::new(10, 43, 0, 0), 16),
            node_port_range: (30000, 32767),
            advertise: None,
            body_bytes_max: 3 * 1024 * 1024,
            request_timeout: Duration::from_secs(60),
            event_ttl: Duration::from_secs(3600),
            history_min: Duration::from_secs(300),
            authenticator: Arc::new(NobodyAuthenticator),
            authorizer: Arc::new(AlwaysAllow),
            admission: Vec::new(),
            audit: None,
            reviews: Vec::new(),
            token_issuer: None,
            transformer: None,
            connector: None,
            paths: Vec::new(),
            metrics: Vec::new(),
        }
    }
}
