//! Compiles the protos in `proto/` to Rust servers and clients, without protoc. Input: `proto/*.proto`; output: `OUT_DIR`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/rpc.proto", "proto/kv.proto", "proto/lease.proto", "proto/auth.proto", "proto/health.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().bytes(".").build_server(true).build_client(true).compile_fds(descriptors)?;
    Ok(())
}
