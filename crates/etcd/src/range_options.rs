//! Ranges and keys between etcd's words and the store's, in both directions. Pure.
//!
//! Serving: [`plan_range`] says what to ask of the store, [`derive_response`] makes the answer of what came back, with etcd's
//! options on top of the store's: sorting and revision filters. Asking: [`wire_range`] and [`parse_response`].

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use store::KeyValue;

use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::proto::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use crate::proto::mvccpb;
use crate::refusals::{EMPTY_KEY, INVALID_SORT, Refusal};

/// Refuses what needs no look at the state.
pub(crate) fn check_range(request: &RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(EMPTY_KEY);
    }
    if SortOrder::try_from(request.sort_order).is_err() || SortTarget::try_from(request.sort_target).is_err() {
        return Err(INVALID_SORT);
    }
    Ok(())
}

/// What the store is asked.
pub(crate) fn plan_range(request: &RangeRequest) -> store::RangeRequest {
    let whole = !is_key_order(request) || has_filters(request);
    store::RangeRequest {
        key: request.key.clone(),
        end: end_of(&request.range_end),
        revision: request.revision.max(0),
        limit: if whole { 0 } else { usize::try_from(request.limit).unwrap_or(0) },
        // Values that we sort by must come along.
        keys_only: request.keys_only && request.sort_target() != SortTarget::Value,
        count_only: request.count_only,
        serializable: request.serializable,
    }
}

/// The `end` of a request as the store has it.
pub(crate) fn end_of(range_end: &Bytes) -> Option<Bytes> {
    (!range_end.is_empty()).then(|| range_end.clone())
}

/// A request of the store as etcd has it: the inverse of [`plan_range`].
pub(crate) fn wire_range(request: &store::RangeRequest) -> RangeRequest {
    RangeRequest {
        key: request.key.clone(),
        range_end: wire_end(request.end.as_ref()),
        revision: request.revision,
        limit: i64::try_from(request.limit).unwrap_or(i64::MAX),
        keys_only: request.keys_only,
        count_only: request.count_only,
        serializable: request.serializable,
        ..RangeRequest::default()
    }
}

/// The inverse of [`end_of`]: on the wire an empty end means one key, a zero byte no bound.
pub(crate) fn wire_end(end: Option<&Bytes>) -> Bytes {
    match end {
        None => Bytes::new(),
        Some(end) if end.is_empty() => Bytes::from_static(b"\0"),
        Some(end) => end.clone(),
    }
}

/// etcd's answer as the store has it. `revision`: for an answer without a header of its own.
pub(crate) fn parse_response(response: RangeResponse, revision: i64) -> store::RangeResponse {
    store::RangeResponse {
        revision: response.header.map_or(revision, |header| header.revision),
        kvs: response.kvs.iter().map(parse_kv).collect(),
        more: response.more,
        count: response.count,
    }
}

/// A key of etcd's as the store has it: a copy, because a slice would keep the whole message in memory.
pub(crate) fn parse_kv(kv: &mvccpb::KeyValue) -> Arc<KeyValue> {
    let mut key = Bytes::from([kv.key.as_ref(), kv.value.as_ref()].concat());
    let value = key.split_off(kv.key.len());
    Arc::new(KeyValue {
        key,
        value,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    })
}

/// The answer to `request` of what the store found for [`plan_range`] of it.
pub(crate) fn derive_response(
    request: &RangeRequest,
    found: store::RangeResponse,
    header: ResponseHeader,
) -> RangeResponse {
    let store::RangeResponse { mut kvs, mut more, count, .. } = found;
    if has_filters(request) {
        kvs.retain(|kv| passes(request, kv));
    }
    if !is_sorted_by_key(request) {
        sort(request, &mut kvs);
    }
    let limit = usize::try_from(request.limit).unwrap_or(0);
    if limit > 0 && kvs.len() > limit {
        kvs.truncate(limit);
        more = true;
    }
    let kvs = kvs.iter().map(|kv| if request.keys_only { without_value(kv) } else { wire_kv(kv) }).collect();
    RangeResponse { header: Some(header), kvs, more, count }
}

/// The store's own order will do to choose the keys. As in etcd that is so where a target has no order, though the chosen
/// keys are sorted by it then ([`is_sorted_by_key`]).
pub(crate) fn is_key_order(request: &RangeRequest) -> bool {
    request.sort_order() == SortOrder::None || is_sorted_by_key(request)
}

fn is_sorted_by_key(request: &RangeRequest) -> bool {
    request.sort_target() == SortTarget::Key && request.sort_order() != SortOrder::Descend
}

pub(crate) fn has_filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes(request: &RangeRequest, kv: &KeyValue) -> bool {
    let within = |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
}

/// Sorts by the target; a target without an order means ascending.
fn sort(request: &RangeRequest, kvs: &mut [Arc<KeyValue>]) {
    let target = request.sort_target();
    let by_target = |a: &KeyValue, b: &KeyValue| match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    let descending = request.sort_order() == SortOrder::Descend;
    kvs.sort_by(|a, b| {
        let order: Ordering = by_target(a, b);
        if descending { order.reverse() } else { order }
    });
}

/// A key as clients see it.
pub(crate) fn wire_kv(kv: &KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue { value: kv.value.clone(), ..without_value(kv) }
}

fn without_value(kv: &KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key.clone(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: Bytes::new(),
        lease: kv.lease,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> store::RangeResponse {
        let kv = |key: &'static str, value: &'static str, create_revision, mod_revision| {
            let (key, value) = (Bytes::from(key), Bytes::from(value));
            Arc::new(KeyValue { key, value, create_revision, mod_revision, version: 1, lease: 0 })
        };
        let kvs = vec![kv("a", "z", 2, 9), kv("b", "y", 3, 3), kv("c", "x", 4, 5)];
        store::RangeResponse { revision: 9, count: 3, kvs, more: false }
    }

    fn check(request: RangeRequest, expect: &str, more: bool) {
        let response = derive_response(&request, found(), ResponseHeader::default());
        let keys: String = response.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
        assert_eq!((keys.as_str(), response.more, response.count), (expect, more, 3), "{request:?}");
    }

    #[test]
    fn sorting_filters_and_limit_work_on_the_whole_range() {
        let base = || RangeRequest { key: "a".into(), ..RangeRequest::default() };
        let descend = SortOrder::Descend as i32;
        check(base(), "abc", false);
        check(RangeRequest { sort_order: descend, limit: 2, ..base() }, "cb", true);
        check(RangeRequest { sort_target: SortTarget::Mod as i32, ..base() }, "bca", false);
        check(RangeRequest { sort_target: SortTarget::Value as i32, keys_only: true, ..base() }, "cba", false);
        check(RangeRequest { min_mod_revision: 4, max_mod_revision: 8, ..base() }, "c", false);
        check(RangeRequest { max_create_revision: 3, limit: 1, ..base() }, "a", true);
    }

    #[test]
    fn what_is_asked_and_answered_comes_through_the_wire() {
        for end in [None, Some("b"), Some("\0")] {
            let asked = store::RangeRequest {
                key: "a".into(),
                end: end.map(Bytes::from),
                revision: 7,
                limit: 3,
                keys_only: true,
                serializable: true,
                ..store::RangeRequest::default()
            };
            assert_eq!(plan_range(&wire_range(&asked)), asked);
        }
        assert_eq!(wire_end(Some(&Bytes::new())).as_ref(), b"\0");
        let header = ResponseHeader { revision: 9, ..ResponseHeader::default() };
        assert_eq!(parse_response(derive_response(&RangeRequest::default(), found(), header), 0), found());
    }

    #[test]
    fn only_the_stores_own_order_lets_it_stop_at_the_limit() {
        let plan = |sort_order: SortOrder| {
            plan_range(&RangeRequest { limit: 5, sort_order: sort_order as i32, ..RangeRequest::default() }).limit
        };
        assert_eq!((plan(SortOrder::None), plan(SortOrder::Ascend), plan(SortOrder::Descend)), (5, 5, 0));
    }
}
