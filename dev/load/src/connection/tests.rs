//! The pool against a real TLS socket that speaks HTTP/2 and asks for a client certificate.

use std::convert::Infallible;

use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::service::service_fn;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;

use super::*;

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// An authority and a key pair that it vouches for.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn signed(by: &CertifiedIssuer<'static, KeyPair>) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    (params.signed_by(&key, by).unwrap(), key)
}

/// Answers as an API server would: a POST with 201, `/lines` with a stream, anything else with 404 and the token that came.
async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let token = request.headers().get(AUTHORIZATION).map(|t| t.to_str().unwrap().to_owned()).unwrap_or_default();
    let (status, frames) = match (request.method(), request.uri().path()) {
        (&Method::POST, _) => (StatusCode::CREATED, vec!["made".to_owned()]),
        (_, "/lines") => (StatusCode::OK, vec!["one\ntw".to_owned(), "o\n\nth".to_owned(), "ree".to_owned()]),
        (_, "/long") => (StatusCode::OK, vec!["x".repeat(100_000); 100]),
        _ => (StatusCode::NOT_FOUND, vec![format!("nothing here for {token}")]),
    };
    let frames = frames.into_iter().map(|f| Ok(Frame::data(Bytes::from(f))));
    let body = StreamBody::new(FrameStream(frames.collect::<Vec<_>>().into_iter())).boxed();
    Ok(Response::builder().status(status).body(body).unwrap())
}

/// Frames one by one, each its own DATA frame.
struct FrameStream(std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>);

impl futures::Stream for FrameStream {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

/// Serves `answer` on loopback; returns what a kubeconfig would say of it.
async fn serve(alpn: &[u8]) -> Target {
    let authority = authority();
    let (server, server_key) = signed(&authority);
    let (client, client_key) = signed(&authority);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![server.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der())),
        )
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(tcp).await else { continue };
            let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(tls), service_fn(answer));
            tokio::spawn(served);
        }
    });
    let certificate =
        ClientCertificate { chain: client.pem().into_bytes(), key: client_key.serialize_pem().into_bytes() };
    Target {
        host: "127.0.0.1".to_owned(),
        port,
        authority: authority.pem().into_bytes(),
        certificate: Some(certificate),
        token: None,
    }
}

async fn pool(token: Option<&str>) -> Pool {
    let target = Target { token: token.map(str::to_owned), ..serve(b"h2").await };
    Pool::connect(&target, 2).await.unwrap()
}

#[tokio::test]
async fn a_call_on_every_connection() {
    let pool = pool(None).await;
    for i in 0..5 {
        let answer = pool.call(i, Method::POST, "/things", "{}".to_owned()).await.unwrap();
        assert_eq!(answer.expect(StatusCode::CREATED).unwrap(), "made");
    }
}

#[tokio::test]
async fn an_unwanted_status_shows_its_body_and_the_token_is_sent() {
    let pool = pool(Some("t0k")).await;
    let refusal = pool.read_through(0, "/x", JSON).await.unwrap_err().to_string();
    assert_eq!(refusal, "GET /x: 404 Not Found: nothing here for Bearer t0k");
    let refusal = pool.open_lines(1, "/x").await.err().unwrap().to_string();
    assert_eq!(refusal, "GET /x: 404 Not Found: nothing here for Bearer t0k");
}

#[tokio::test]
async fn lines_are_put_together_from_frames() {
    let pool = pool(None).await;
    let mut lines = pool.open_lines(0, "/lines").await.unwrap();
    for want in ["one", "two", ""] {
        assert_eq!(lines.next("a line").await.unwrap(), want);
    }
    let end = lines.next("a fourth line").await.unwrap_err().to_string();
    assert_eq!(end, "the stream ended before a fourth line");
}

#[tokio::test]
async fn a_long_body_is_counted_and_a_long_line_refused() {
    let pool = pool(None).await;
    assert_eq!(pool.read_through(0, "/long", JSON).await.unwrap(), 10_000_000);
    let mut lines = pool.open_lines(0, "/long").await.unwrap();
    assert!(matches!(lines.next("a line").await, Err(CallError::LongLine)));
}

#[tokio::test]
async fn who_cannot_be_trusted_or_understood_is_refused() {
    let refusal = Pool::connect(&serve(b"http/1.1").await, 1).await.err().unwrap().to_string();
    assert!(refusal.contains("HTTP/2") || refusal.contains("NoApplicationProtocol"), "{refusal}");
    let stranger = Target { authority: authority().pem().into_bytes(), ..serve(b"h2").await };
    let refusal = Pool::connect(&stranger, 1).await.err().unwrap().to_string();
    assert!(refusal.contains("certificate"), "{refusal}");
    let keyless = Target { authority: b"no pem".to_vec(), ..serve(b"h2").await };
    assert!(Pool::connect(&keyless, 1).await.is_err());
}
