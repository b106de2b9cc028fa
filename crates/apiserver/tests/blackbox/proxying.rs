//! The proxy subresources: methods, the root's redirection, links of the pages behind.

use std::sync::Arc;

use apiserver::ApiServerConfig;
use apiserver::body::full;
use apiserver::chain::{Connection, NodeConnector, Target};
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;

use crate::fixture::{Fixture, PODS, pod};

const PROXY: &str = "/api/v1/namespaces/default/pods/p:8080/proxy";

/// Behind every address: a server that says what it was asked, as a page with a link.
struct Echo;

impl NodeConnector for Echo {
    fn connect<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, std::io::Result<Box<dyn Connection>>> {
        let Target::Network { host, port, .. } = target else { unreachable!("only pods are asked") };
        assert_eq!((host.as_str(), *port), ("10.0.0.1", 8080));
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let server = hyper::server::conn::http1::Builder::new();
        tokio::spawn(server.serve_connection(TokioIo::new(theirs), service_fn(echo)));
        Box::pin(async { Ok(Box::new(ours) as Box<dyn Connection>) })
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<apiserver::body::Body>, std::convert::Infallible> {
    let asked = format!("{} {}", request.method(), request.uri());
    let page = full(format!("<p title=\"{asked}\"><a href=\"/x\">"));
    let mut response =
        Response::builder().header("content-type", "text/html").header("access-control-allow-origin", "*");
    if request.uri().path() == "/moved" {
        response = response.status(302).header("location", "http://10.0.0.1:8080/x");
    }
    if request.uri().path() == "/headers" {
        let told: Vec<String> =
            request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        return Ok(Response::new(full(told.join("\n"))));
    }
    Ok(response.body(page).unwrap())
}

async fn with_pod() -> Fixture {
    let f = Fixture::with(ApiServerConfig { connector: Some(Arc::new(Echo)), ..ApiServerConfig::default() }).await;
    let mut made = f.post(PODS, &pod("p")).await.expect(201);
    made["status"]["podIP"] = json!("10.0.0.1");
    made["status"]["podIPs"] = json!([{"ip": "10.0.0.1"}]);
    f.put(&format!("{PODS}/p/status"), &made).await.expect(200);
    f
}

#[tokio::test]
async fn every_method_reaches_the_pod() {
    let f = with_pod().await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let answer = f.send(method, &format!("{PROXY}/some/path?a=b"), &[], "").await;
        let page = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert_eq!(answer.code, 200, "{method}: {page}");
        assert!(page.starts_with(&format!("<p title=\"{method} /some/path?a=b\">")), "{page}");
    }
    let head = f.send("HEAD", &format!("{PROXY}/"), &[], "").await;
    assert_eq!((head.code, head.bytes.len()), (200, 0));
    f.send("TRACE", &format!("{PROXY}/"), &[], "").await.expect(405);
}

#[tokio::test]
async fn the_root_without_a_slash_redirects_readers() {
    let f = with_pod().await;
    for method in ["GET", "HEAD"] {
        let answer = f.send(method, &format!("{PROXY}?a=b"), &[], "").await;
        assert_eq!((answer.code, answer.headers["location"].to_str().unwrap()), (301, &*format!("{PROXY}/?a=b")));
    }
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let answer = f.send(method, &format!("{PROXY}?a=b"), &[], "").await;
        assert_eq!(answer.code, 200, "{method}: {}", String::from_utf8_lossy(&answer.bytes));
    }
}

#[tokio::test]
async fn links_lead_through_the_proxy() {
    let f = with_pod().await;
    for path in ["/", "/deep/er"] {
        let answer = f.get(&format!("{PROXY}{path}")).await;
        let expect = format!("<p title=\"GET {path}\"><a href=\"{PROXY}/x\">");
        assert_eq!(String::from_utf8_lossy(&answer.bytes), expect);
    }
    let answer = f.get(&format!("{PROXY}/")).await;
    assert_eq!(answer.headers.get("access-control-allow-origin"), None, "the pod opens no origin of the server's");
    let moved = f.get(&format!("{PROXY}/moved")).await;
    assert_eq!((moved.code, moved.headers["location"].to_str().unwrap()), (302, &*format!("{PROXY}/x")));
}

#[tokio::test]
async fn the_pod_is_told_who_asks_and_by_which_name() {
    let f = with_pod().await;
    let check = async |headers: &[(&str, &str)], expect: &[&str]| {
        let answer = f.send("GET", &format!("{PROXY}/headers"), headers, "").await;
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        let mut told: Vec<&str> = text.lines().collect();
        told.sort_unstable();
        assert_eq!(told, expect);
    };
    let uri = format!("x-forwarded-uri: {PROXY}/headers");
    check(&[], &["host: 10.0.0.1:8080", "x-forwarded-for: 192.0.2.7", &uri]).await;
    let sent = [
        ("host", "api:6443"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "p"),
        ("connection", "keep-alive, x-mine"),
        ("x-mine", "1"),
        ("te", "gzip, trailers"),
        ("authorization", "Bearer a"),
        ("proxy-authorization", "b"),
        ("x-remote-uid", "c"),
    ];
    let told = ["host: api:6443", "te: trailers", "x-forwarded-for: 1.2.3.4, 192.0.2.7", "x-forwarded-proto: p", &uri];
    check(&sent, &told).await;
}
