//! What is recorded, in which form, and that the bounds hold.

use crate::authz::objects::{request, user};

use super::*;

fn record(who: &str, what: &str, code: u16) -> AuditRecord {
    let mut attributes = request(user(who, &["devs"]), what);
    attributes.path = "/api/v1/x".to_owned();
    AuditRecord {
        id: base::id::uid(&mut base::OsRng),
        attributes,
        code,
        received: "2026-11-25T00:00:00Z".parse().unwrap(),
        latency: std::time::Duration::from_millis(3),
        reason: String::new(),
    }
}

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("holdfast-audit-{}", base::id::uid(&mut base::OsRng))))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn a_line_says_who_did_what() {
    let directory = Directory::new();
    let path = directory.0.join("audit.log");
    let log = AuditLog::open(AuditConfig::new(path.clone())).unwrap();
    log.record(record("alice", "delete core/pods ns/a", 200));
    log.record(record("system:kube-scheduler", "list core/pods -/-", 200));
    log.record(record("system:node:n", "update coordination.k8s.io/leases kube-node-lease/n", 200));
    log.record(record("system:node:n", "get core/secrets ns/a", 403));
    drop(log);
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(lines[0]["auditID"].take().as_str().unwrap().len(), 36);
    assert_eq!(
        lines[0],
        json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "stage": "ResponseComplete",
            "auditID": null, "requestURI": "/api/v1/x", "verb": "delete",
            "user": {"username": "alice", "groups": ["devs"]},
            "objectRef": {"resource": "pods", "namespace": "ns", "name": "a", "apiVersion": "v1"},
            "responseStatus": {"metadata": {}, "code": 200},
            "requestReceivedTimestamp": "2026-11-25T00:00:00.000000Z",
            "stageTimestamp": "2026-11-25T00:00:00.003000Z",
            "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""},
        })
    );
}

#[test]
fn files_and_queue_are_bounded() {
    let directory = Directory::new();
    let path = directory.0.join("audit.log");
    let config = AuditConfig { path: path.clone(), file_bytes_max: 2000, files_max: 2, queue_max: 4 };
    let log = AuditLog::open(config).unwrap();
    let total = 2000;
    for _ in 0..total {
        log.record(record("alice", "delete core/pods ns/a", 200));
    }
    let dropped = log.dropped();
    drop(log);
    let files: Vec<_> = fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() <= 3, "{files:?}");
    for file in &files {
        assert!(fs::metadata(file).unwrap().len() < 3000);
    }
    assert!(dropped < total);
}
