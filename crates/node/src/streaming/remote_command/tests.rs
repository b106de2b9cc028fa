//! exec and attach end to end: client protocol, our routes, and a runtime's streaming server that plays `cat` and others.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::Message;

use super::super::session::spdy_response;
use super::super::spdy::{Connection, Role};
use super::super::tests::{Kubelet, listen, open, read_all, send, serve, spdy_client, text, websocket_client};
use super::*;

const EXIT_3: &str = r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: exit status 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

/// A runtime whose process copies stdin to stdout, says `bye` on stderr at stdin's end, and ends with `status`.
async fn runtime(status: &'static str) -> String {
    let port = listen(move |mut request: Request<Incoming>| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut connection = Connection::start(TokioIo::new(upgrade.await.unwrap()), Role::Server);
            let mut streams = std::collections::HashMap::new();
            for _ in 0..4 {
                let stream = connection.accept().await.unwrap();
                streams.insert(stream.headers.get("streamType").unwrap().to_owned(), stream);
            }
            let (stdin, stdout) = (streams.remove("stdin").unwrap(), streams.remove("stdout").unwrap());
            let mut input = stdin.input;
            while let Some(data) = input.recv().await {
                stdout.output.write(data).await.unwrap();
            }
            streams["stderr"].output.write(Bytes::from_static(b"bye")).await.unwrap();
            for output in [&stdout.output, &streams["stderr"].output] {
                output.finish().await.unwrap();
            }
            streams["error"].output.write(Bytes::from_static(status.as_bytes())).await.unwrap();
            connection.close().await;
        });
        spdy_response("v4.channel.k8s.io")
    })
    .await;
    format!("http://127.0.0.1:{port}")
}

async fn kubelet(status: &'static str) -> (std::sync::Arc<Kubelet>, u16) {
    let kubelet = Kubelet::new("/nonexistent".into(), runtime(status).await);
    let port = serve(kubelet.clone()).await;
    (kubelet, port)
}

const EXEC: &str = "/exec/ns/p/c?command=cat&command=-&input=1&output=1&error=1";

#[tokio::test]
async fn spdy_with_half_closed_stdin_and_exit_code() {
    let (kubelet, port) = kubelet(EXIT_3).await;
    let mut client = spdy_client(port, EXEC, "v4.channel.k8s.io").await;
    let error = open(&mut client, "error").await;
    let stdin = open(&mut client, "stdin").await;
    let stdout = open(&mut client, "stdout").await;
    let stderr = open(&mut client, "stderr").await;
    let big = "x".repeat(300_000);
    let sent = big.clone();
    tokio::spawn(async move {
        stdin.output.write(Bytes::from(sent)).await.unwrap();
        stdin.output.finish().await.unwrap();
    });
    assert_eq!(read_all(stdout.input).await, big);
    assert_eq!(read_all(stderr.input).await, "bye");
    let status: Value = serde_json::from_str(&read_all(error.input).await).unwrap();
    assert_eq!(status, serde_json::from_str::<Value>(EXIT_3).unwrap());
    let asked = kubelet.asked.lock().unwrap();
    assert_eq!(asked[0].command, ["cat", "-"]);
    assert!(asked[0].stdin && asked[0].stdout && asked[0].stderr && !asked[0].tty);
}

#[tokio::test]
async fn old_spdy_clients_read_a_text() {
    let (_kubelet, port) = kubelet(EXIT_3).await;
    let mut client = spdy_client(port, EXEC, "v2.channel.k8s.io").await;
    let error = open(&mut client, "error").await;
    let stdin = open(&mut client, "stdin").await;
    let _stdout = open(&mut client, "stdout").await;
    let _stderr = open(&mut client, "stderr").await;
    stdin.output.finish().await.unwrap();
    assert_eq!(read_all(error.input).await, "command terminated with non-zero exit code: exit status 3");
}

/// Sends `lines`, half-closes stdin, and collects what comes by channel until the end.
async fn websocket_exchange(port: u16, protocol: &str, messages: Vec<Message>) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut client = websocket_client(port, EXEC, protocol).await;
    for message in messages {
        client.send(message).await.unwrap();
    }
    let mut order = Vec::new();
    let mut channels = vec![Vec::new(); 5];
    while let Some(Ok(message)) = client.next().await {
        let data = match message {
            Message::Binary(data) => data.to_vec(),
            Message::Text(text) => {
                use base64::prelude::{BASE64_STANDARD, Engine};
                let mut data = vec![text.as_bytes()[0] - b'0'];
                data.extend(BASE64_STANDARD.decode(&text.as_bytes()[1..]).unwrap());
                data
            }
            Message::Close(frame) => {
                assert_eq!(u16::from(frame.unwrap().code), 1000);
                break;
            }
            _ => continue,
        };
        order.push(data[0]);
        channels[usize::from(data[0])].extend_from_slice(&data[1..]);
    }
    (order, channels)
}

fn binary(data: &'static [u8]) -> Message {
    Message::Binary(Bytes::from_static(data))
}

#[tokio::test]
async fn websocket_v5_with_close_signal() {
    let (_kubelet, port) = kubelet(SUCCESS).await;
    let messages = vec![binary(b"\0hello "), binary(b"\0world"), binary(&[255, 0])];
    let (order, channels) = websocket_exchange(port, "v5.channel.k8s.io", messages).await;
    assert_eq!(order.first(), Some(&1), "an empty message on stdout comes first");
    assert_eq!(order.last(), Some(&3), "the status comes last");
    assert_eq!(channels[1], b"hello world");
    assert_eq!(channels[2], b"bye");
    assert_eq!(serde_json::from_slice::<Value>(&channels[3]).unwrap()["status"], "Success");
}

#[tokio::test]
async fn websocket_base64_and_a_client_that_leaves() {
    let (_kubelet, port) = kubelet(SUCCESS).await;
    let mut client = websocket_client(port, EXEC, "v4.base64.channel.k8s.io").await;
    client.send(Message::text("0aGk=")).await.unwrap();
    let mut got = Vec::new();
    while got.last().is_none_or(|text: &String| text != "1aGk=") {
        got.push(client.next().await.unwrap().unwrap().into_text().unwrap().to_string());
    }
    assert_eq!(got, ["1", "1aGk="]);
    // v4 cannot half-close; leaving ends the process's stdin.
    client.close(None).await.unwrap();
    while let Some(Ok(_)) = client.next().await {}
}

#[tokio::test]
async fn refusals_come_before_the_upgrade() {
    let (kubelet, port) = kubelet(SUCCESS).await;
    let upgrade =
        [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v4.channel.k8s.io")];
    let check = async |path: &str, headers: &[(&str, &str)], code: u16, expect: &str| {
        let response = send(port, path, headers).await;
        assert_eq!(response.status().as_u16(), code, "{path}");
        assert_eq!(text(response).await.trim_end(), expect, "{path}");
    };
    check("/exec/ns/none/c?command=x&output=1", &upgrade, 404, "pod \"none\" not found").await;
    check("/exec/ns/p/none?command=x&output=1", &upgrade, 404, "container \"none\" in pod \"p\" is not available")
        .await;
    check("/exec/ns/p/other-uid/c?command=x&output=1", &upgrade, 404, "pod does not exist").await;
    check("/exec/ns/p/c?command=x", &upgrade, 400, "you must specify at least 1 of stdin, stdout, stderr").await;
    check("/exec/ns/p/c?output=1", &upgrade, 400, "you must specify at least 1 command").await;
    check("/exec/ns/p/c?command=x&output=1", &[], 400, "unable to upgrade: missing upgrade headers in request").await;
    kubelet.stop();
    check("/exec/ns/p/c?command=x&output=1", &upgrade, 404, "container not found (\"c\")").await;
}

#[tokio::test]
async fn a_runtime_that_cannot_be_reached_is_told_as_status() {
    let kubelet = Kubelet::new("/nonexistent".into(), "http://127.0.0.1:1".to_owned());
    let port = serve(kubelet).await;
    let mut client = spdy_client(port, "/attach/ns/p/c?output=1", "v4.channel.k8s.io").await;
    let error = open(&mut client, "error").await;
    let _stdout = open(&mut client, "stdout").await;
    let read = tokio::time::timeout(Duration::from_secs(120), read_all(error.input)).await.unwrap();
    let status: Value = serde_json::from_str(&read).unwrap();
    assert_eq!((&status["reason"], &status["code"]), (&json!("InternalError"), &json!(500)));
    assert!(status["message"].as_str().unwrap().contains("cannot reach the runtime's streaming server"), "{status}");
}
