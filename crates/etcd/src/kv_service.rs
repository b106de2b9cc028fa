//! The service `KV`: requests in, the store's answers out.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use store::{Kv as _, Op, OpResult, Txn};
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::member::{Member, bounded, count};
use crate::proto::etcdserverpb::kv_server::Kv;
use crate::proto::etcdserverpb::range_request::SortTarget;
use crate::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};
use crate::range_options::{check_range, derive_response, has_filters, is_key_order, plan_range, wire_kv};
use crate::refusals::{NOT_FOR_LEARNERS, status_of};
use crate::txn_words::{derive_txn_response, parse_delete, parse_put, parse_txn};

/// A chunk of a streamed range is closed when it has reached this size.
const CHUNK_BYTES: usize = 512 << 10;

pub(crate) struct KvService {
    pub(crate) member: Arc<Member>,
}

#[async_trait::async_trait]
impl Kv for KvService {
    type RangeStreamStream = Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send>>;

    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let caller = Caller::from(&request);
        let request = request.into_inner();
        if !request.serializable && self.member.is_learner() {
            return Err(NOT_FOR_LEARNERS.into());
        }
        check_range(&request)?;
        count(&self.member.counters.ranges);
        let found = self.member.range(&caller, &plan_range(&request)).await?;
        let header = self.member.header(found.revision);
        Ok(Response::new(derive_response(&request, found, header)))
    }

    async fn range_stream(&self, request: Request<RangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        let caller = Caller::from(&request);
        let request = request.into_inner();
        check_range(&request)?;
        if !is_key_order(&request) {
            return Err(Status::unimplemented("RangeStream does not support custom sort orders"));
        }
        if has_filters(&request) {
            return Err(Status::unimplemented("RangeStream does not support revision filters"));
        }
        // A target without an order: the parts come as the keys do.
        let request = RangeRequest { sort_target: SortTarget::Key as i32, ..request };
        count(&self.member.counters.ranges);
        // Shared handles of one immutable state, not the data: the whole range costs a pointer a key.
        let found = self.member.range(&caller, &plan_range(&request)).await?;
        let chunks = Chunks { member: Arc::clone(&self.member), request, found, next: 0, ended: false };
        Ok(Response::new(Box::pin(futures::stream::iter(chunks.map(Ok)))))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let put = parse_put(request.get_ref())?;
        count(&self.member.counters.puts);
        let done = self.member.txn(&Caller::from(&request), Txn::of(Op::Put(put))).await?;
        let prev_kv = done.results.into_iter().next().and_then(|result| match result {
            OpResult::Put { prev_kv } => prev_kv,
            _ => None,
        });
        let header = Some(self.member.header(done.revision));
        Ok(Response::new(PutResponse { header, prev_kv: prev_kv.map(|kv| wire_kv(&kv)) }))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let delete = parse_delete(request.get_ref())?;
        count(&self.member.counters.deletes);
        let done = self.member.txn(&Caller::from(&request), Txn::of(Op::Delete(delete))).await?;
        let header = Some(self.member.header(done.revision));
        let (deleted, prev_kvs) = match done.results.into_iter().next() {
            Some(OpResult::Delete { deleted, prev_kvs }) => (deleted, prev_kvs),
            _ => (0, Vec::new()),
        };
        let prev_kvs = prev_kvs.iter().map(|kv| wire_kv(kv)).collect();
        Ok(Response::new(DeleteRangeResponse { header, deleted, prev_kvs }))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let caller = Caller::from(&request);
        let request = request.into_inner();
        let txn = parse_txn(&request, self.member.settings.txn_operations_max)?;
        count(&self.member.counters.txns);
        let done = self.member.txn(&caller, txn).await?;
        Ok(Response::new(derive_txn_response(&self.member, &request, done)))
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        let revision = request.get_ref().revision;
        bounded(self.member.store.compact(revision)).await.map_err(|error| status_of(&error))?;
        Ok(Response::new(CompactionResponse { header: Some(self.member.header_now()) }))
    }
}

/// The parts of one streamed range: the last one, and it alone, has header, count and `more`.
struct Chunks {
    member: Arc<Member>,
    request: RangeRequest,
    found: store::RangeResponse,
    next: usize,
    ended: bool,
}

impl Iterator for Chunks {
    type Item = RangeStreamResponse;

    fn next(&mut self) -> Option<RangeStreamResponse> {
        if self.ended {
            return None;
        }
        let mut end = self.next;
        let mut bytes = 0;
        while bytes < CHUNK_BYTES
            && let Some(kv) = self.found.kvs.get(end)
        {
            bytes += kv.key.len() + kv.value.len() + 64;
            end += 1;
        }
        let part =
            store::RangeResponse { kvs: self.found.kvs[self.next..end].to_vec(), ..store::RangeResponse::default() };
        self.next = end;
        self.ended = end >= self.found.kvs.len();
        let header = self.member.header(self.found.revision);
        let unlimited = RangeRequest { limit: 0, ..self.request.clone() };
        let mut response = derive_response(&unlimited, part, header);
        if self.ended {
            (response.more, response.count) = (self.found.more, self.found.count);
        } else {
            response.header = None;
        }
        Some(RangeStreamResponse { range_response: Some(response) })
    }
}
