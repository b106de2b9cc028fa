//! The machine that this was compiled for, in the words that the field took from Go.

/// `amd64`, `arm64`, ...: what images, node labels and version documents call the processor.
pub fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
