//! The generated messages, servers and clients of `proto/*.proto`. The nesting is what the generated code expects.

pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

pub mod authpb {
    tonic::include_proto!("authpb");
}

pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
