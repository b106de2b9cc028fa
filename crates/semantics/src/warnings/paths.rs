//! Files of one volume that would be written over each other.

use k8s_openapi::api::core::v1::{KeyToPath, Volume, VolumeProjection};

use crate::defaults::text;
use crate::field::quote;

/// A file of a volume, and what it comes from; `""` where the whole volume has one source.
#[derive(Debug, Clone, PartialEq)]
struct File {
    path: String,
    source: String,
}

impl File {
    fn printed(&self) -> String {
        if self.source.is_empty() { quote(&self.path) } else { format!("{} ({})", quote(&self.path), self.source) }
    }

    /// The same file, or one is a directory of the other.
    fn collides(&self, other: &File) -> bool {
        let (path, other) = (format!("{}/", self.path), format!("{}/", other.path));
        path.starts_with(&other) || other.starts_with(&path)
    }
}

pub(super) fn overlap_warnings(volume: &Volume) -> Vec<String> {
    let mut found = Vec::new();
    let mut warn = |what: &str, files: Vec<File>| {
        for overlap in overlaps(&files) {
            found.push(format!("volume {} ({what}): overlapping paths: {overlap}", quote(&volume.name)));
        }
    };
    if let Some(config_map) = &volume.config_map {
        warn(&format!("ConfigMap {}", quote(&config_map.name)), items(&config_map.items, ""));
    }
    if let Some(secret) = &volume.secret {
        warn(&format!("Secret {}", quote(text(&secret.secret_name))), items(&secret.items, ""));
    }
    if let Some(downward) = &volume.downward_api {
        warn("DownwardAPI", downward.items.iter().flatten().map(|item| file(&item.path, "")).collect());
    }
    let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    warn("Projected", sources.clone().flat_map(projected_files).collect());
    for _ in sources.filter(|source| **source == VolumeProjection::default()) {
        found.push(format!("volume {} (Projected) has no sources provided", quote(&volume.name)));
    }
    found
}

fn overlaps(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for (index, file) in files.iter().enumerate().filter(|(_, file)| !file.path.is_empty()) {
        let earlier = files[..index].iter().filter(|other| !other.path.is_empty() && other.collides(file));
        found.extend(earlier.map(|other| format!("{} with {}", file.printed(), other.printed())));
    }
    found
}

fn projected_files(source: &VolumeProjection) -> Vec<File> {
    if let Some(config_map) = source.config_map.as_ref().filter(|source| source.items.is_some()) {
        return items(&config_map.items, &format!("ConfigMap {}", quote(&config_map.name)));
    }
    if let Some(secret) = source.secret.as_ref().filter(|source| source.items.is_some()) {
        return items(&secret.items, &format!("Secret {}", quote(&secret.name)));
    }
    if let Some(files) = source.downward_api.as_ref().and_then(|source| source.items.as_ref()) {
        return files.iter().map(|item| file(&item.path, "DownwardAPI")).collect();
    }
    if let Some(token) = &source.service_account_token {
        return vec![file(&token.path, "ServiceAccountToken")];
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        let name = bundle.name.as_deref().or(bundle.signer_name.as_deref()).unwrap_or_default();
        return vec![file(&bundle.path, &format!("ClusterTrustBundle {}", quote(name)))];
    }
    let Some(certificate) = &source.pod_certificate else { return Vec::new() };
    vec![
        file(text(&certificate.certificate_chain_path), "PodCertificate chain"),
        file(text(&certificate.key_path), "PodCertificate key"),
        file(text(&certificate.credential_bundle_path), "PodCertificate credential bundle"),
    ]
}

fn items(items: &Option<Vec<KeyToPath>>, source: &str) -> Vec<File> {
    items.iter().flatten().map(|item| file(&item.path, source)).collect()
}

fn file(path: &str, source: &str) -> File {
    File { path: path.trim_end_matches('/').to_owned(), source: source.to_owned() }
}
