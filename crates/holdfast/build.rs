//! Builds the embedded images: each program of `images/` becomes a static binary, packed as the one layer of an OCI image
//! archive that `ctr images import` and containerd's import take.
//!
//! ```text
//! images/NAME.rs --rustc--> $OUT_DIR/NAME --tar, digests--> $OUT_DIR/NAME.tar
//! ```
//!
//! Invariant: the same compiler and source give the same bytes; no time, user or path gets into an archive.

#![expect(clippy::disallowed_methods, reason = "cargo tells a build script everything by its environment")]

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};

/// Program and image name, tag, user and exposed port.
const IMAGES: [Image; 2] = [
    Image { name: "pause", user: "65535:65535", port: None },
    Image { name: "demo", user: "65532:65532", port: Some("8080/tcp") },
];
const REGISTRY: &str = "registry.holdfast.internal";
const TAG: &str = "1";
const TAR_BLOCK: usize = 512;

struct Image {
    name: &'static str,
    user: &'static str,
    port: Option<&'static str>,
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    shrink()?;
    let out = std::env::var("OUT_DIR")?;
    for image in IMAGES {
        println!("cargo::rerun-if-changed=images/{}.rs", image.name);
        let binary = Path::new(&out).join(image.name);
        compile(&image, &binary)?;
        std::fs::write(binary.with_extension("tar"), archive(&image, &std::fs::read(&binary)?)?)?;
    }
    Ok(())
}

/// Release builds where the linker is LLD, which is Rust's own here: functions that came out the same are kept once, and
/// relocations are packed (understood by glibc from 2.36 on). Together an eighth of the binary.
fn shrink() -> Result<(), Box<dyn Error>> {
    if std::env::var("TARGET")? == "x86_64-unknown-linux-gnu" && std::env::var("PROFILE")? == "release" {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all,-z,pack-relative-relocs");
    }
    Ok(())
}

fn compile(image: &Image, binary: &Path) -> Result<(), Box<dyn Error>> {
    let status = Command::new(std::env::var("RUSTC")?)
        .args(["--edition=2024", "--crate-type=bin", "--target", &std::env::var("TARGET")?])
        .args(["-Ctarget-feature=+crt-static", "-Crelocation-model=static", "-Cpanic=abort"])
        .args(["-Copt-level=s", "-Clto=fat", "-Ccodegen-units=1", "-Cstrip=symbols"])
        .arg(format!("images/{}.rs", image.name))
        .arg("-o")
        .arg(binary)
        .status()?;
    if !status.success() {
        return Err(
            format!("rustc failed on images/{}.rs (are the static parts of libc6-dev installed?)", image.name).into()
        );
    }
    Ok(())
}

/// The OCI image layout (image-spec 1.0) as a tar archive. Its layer is compressed: it travels in our own binary.
fn archive(image: &Image, binary: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut layer = Vec::new();
    tar_entry(&mut layer, image.name, binary, 0o755);
    tar_end(&mut layer);
    let ports = image.port.map_or(String::new(), |port| format!(r#","ExposedPorts":{{"{port}":{{}}}}"#));
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","config":{{"Entrypoint":["/{}"],"User":"{}","WorkingDir":"/","Env":["PATH=/"]{ports}}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        architecture(),
        image.name,
        image.user,
        digest(&layer)
    );
    let compressed = gzip(&layer)?;
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
        descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes(), ""),
        descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &compressed, "")
    );
    let name = format!(
        r#","annotations":{{"io.containerd.image.name":"{REGISTRY}/{}:{TAG}","org.opencontainers.image.ref.name":"{TAG}"}}"#,
        image.name
    );
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{}]}}"#,
        descriptor("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes(), &name)
    );
    let mut tar = Vec::new();
    tar_entry(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644);
    for blob in [config.as_bytes(), manifest.as_bytes(), &compressed] {
        tar_entry(&mut tar, &format!("blobs/sha256/{}", hex(blob)), blob, 0o644);
    }
    tar_entry(&mut tar, "index.json", index.as_bytes(), 0o644);
    tar_end(&mut tar);
    Ok(tar)
}

/// Without a time or a name in its header.
fn gzip(content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    encoder.finish()
}

fn descriptor(media_type: &str, content: &[u8], more: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}{more}}}"#, digest(content), content.len())
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex(content))
}

fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name that image configurations use for the target's architecture.
fn architecture() -> &'static str {
    match std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("aarch64") => "arm64",
        _ => "amd64",
    }
}

/// Appends one file in the ustar format: header block, content, padding.
fn tar_entry(tar: &mut Vec<u8>, name: &str, content: &[u8], mode: u32) {
    let mut header = [0u8; TAR_BLOCK];
    let mut field = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    field(0, name);
    field(100, &format!("{mode:07o}"));
    field(108, "0000000");
    field(116, "0000000");
    field(124, &format!("{:011o}", content.len()));
    field(136, "00000000000");
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    tar.extend(header);
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(TAR_BLOCK), 0);
}

/// Two empty blocks end an archive.
fn tar_end(tar: &mut Vec<u8>) {
    tar.resize(tar.len() + 2 * TAR_BLOCK, 0);
}
