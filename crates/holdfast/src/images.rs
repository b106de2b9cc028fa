//! The images that every cluster needs and that no registry is asked for, built by the build script as OCI archives.
//!
//! Each constant is a tar archive that containerd's import takes as it is; the image gets the name beside it.

/// An embedded image: its full name and the archive to import.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedImage {
    pub name: &'static str,
    pub archive: &'static [u8],
}

/// The sandbox's first process.
pub const PAUSE: EmbeddedImage = EmbeddedImage {
    name: "registry.holdfast.internal/pause:1",
    archive: include_bytes!(concat!(env!("OUT_DIR"), "/pause.tar")),
};

/// The application of `examples/first-app.yaml`.
pub const DEMO: EmbeddedImage = EmbeddedImage {
    name: "registry.holdfast.internal/demo:1",
    archive: include_bytes!(concat!(env!("OUT_DIR"), "/demo.tar")),
};

/// All embedded images, in the order to import them.
pub const ALL: [EmbeddedImage; 2] = [PAUSE, DEMO];
