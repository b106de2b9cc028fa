//! Handlers that act on a container or ask it something: exec, httpGet, tcpSocket, grpc, sleep. Used by lifecycle hooks
//! and by probes.
//!
//! Input: the handler, where the container is. Output: its outcome as text for events. Invariant: every handler ends
//! within its timeout; bodies are read up to 10 KiB.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, LifecycleHandler, Pod, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use podlife::spec::pod_label;
use tokio::net::TcpStream;

use crate::cri::Cri;

const BODY_BYTES_MAX: usize = 10 << 10;
const REDIRECTS_MAX: usize = 10;
/// Upstream lets an exec hook run without end; the grace period or the container's end bounds it. This bounds postStart.
const HOOK_MAX: Duration = Duration::from_secs(24 * 3600);

/// Where handlers find the container.
pub struct HandlerTarget<'a> {
    pub cri: &'a Cri,
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub container_id: &'a str,
    pub pod_ip: &'a str,
}

/// An answer: what the handler found, as a probe's message has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure(String),
    /// The handler itself went wrong.
    Errored(String),
}

/// Runs a lifecycle hook; the error is the message for the container's status.
pub async fn run_hook(target: &HandlerTarget<'_>, handler: &LifecycleHandler) -> Result<(), String> {
    let (container, pod) = (&target.container.name, pod_label(target.pod));
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = format!("[{}]", command.join(" "));
        return match target.cri.exec_sync(target.container_id, &command, HOOK_MAX).await {
            Ok(reply) if reply.exit_code == 0 => Ok(()),
            Ok(reply) => {
                let output = [reply.stdout, reply.stderr].concat();
                let output = String::from_utf8_lossy(&output).into_owned();
                let code = reply.exit_code;
                Err(format!(
                    "Exec lifecycle hook ({shown}) for Container \"{container}\" in Pod \"{pod}\" failed - error: command '{}' exited with {code}: {output}, message: {output:?}",
                    command.join(" ")
                ))
            }
            Err(error) => Err(format!(
                "Exec lifecycle hook ({shown}) for Container \"{container}\" in Pod \"{pod}\" failed - error: {}, message: \"\"",
                error.message()
            )),
        };
    }
    if let Some(action) = &handler.http_get {
        return match run_http(target, action, Duration::from_secs(30)).await {
            // A hook asks for an answer, whatever it is.
            Ok(_) => Ok(()),
            Err(error) => Err(format!(
                "HTTP lifecycle hook ({}) for Container \"{container}\" in Pod \"{pod}\" failed - error: {error}",
                action.path.as_deref().unwrap_or_default()
            )),
        };
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    if let Some(action) = &handler.tcp_socket {
        return match run_tcp(target, action, Duration::from_secs(30)).await {
            Outcome::Success => Ok(()),
            Outcome::Failure(error) | Outcome::Errored(error) => Err(error),
        };
    }
    Err("Cannot run handler: invalid handler".to_owned())
}

/// exec: exit code 0 is success; a timeout is a failure.
pub async fn run_exec(target: &HandlerTarget<'_>, exec: &ExecAction, timeout: Duration) -> Outcome {
    let command = exec.command.clone().unwrap_or_default();
    match target.cri.exec_sync(target.container_id, &command, timeout).await {
        Ok(reply) if reply.exit_code == 0 => Outcome::Success,
        Ok(reply) => {
            let mut output = [reply.stdout, reply.stderr].concat();
            output.truncate(BODY_BYTES_MAX);
            Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(status) if status.code() == tonic::Code::DeadlineExceeded => Outcome::Failure(format!(
            "command timed out: \"{}\" timed out after {}s",
            command.join(" "),
            timeout.as_secs()
        )),
        Err(status) => Outcome::Errored(status.message().to_owned()),
    }
}

/// tcpSocket: a connection is success.
pub async fn run_tcp(target: &HandlerTarget<'_>, action: &TCPSocketAction, timeout: Duration) -> Outcome {
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(target.pod_ip);
    let Some(port) = resolve_port(&action.port, target.container) else {
        return Outcome::Errored("invalid port".to_owned());
    };
    match tokio::time::timeout(timeout, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(error)) => Outcome::Failure(format!("dial tcp {host}:{port}: connect: {}", plain(&error))),
        Err(_) => Outcome::Failure(format!("dial tcp {host}:{port}: i/o timeout")),
    }
}

/// grpc: SERVING is success.
pub async fn run_grpc(target: &HandlerTarget<'_>, port: i32, service: &str, timeout: Duration) -> Outcome {
    use crate::cri::health::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    let uri = format!("http://{}:{port}", bracketed(target.pod_ip));
    let check = async {
        let endpoint = tonic::transport::Endpoint::from_shared(uri).map_err(|error| error.to_string())?;
        let channel = endpoint.user_agent("kube-probe/1.37").map_err(|error| error.to_string())?;
        let channel = channel.connect().await.map_err(|error| error.to_string())?;
        let request = HealthCheckRequest { service: service.to_owned() };
        let reply = HealthClient::new(channel).check(request).await.map_err(|status| status.message().to_owned())?;
        Ok::<_, String>(reply.into_inner().status())
    };
    match tokio::time::timeout(timeout, check).await {
        Ok(Ok(ServingStatus::Serving)) => Outcome::Success,
        Ok(Ok(status)) => Outcome::Failure(format!("service unhealthy (responded with \"{}\")", status.as_str_name())),
        Ok(Err(error)) => Outcome::Failure(format!("error: {error}")),
        Err(_) => {
            let seconds = timeout.as_secs();
            Outcome::Failure(format!(
                "timeout: failed to connect service \"{}:{port}\" within {seconds}s",
                target.pod_ip
            ))
        }
    }
}

/// httpGet as a probe: 200..399 is success.
pub async fn run_http_probe(target: &HandlerTarget<'_>, action: &HTTPGetAction, timeout: Duration) -> Outcome {
    match run_http(target, action, timeout).await {
        Ok(status) if (200..400).contains(&status) => Outcome::Success,
        Ok(status) => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
        Err(error) => Outcome::Failure(error),
    }
}

/// A GET; follows redirects on the same host. Returns the status.
async fn run_http(target: &HandlerTarget<'_>, action: &HTTPGetAction, timeout: Duration) -> Result<u16, String> {
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(target.pod_ip);
    let port = resolve_port(&action.port, target.container).ok_or_else(|| "invalid port".to_owned())?;
    let https = action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let scheme = if https { "https" } else { "http" };
    let path = action.path.as_deref().unwrap_or("/");
    let mut path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let shown = format!("Get \"{scheme}://{}:{port}{path}\"", bracketed(host));
    let exchange = async {
        for _ in 0..REDIRECTS_MAX {
            let (status, location) = get_once(host, port, https, &path, action).await?;
            match location.filter(|_| (301..=308).contains(&status)).and_then(|to| same_host_path(&to, host, port)) {
                Some(next) => path = next,
                None => return Ok(status),
            }
        }
        Err("stopped after 10 redirects".to_owned())
    };
    match tokio::time::timeout(timeout, exchange).await {
        Ok(outcome) => outcome.map_err(|error| format!("{shown}: {error}")),
        Err(_) => Err(format!("{shown}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)")),
    }
}

/// A redirect elsewhere is not followed: the answer itself was fine.
fn same_host_path(location: &str, host: &str, port: u16) -> Option<String> {
    if location.starts_with('/') {
        return Some(location.to_owned());
    }
    let uri = location.parse::<http::Uri>().ok()?;
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let same = uri.host()? == host && uri.port_u16().unwrap_or(default) == port;
    same.then(|| uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string))
}

async fn get_once(
    host: &str,
    port: u16,
    https: bool,
    path: &str,
    action: &HTTPGetAction,
) -> Result<(u16, Option<String>), String> {
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("dial tcp {host}:{port}: connect: {}", plain(&error)))?;
    let mut request = http::Request::get(path);
    let headers = action.http_headers.as_deref().unwrap_or_default();
    let has = |name: &str| headers.iter().any(|header| header.name.eq_ignore_ascii_case(name));
    if !has("host") {
        request = request.header("Host", format!("{}:{port}", bracketed(host)));
    }
    if !has("user-agent") {
        request = request.header("User-Agent", "kube-probe/1.37");
    }
    if !has("accept") {
        request = request.header("Accept", "*/*");
    }
    for header in headers {
        request = request.header(header.name.as_str(), header.value.as_str());
    }
    let request =
        request.header("Connection", "close").body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    if https {
        let connector = tokio_rustls::TlsConnector::from(unverified_tls()?);
        let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
        exchange(TokioIo::new(stream), request).await
    } else {
        exchange(TokioIo::new(stream), request).await
    }
}

async fn exchange<S>(stream: S, request: http::Request<Empty<Bytes>>) -> Result<(u16, Option<String>), String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let location = response.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
    // Read, so that the server is not cut off in the middle; its content is of no interest.
    if let Err(error) = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await {
        tracing::trace!(%error, "body of a probe's answer");
    }
    connection.abort();
    Ok((status, location))
}

/// Probes speak TLS to learn whether the server answers, not who it is.
fn unverified_tls() -> Result<Arc<rustls::ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyServer { schemes: provider.signature_verification_algorithms.supported_schemes() });
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

#[derive(Debug)]
struct AnyServer {
    schemes: Vec<rustls::SignatureScheme>,
}

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls::pki_types::CertificateDer<'_>,
        _intermediates: &[rustls::pki_types::CertificateDer<'_>],
        _server_name: &rustls::pki_types::ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &rustls::pki_types::CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &rustls::pki_types::CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.schemes.clone()
    }
}

/// A number, or the name of one of the container's ports.
fn resolve_port(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match name.parse() {
            Ok(number) => number,
            Err(_) => {
                let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
                named?.container_port
            }
        },
    };
    u16::try_from(number).ok().filter(|number| *number > 0)
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Go's words for the errors that users know.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        _ => error.to_string(),
    }
}
