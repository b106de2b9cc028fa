//! Transactions between etcd's words and the store's: [`parse_txn`] in, [`derive_txn_response`] out. Pure.

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
use crate::range_options::{check_range, derive_response, end_of, plan_range, wire_kv};
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
