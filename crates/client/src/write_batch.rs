//! The writes of one plan, in order: creates that follow each other go in slow-start batches (1, 2, 4, ...), the rest
//! one after the other.
//!
//! Invariant: after the first failure nothing more is begun; everything begun is waited for and noted.

use std::time::Duration;

use kube::Client;
use reconcile::cache::parse_revision;
use reconcile::{Expectations, Verb, View, Write};
use serde_json::Value;

use crate::apply::{WriteError, apply_write};
use crate::recorder::EventRecorder;
use crate::runner::announce;

/// Requests of one plan under way at the same time.
const CONCURRENT_MAX: usize = 64;

/// Applies `writes`; `note` is called for each that succeeded, with the API's answer.
pub(crate) async fn apply_writes(
    client: &Client,
    recorder: &EventRecorder,
    writes: &[Write],
    mut note: impl FnMut(&Write, &Value),
) -> Result<(), (Write, WriteError)> {
    let mut rest = writes;
    let mut batch_size = 1;
    while !rest.is_empty() {
        let parallel = rest.iter().take(batch_size).take_while(|write| is_parallel(write)).count();
        let (batch, later) = rest.split_at(parallel.max(1));
        rest = later;
        batch_size = if parallel == 0 { 1 } else { (batch_size * 2).min(CONCURRENT_MAX) };
        let answers = futures::future::join_all(batch.iter().map(|write| apply_write(client, write))).await;
        let mut failed = None;
        for (write, answer) in batch.iter().zip(answers) {
            match answer {
                Ok(answer) => {
                    announce(recorder, write, Ok(answer_name(write, &answer)));
                    note(write, &answer);
                }
                Err(error) => {
                    if !matches!(error, WriteError::NamespaceTerminating(_)) {
                        announce(recorder, write, Err(&error));
                    }
                    failed.get_or_insert((write.clone(), error));
                }
            }
        }
        if let Some(failed) = failed {
            return Err(failed);
        }
    }
    Ok(())
}

/// Creates and deletes don't depend on each other; updates may.
fn is_parallel(write: &Write) -> bool {
    matches!(write.verb, Verb::Create { .. } | Verb::Delete { .. })
}

fn answer_name<'a>(write: &'a Write, answer: &'a Value) -> &'a str {
    if write.key.name.is_empty() { answer["metadata"]["name"].as_str().unwrap_or_default() } else { &write.key.name }
}

/// Notes in `expectations` what the caches must see before the key is planned again.
pub(crate) fn note_written(expectations: &mut Expectations, view: &View, write: &Write, answer: &Value, now: Duration) {
    match &write.verb {
        Verb::Delete { uid: Some(uid), .. } => expectations.deleted(view, &write.resource, &write.key, uid, now),
        Verb::Delete { .. } | Verb::DeleteCollection { .. } => {}
        Verb::Create { .. } | Verb::Replace { .. } | Verb::Patch { .. } => {
            let revision = parse_revision(answer["metadata"]["resourceVersion"].as_str());
            expectations.wrote(view, &write.resource, revision, now);
        }
    }
}

pub(crate) fn verb_name(verb: &Verb) -> &'static str {
    match verb {
        Verb::Create { .. } => "create",
        Verb::Replace { .. } => "update",
        Verb::Patch { .. } => "patch",
        Verb::Delete { .. } => "delete",
        Verb::DeleteCollection { .. } => "deletecollection",
    }
}
