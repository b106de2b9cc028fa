//! Options on a file, and following a file that grows, rotates and ends.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use http_body_util::BodyExt;

use super::super::tests::{Kubelet, send, serve, text};
use super::*;

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("holdfast-logs-{}", base::id::uid(&mut base::OsRng)));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn log(&self) -> PathBuf {
        self.0.join("0.log")
    }

    fn append(&self, text: &str) {
        OpenOptions::new().create(true).append(true).open(self.log()).unwrap().write_all(text.as_bytes()).unwrap();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

const LOG: &str = "2026-11-25T00:00:01.000000000Z stdout F one\n\
    2026-11-25T00:00:02.000000000Z stderr P tw\n\
    2026-11-25T00:00:02.500000000Z stderr F o\n\
    rubbish that no runtime writes\n\
    2026-11-25T00:00:03.000000000Z stdout F three\n";

#[tokio::test]
async fn options_on_a_finished_log() {
    let directory = Directory::new();
    directory.append(LOG);
    let port = serve(Kubelet::new(directory.log(), String::new())).await;
    let cases = [
        ("", "one\ntwo\nthree\n"),
        (
            "?timestamps=true",
            "2026-11-25T00:00:01.000000000Z one\n2026-11-25T00:00:02.000000000Z two\n2026-11-25T00:00:03.000000000Z three\n",
        ),
        ("?tailLines=1", "three\n"),
        ("?tailLines=0", ""),
        ("?tailLines=3", "o\nthree\n"),
        ("?tailLines=100", "one\ntwo\nthree\n"),
        ("?sinceTime=2026-11-25T00:00:02.2Z", "o\nthree\n"),
        ("?sinceTime=2026-11-26T00:00:00Z", ""),
        ("?stream=Stderr", "two\n"),
        ("?stream=Stdout&timestamps=1", "2026-11-25T00:00:01.000000000Z one\n2026-11-25T00:00:03.000000000Z three\n"),
        ("?limitBytes=5", "one\nt"),
        ("?limitBytes=5&follow=true", "one\nt"),
    ];
    for (query, expect) in cases {
        let response = send(port, &format!("/containerLogs/ns/p/c{query}"), &[]).await;
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(text(response).await, expect, "{query}");
    }
    let errors = [
        ("?tailLines=-1", 400, "invalid tailLines \"-1\""),
        ("?limitBytes=0", 400, "invalid limitBytes \"0\""),
        (
            "?sinceSeconds=1&sinceTime=2026-11-25T00:00:00Z",
            400,
            "at most one of sinceTime or sinceSeconds may be specified",
        ),
        ("?previous=true", 400, "previous terminated container \"c\" in pod \"p\" not found"),
    ];
    for (query, code, expect) in errors {
        let response = send(port, &format!("/containerLogs/ns/p/c{query}"), &[]).await;
        assert_eq!(response.status().as_u16(), code, "{query}");
        assert_eq!(text(response).await.trim_end(), expect);
    }
}

#[test]
fn since_seconds_counts_from_now() {
    let now: Timestamp = "2026-11-25T00:01:00Z".parse().unwrap();
    let options = parse_options(Some("sinceSeconds=60&follow=1"), now).unwrap();
    assert_eq!((options.since, options.follow), (Some("2026-11-25T00:00:00Z".parse().unwrap()), true));
    assert!(parse_options(Some("sinceTime=yesterday"), now).is_err());
}

/// Reads from `body` until the text so far ends with `expect`.
async fn read_until(body: &mut Incoming, got: &mut String, expect: &str) {
    while !got.ends_with(expect) {
        let frame = body.frame().await.expect("more of the log").unwrap();
        got.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
}

#[tokio::test]
async fn following_growth_rotation_and_the_end() {
    let directory = Directory::new();
    let kubelet = Kubelet::new(directory.log(), String::new());
    let port = serve(kubelet.clone()).await;
    // The file does not exist yet.
    let mut body = send(port, "/containerLogs/ns/p/c?follow=true", &[]).await.into_body();
    let mut got = String::new();
    directory.append("T stdout F first\n");
    read_until(&mut body, &mut got, "first\n").await;
    directory.append("T stdout F half a li");
    directory.append("ne\n");
    read_until(&mut body, &mut got, "half a line\n").await;
    directory.append("T stdout F before\n");
    fs::rename(directory.log(), directory.0.join("0.log.old")).unwrap();
    directory.append("T stdout F after\n");
    read_until(&mut body, &mut got, "after\n").await;
    directory.append("T stdout F last\n");
    kubelet.stop();
    while let Some(frame) = body.frame().await {
        got.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
    }
    assert_eq!(got, "first\nhalf a line\nbefore\nafter\nlast\n");
}

#[tokio::test]
async fn a_large_log_comes_whole() {
    let directory = Directory::new();
    let lines: String = (0..50_000).map(|number| format!("T stdout F line {number}\n")).collect();
    directory.append(&lines);
    let port = serve(Kubelet::new(directory.log(), String::new())).await;
    let expect: String = (0..50_000).map(|number| format!("line {number}\n")).collect();
    assert_eq!(text(send(port, "/containerLogs/ns/p/c", &[]).await).await, expect);
    assert_eq!(
        text(send(port, "/containerLogs/ns/p/c?tailLines=40000", &[]).await).await,
        expect[expect.find("line 10000").unwrap()..]
    );
}
