//! The generated messages, servers and clients of `proto/*.proto`. The nesting is what the generated code expects.

#[allow(clippy::all, clippy::too_many_lines, missing_docs)]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

#[allow(clippy::all, clippy::too_many_lines, missing_docs)]
pub mod leasepb {
    tonic::include_proto!("leasepb");
}

#[allow(clippy::all, clippy::too_many_lines, missing_docs)]
pub mod authpb {
    tonic::include_proto!("authpb");
}

#[allow(clippy::all, clippy::too_many_lines, missing_docs)]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

#[allow(clippy::all, clippy::too_many_lines, missing_docs)]
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
