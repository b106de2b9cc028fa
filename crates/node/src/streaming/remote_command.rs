//! exec and attach: a client's session tied to a process's streams.
//!
//! In: an upgrade request for a container. Out: 101 and the streams, or a refusal before any of it.
//!
//! Order: the container is looked up and the runtime asked before the upgrade, so that what fails reads as an HTTP error
//! in the client. After it, all output comes first, then the status, then the end.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::runtime_stream::{self, RuntimeStreams};
use super::session::{Negotiated, Output, Session, StatusFormat};
use super::spdy::Stream;
use super::{Refusal, Route, Target, query_flag, query_values};
use crate::access::{ContainerTarget, PodAccess, ResponseBody, StreamOptions};

/// A status is a few hundred bytes.
const STATUS_BYTES_MAX: usize = 64 * 1024;

/// Answers the upgrade; the session then runs by itself.
pub async fn serve(
    mut request: Request<Incoming>,
    target: &Target,
    access: Arc<dyn PodAccess>,
) -> Result<Response<ResponseBody>, Refusal> {
    let mut options = parse_options(request.uri().query())?;
    let container = access.container(&target.namespace, &target.pod, &target.container).await?;
    check_uid(target, &container)?;
    if !container.running {
        let message = format!("container not found ({:?})", target.container);
        return Err(Refusal { code: http::StatusCode::NOT_FOUND, message });
    }
    let url = if target.route == Route::Exec {
        if options.command.is_empty() {
            return Err(Refusal::bad_request("you must specify at least 1 command"));
        }
        access.exec_url(&container.container_id, &options).await?
    } else {
        // The process has what its spec gave it, whatever the client wishes.
        options.tty = container.tty;
        options.stdin &= container.stdin;
        options.stderr &= !container.tty;
        access.attach_url(&container.container_id, &options).await?
    };
    let (response, protocol, upgrade) = super::session::negotiate(&mut request)?.into_parts();
    tokio::spawn(async move {
        let Some(session) = Negotiated::session(upgrade, protocol, &options).await else { return };
        match runtime_stream::open(&url, &options).await {
            Ok(streams) => run(session, streams).await,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot open the runtime's streams");
                let message = format!("error executing command in container: {error}");
                finish(session, internal_error(&message)).await;
            }
        }
    });
    Ok(response)
}

fn parse_options(query: Option<&str>) -> Result<StreamOptions, Refusal> {
    let mut options = StreamOptions {
        command: query_values(query, "command"),
        stdin: query_flag(query, &["input", "stdin"]),
        stdout: query_flag(query, &["output", "stdout"]),
        stderr: query_flag(query, &["error", "stderr"]),
        tty: query_flag(query, &["tty"]),
    };
    // A terminal has one output.
    options.stderr &= !options.tty;
    if !options.stdin && !options.stdout && !options.stderr {
        return Err(Refusal::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(options)
}

pub(super) fn check_uid(target: &Target, container: &ContainerTarget) -> Result<(), Refusal> {
    match &target.uid {
        Some(uid) if *uid != container.pod_uid => {
            Err(Refusal { code: http::StatusCode::NOT_FOUND, message: "pod does not exist".to_owned() })
        }
        _ => Ok(()),
    }
}

/// Copies until the process has ended and all its output is out, or the client has gone.
async fn run(mut session: Session, streams: RuntimeStreams) {
    let RuntimeStreams { error, stdin, stdout, stderr, resize, connection } = streams;
    let mut towards = JoinSet::new();
    for (from, to) in [(session.stdin.take(), stdin), (session.resize.take(), resize)] {
        if let (Some(from), Some(to)) = (from, to) {
            towards.spawn(copy_in(from, to));
        }
    }
    let outputs = async {
        tokio::join!(
            copy_out(stdout, session.stdout.as_ref()),
            copy_out(stderr, session.stderr.as_ref()),
            read_status(error.input)
        )
        .2
    };
    let ended = session.ended.clone();
    let status = tokio::select! {
        () = ended.cancelled() => None,
        status = outputs => Some(status),
    };
    // Dropping these closes the runtime's side; a process that reads stdin sees its end.
    drop(towards);
    drop(connection);
    if let Some(status) = status {
        finish(session, status).await;
    }
}

async fn copy_in(mut from: mpsc::Receiver<Bytes>, to: Stream) {
    while let Some(data) = from.recv().await {
        if to.output.write(data).await.is_err() {
            return;
        }
    }
    // The runtime may have ended first.
    let _gone = to.output.finish().await.is_err();
}

async fn copy_out(from: Option<Stream>, to: Option<&Output>) {
    let (Some(mut from), Some(to)) = (from, to) else { return };
    while let Some(data) = from.input.recv().await {
        if to.write(data).await.is_err() {
            return;
        }
    }
    // A client that has gone is noticed by the session.
    let _gone = to.finish().await.is_err();
}

/// The runtime's verdict; one of our own when it gives none.
async fn read_status(mut from: mpsc::Receiver<Bytes>) -> Value {
    let mut text = BytesMut::new();
    while let Some(data) = from.recv().await {
        if text.len() + data.len() > STATUS_BYTES_MAX {
            break;
        }
        text.extend_from_slice(&data);
    }
    serde_json::from_slice(&text).unwrap_or_else(|_invalid| {
        internal_error("error executing command in container: the runtime closed the stream without a status")
    })
}

fn internal_error(message: &str) -> Value {
    json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": format!("Internal error occurred: {message}"),
    })
}

/// Tells the status and ends the session.
async fn finish(session: Session, status: Value) {
    let text = match session.status {
        StatusFormat::Json => status.to_string(),
        StatusFormat::Text if status["status"] == "Success" => String::new(),
        StatusFormat::Text => status["message"].as_str().unwrap_or_default().to_owned(),
    };
    let told = text.is_empty() || session.error.write(Bytes::from(text)).await.is_ok();
    if told && session.error.finish().await.is_ok() {
        session.close().await;
    }
}

#[cfg(test)]
mod tests;
