//! Transactions between etcd's words and the store's, in both directions. Pure.
//!
//! Serving: [`parse_txn`] in, [`derive_txn_response`] out. Asking: [`wire_txn`] out, [`parse_txn_response`] in.

use bytes::Bytes;
use store::{Compare, Delete, Op, OpResult, Put, Relation, Target, Txn};

use crate::member::Member;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::response_op::Response;
use crate::proto::etcdserverpb::{
    self as pb, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RequestOp, ResponseHeader,
    ResponseOp, TxnRequest, TxnResponse,
};
use crate::range_options::{
    check_range, derive_response, end_of, parse_kv, parse_response, plan_range, wire_end, wire_kv, wire_range,
};
use crate::refusals::{EMPTY_KEY, KEY_NOT_FOUND, LEASE_PROVIDED, Refusal, TOO_MANY_OPS, VALUE_PROVIDED};

/// The store's form of a transaction, or why it is none. `operations_max` bounds each of its lists; what a list takes is
/// not left for the transactions nested in it.
pub(crate) fn parse_txn(request: &TxnRequest, operations_max: usize) -> Result<Txn, Refusal> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = operations_max.checked_sub(longest).ok_or(TOO_MANY_OPS)?;
    let compares = request.compare.iter().map(parse_compare).collect::<Result<_, _>>()?;
    let branch = |ops: &[RequestOp]| ops.iter().map(|op| parse_op(op, left)).collect::<Result<Vec<_>, _>>();
    Ok(Txn { compares, success: branch(&request.success)?, failure: branch(&request.failure)? })
}

fn parse_op(op: &RequestOp, operations_max: usize) -> Result<Op, Refusal> {
    match op.request.as_ref().ok_or(KEY_NOT_FOUND)? {
        Request::RequestRange(range) => {
            check_range(range)?;
            Ok(Op::Range(plan_range(range)))
        }
        Request::RequestPut(put) => parse_put(put).map(Op::Put),
        Request::RequestDeleteRange(delete) => parse_delete(delete).map(Op::Delete),
        Request::RequestTxn(txn) => Ok(Op::Txn(Box::new(parse_txn(txn, operations_max)?))),
    }
}

/// The store's form of a put.
pub(crate) fn parse_put(put: &PutRequest) -> Result<Put, Refusal> {
    if put.key.is_empty() {
        return Err(EMPTY_KEY);
    }
    if put.ignore_value && !put.value.is_empty() {
        return Err(VALUE_PROVIDED);
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(LEASE_PROVIDED);
    }
    Ok(Put {
        key: put.key.clone(),
        // A copy: the request's buffer holds more than this value and must not live as long as it.
        value: Bytes::copy_from_slice(&put.value),
        lease: put.lease,
        prev_kv: put.prev_kv,
        ignore_value: put.ignore_value,
        ignore_lease: put.ignore_lease,
    })
}

/// The store's form of a delete.
pub(crate) fn parse_delete(delete: &DeleteRangeRequest) -> Result<Delete, Refusal> {
    if delete.key.is_empty() {
        return Err(EMPTY_KEY);
    }
    Ok(Delete { key: delete.key.clone(), end: end_of(&delete.range_end), prev_kv: delete.prev_kv })
}

fn parse_compare(compare: &pb::Compare) -> Result<Compare, Refusal> {
    if compare.key.is_empty() {
        return Err(EMPTY_KEY);
    }
    let number = |wanted: fn(&TargetUnion) -> Option<i64>| compare.target_union.as_ref().and_then(wanted).unwrap_or(0);
    // As in etcd, a missing operand is zero or empty.
    let target = match compare.target() {
        CompareTarget::Version => {
            Target::Version(number(|union| if let TargetUnion::Version(n) = union { Some(*n) } else { None }))
        }
        CompareTarget::Create => {
            Target::CreateRevision(number(
                |union| {
                    if let TargetUnion::CreateRevision(n) = union { Some(*n) } else { None }
                },
            ))
        }
        CompareTarget::Mod => {
            Target::ModRevision(number(|union| if let TargetUnion::ModRevision(n) = union { Some(*n) } else { None }))
        }
        CompareTarget::Lease => {
            Target::Lease(number(|union| if let TargetUnion::Lease(n) = union { Some(*n) } else { None }))
        }
        CompareTarget::Value => Target::Value(match &compare.target_union {
            Some(TargetUnion::Value(value)) => value.clone(),
            _ => Bytes::new(),
        }),
    };
    let relation = match compare.result() {
        CompareResult::Equal => Relation::Equal,
        CompareResult::Greater => Relation::Greater,
        CompareResult::Less => Relation::Less,
        CompareResult::NotEqual => Relation::NotEqual,
    };
    Ok(Compare { key: compare.key.clone(), end: end_of(&compare.range_end), relation, target })
}

/// etcd's form of the answer. Only the outer header names cluster and member.
pub(crate) fn derive_txn_response(member: &Member, request: &TxnRequest, done: store::TxnResponse) -> TxnResponse {
    let header = member.header(done.revision);
    TxnResponse { header: Some(header), ..nested_response(request, done) }
}

fn nested_response(request: &TxnRequest, done: store::TxnResponse) -> TxnResponse {
    let branch = if done.succeeded { &request.success } else { &request.failure };
    let header = ResponseHeader { revision: done.revision, ..ResponseHeader::default() };
    let responses = branch.iter().zip(done.results).map(|(op, result)| op_response(op, result, header)).collect();
    TxnResponse { header: Some(header), succeeded: done.succeeded, responses }
}

fn op_response(op: &RequestOp, result: OpResult, header: ResponseHeader) -> ResponseOp {
    let response = match (result, op.request.as_ref()) {
        (OpResult::Put { prev_kv }, _) => {
            Some(Response::ResponsePut(PutResponse { header: Some(header), prev_kv: prev_kv.map(|kv| wire_kv(&kv)) }))
        }
        (OpResult::Delete { deleted, prev_kvs }, _) => {
            let prev_kvs = prev_kvs.iter().map(|kv| wire_kv(kv)).collect();
            Some(Response::ResponseDeleteRange(DeleteRangeResponse { header: Some(header), deleted, prev_kvs }))
        }
        (OpResult::Range(found), Some(Request::RequestRange(range))) => {
            Some(Response::ResponseRange(derive_response(range, found, header)))
        }
        (OpResult::Txn(done), Some(Request::RequestTxn(txn))) => {
            Some(Response::ResponseTxn(nested_response(txn, done)))
        }
        // The store answers every operation in kind; this is for the compiler.
        (OpResult::Range(_) | OpResult::Txn(_), _) => None,
    };
    ResponseOp { response }
}

/// A transaction of the store as etcd has it: the inverse of [`parse_txn`].
pub(crate) fn wire_txn(txn: &Txn) -> TxnRequest {
    let branch = |ops: &[Op]| ops.iter().map(wire_op).collect();
    TxnRequest {
        compare: txn.compares.iter().map(wire_compare).collect(),
        success: branch(&txn.success),
        failure: branch(&txn.failure),
    }
}

fn wire_op(op: &Op) -> RequestOp {
    let request = match op {
        Op::Range(range) => Request::RequestRange(wire_range(range)),
        Op::Put(put) => Request::RequestPut(PutRequest {
            key: put.key.clone(),
            value: put.value.clone(),
            lease: put.lease,
            prev_kv: put.prev_kv,
            ignore_value: put.ignore_value,
            ignore_lease: put.ignore_lease,
        }),
        Op::Delete(delete) => Request::RequestDeleteRange(DeleteRangeRequest {
            key: delete.key.clone(),
            range_end: wire_end(delete.end.as_ref()),
            prev_kv: delete.prev_kv,
        }),
        Op::Txn(txn) => Request::RequestTxn(wire_txn(txn)),
    };
    RequestOp { request: Some(request) }
}

fn wire_compare(compare: &Compare) -> pb::Compare {
    let (target, union) = match &compare.target {
        Target::Version(n) => (CompareTarget::Version, TargetUnion::Version(*n)),
        Target::CreateRevision(n) => (CompareTarget::Create, TargetUnion::CreateRevision(*n)),
        Target::ModRevision(n) => (CompareTarget::Mod, TargetUnion::ModRevision(*n)),
        Target::Lease(n) => (CompareTarget::Lease, TargetUnion::Lease(*n)),
        Target::Value(value) => (CompareTarget::Value, TargetUnion::Value(value.clone())),
    };
    let result = match compare.relation {
        Relation::Equal => CompareResult::Equal,
        Relation::Greater => CompareResult::Greater,
        Relation::Less => CompareResult::Less,
        Relation::NotEqual => CompareResult::NotEqual,
    };
    pb::Compare {
        result: result as i32,
        target: target as i32,
        key: compare.key.clone(),
        target_union: Some(union),
        range_end: wire_end(compare.end.as_ref()),
    }
}

/// etcd's answer as the store has it. `revision`: where the answer has no header of its own, as nested ones may not.
pub(crate) fn parse_txn_response(response: TxnResponse, revision: i64) -> store::TxnResponse {
    let revision = response.header.map_or(0, |header| header.revision).max(revision);
    let results = response.responses.into_iter().filter_map(|op| parse_op_response(op, revision)).collect();
    store::TxnResponse { revision, succeeded: response.succeeded, results }
}

fn parse_op_response(op: ResponseOp, revision: i64) -> Option<OpResult> {
    Some(match op.response? {
        Response::ResponsePut(put) => OpResult::Put { prev_kv: put.prev_kv.as_ref().map(parse_kv) },
        Response::ResponseDeleteRange(done) => {
            OpResult::Delete { deleted: done.deleted, prev_kvs: done.prev_kvs.iter().map(parse_kv).collect() }
        }
        Response::ResponseRange(found) => OpResult::Range(parse_response(found, revision)),
        Response::ResponseTxn(done) => OpResult::Txn(parse_txn_response(done, revision)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_comes_through_the_wire() {
        let compare = |relation, target| Compare { key: "k".into(), end: Some("z".into()), relation, target };
        let compares = vec![
            compare(Relation::Equal, Target::Version(1)),
            compare(Relation::NotEqual, Target::CreateRevision(2)),
            compare(Relation::Greater, Target::ModRevision(3)),
            compare(Relation::Less, Target::Lease(4)),
            Compare { key: "k".into(), end: None, relation: Relation::Equal, target: Target::Value("v".into()) },
        ];
        let put = Put { key: "a".into(), value: "1".into(), lease: 7, prev_kv: true, ..Put::default() };
        let kept = Put { key: "b".into(), ignore_value: true, ignore_lease: true, ..Put::default() };
        let delete = Delete { key: "c".into(), end: Some("d".into()), prev_kv: true };
        let range = store::RangeRequest { key: "e".into(), limit: 5, ..store::RangeRequest::default() };
        let nested = Txn { compares: compares.clone(), success: vec![Op::Put(kept)], failure: Vec::new() };
        let txn = Txn {
            compares,
            success: vec![Op::Put(put), Op::Delete(delete), Op::Txn(Box::new(nested))],
            failure: vec![Op::Range(range)],
        };
        assert_eq!(parse_txn(&wire_txn(&txn), 128), Ok(txn));
    }
}
