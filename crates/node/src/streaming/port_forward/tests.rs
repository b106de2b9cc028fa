//! Port-forward end to end to a TCP server on loopback that echoes in capitals and closes after its client's end.

use futures::{SinkExt, StreamExt};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use super::super::spdy::headers::Headers;
use super::super::tests::{Kubelet, read_all, send, serve, spdy_client, text, websocket_client};
use super::*;

async fn shouting_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut text = Vec::new();
                socket.read_to_end(&mut text).await.unwrap();
                socket.write_all(&text.to_ascii_uppercase()).await.unwrap();
            });
        }
    });
    port
}

async fn kubelet() -> u16 {
    serve(Kubelet::new("/nonexistent".into(), String::new())).await
}

fn headers(kind: &str, port: u16, request: Option<&str>) -> Headers {
    let port = port.to_string();
    match request {
        Some(request) => Headers::new([("streamType", kind), ("port", &port), ("requestID", request)]),
        None => Headers::new([("streamType", kind), ("port", &port)]),
    }
}

async fn exchange(client: &mut Connection, port: u16, request: Option<&str>, say: &str) -> (String, String) {
    let error = client.open(headers("error", port, request)).await.unwrap();
    // As clients do: nothing will be written there.
    error.output.finish().await.unwrap();
    let data = client.open(headers("data", port, request)).await.unwrap();
    data.output.write(Bytes::from(say.to_owned())).await.unwrap();
    data.output.finish().await.unwrap();
    (read_all(data.input).await, read_all(error.input).await)
}

#[tokio::test]
async fn spdy_pairs_one_after_the_other_and_at_once() {
    let (port, server) = (kubelet().await, shouting_server().await);
    let mut client = spdy_client(port, "/portForward/ns/p", PROTOCOL).await;
    for (request, say) in [(Some("0"), "hello"), (Some("1"), "again"), (None, "old client")] {
        let got = exchange(&mut client, server, request, say).await;
        assert_eq!(got, (say.to_uppercase(), String::new()));
    }
    let (data, error) = exchange(&mut client, 1, Some("9"), "x").await;
    assert_eq!(data, "");
    assert!(
        error.starts_with("error forwarding port 1 to pod p_ns, uid : failed to connect to localhost:1"),
        "{error}"
    );
    // A failure leaves the connection usable.
    assert_eq!(exchange(&mut client, server, Some("10"), "on").await.0, "ON");
    let bad = client.open(Headers::new([("streamType", "data"), ("port", "0")])).await.unwrap();
    assert_eq!(read_all(bad.input).await, "");
}

#[tokio::test]
async fn spdy_inside_a_websocket() {
    let (port, server) = (kubelet().await, shouting_server().await);
    let socket = websocket_client(port, "/portForward/ns/p", TUNNEL_PROTOCOL).await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut sink, mut stream) = socket.split();
    let (mut read, mut write) = tokio::io::split(far);
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            sink.send(Message::Binary(Bytes::copy_from_slice(&buffer[..length]))).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            write.write_all(&message.into_data()).await.unwrap();
        }
    });
    let mut client = Connection::start(near, Role::Client);
    assert_eq!(exchange(&mut client, server, Some("0"), "tunnel").await.0, "TUNNEL");
}

#[tokio::test]
async fn websocket_channels() {
    let port = kubelet().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap().port();
    let path = format!("/portForward/ns/p?port={server}&port=1");
    let mut client = websocket_client(port, &path, "v4.channel.k8s.io").await;
    let (mut socket, _) = listener.accept().await.unwrap();
    client.send(Message::Binary(Bytes::from_static(b"\0ping"))).await.unwrap();
    let mut four = [0; 4];
    socket.read_exact(&mut four).await.unwrap();
    socket.write_all(&four.map(|byte| byte.to_ascii_uppercase())).await.unwrap();
    drop(socket);
    let mut channels = vec![Vec::new(); 4];
    while let Some(Ok(message)) = client.next().await {
        match message {
            Message::Binary(data) => channels[usize::from(data[0])].extend_from_slice(&data[1..]),
            Message::Close(_) => break,
            _ => {}
        }
    }
    assert_eq!(channels[0], [&server.to_le_bytes()[..], b"PING"].concat());
    assert_eq!(channels[1], server.to_le_bytes());
    assert_eq!(channels[2], 1_u16.to_le_bytes());
    assert!(String::from_utf8_lossy(&channels[3][2..]).starts_with("error forwarding port 1 to pod p_ns"));
}

#[tokio::test]
async fn bad_requests() {
    let port = kubelet().await;
    let websocket = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "v4.channel.k8s.io"),
    ];
    let check = async |path: &str, headers: &[(&str, &str)], code: u16, expect: &str| {
        let response = send(port, path, headers).await;
        assert_eq!(response.status().as_u16(), code, "{path}");
        assert_eq!(text(response).await.trim_end(), expect, "{path}");
    };
    check("/portForward/ns/p", &websocket, 400, "query parameter \"port\" is required").await;
    check("/portForward/ns/p?port=0", &websocket, 400, "port \"0\" must be > 0").await;
    check(
        "/portForward/ns/p?port=70000",
        &websocket,
        400,
        "unable to parse \"70000\" as a port: number too large to fit in target type",
    )
    .await;
    check("/portForward/ns/none", &websocket, 404, "pod \"none\" not found").await;
    check("/portForward/ns/p", &[], 400, "unable to upgrade: missing upgrade headers in request").await;
}

#[tokio::test]
async fn a_dial_leaves_no_thread_in_the_namespace() {
    let server = shouting_server().await;
    let here = std::path::Path::new("/proc/self/ns/net");
    match super::pod_network::dial(Some(here), server).await {
        Ok(mut socket) => {
            socket.write_all(b"x").await.unwrap();
            socket.shutdown().await.unwrap();
            let mut text = String::new();
            socket.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "X");
        }
        // Without the right to enter namespaces the error says so.
        Err(error) => assert!(matches!(error, super::pod_network::DialError::Enter { .. }), "{error}"),
    }
    let missing = super::pod_network::dial(Some(std::path::Path::new("/nonexistent")), server).await.unwrap_err();
    assert!(missing.to_string().starts_with("cannot enter the network namespace /nonexistent"), "{missing}");
}
