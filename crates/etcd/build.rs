//! Compiles the protos in `proto/` to Rust servers and clients, without protoc. Input: `proto/*.proto`; output: `OUT_DIR`, with the
//! descriptors themselves.

#![expect(clippy::disallowed_methods, reason = "cargo tells a build script everything by its environment")]

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/rpc.proto", "proto/kv.proto", "proto/lease.proto", "proto/auth.proto", "proto/health.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    // Names that do not become good Rust are given as JSON has them, which is how etcd's JSON has them.
    let mut as_json = descriptors.clone();
    let messages = as_json.file.iter_mut().flat_map(|file| &mut file.message_type);
    for field in messages.flat_map(|message| &mut message.field) {
        let json_name = field.json_name().to_owned();
        if json_name.ends_with("URLs") {
            field.name = Some(json_name);
        }
    }
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(out, as_json.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").build_server(true).build_client(true).compile_fds(descriptors)?;
    Ok(())
}
