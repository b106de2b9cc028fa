//! Projected volumes: files from several sources in one directory.
//!
//! Upstream says of a path that two sources want only that the volume has a conflict; the value shown is the name of the
//! Secret or ConfigMap, else the path. The paths of tokens are not compared.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, KeyToPath, PodCertificateProjection, ProjectedVolumeSource,
    ServiceAccountTokenProjection, VolumeProjection,
};
use serde_json::json;

use super::files::{validate_downward_file, validate_items, validate_mode};
use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::{qualified_name, subdomain_name};
use crate::validate::labels::{validate_annotations_size, validate_label_selector};
use crate::validate::signer::{is_kubernetes_signer, validate_signer_name};
use crate::validate::volume_source::{require, validate_file_path};

const TOKEN_SECONDS_MIN: i64 = 10 * 60;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const CERTIFICATE_SECONDS_MIN: i32 = 3600;
const CERTIFICATE_SECONDS_MAX: i32 = 91 * 24 * 3600;
const KUBERNETES_CERTIFICATE_SECONDS_MAX: i32 = 24 * 3600;
const KEY_TYPES: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];

pub(super) fn validate_projected(projected: &ProjectedVolumeSource, path: &Path, errors: &mut Errors) {
    validate_mode(projected.default_mode, path.child("defaultMode"), errors);
    let mut paths = Paths { volume: path, taken: BTreeSet::new() };
    for (index, source) in projected.sources.iter().flatten().enumerate() {
        let at = path.child("sources").index(index);
        validate_projection(source, &mut paths, &at, errors);
    }
}

/// The paths that the sources so far have taken.
struct Paths<'a> {
    volume: &'a Path,
    taken: BTreeSet<&'a str>,
}

impl<'a> Paths<'a> {
    /// `shown` is the value of the error if `file` is taken already.
    fn take(&mut self, file: &'a str, shown: &str, errors: &mut Errors) {
        if !self.taken.insert(file) {
            errors.invalid(self.volume.clone(), shown, "conflicting duplicate paths");
        }
    }

    fn take_items(&mut self, items: &'a Option<Vec<KeyToPath>>, owner: &str, errors: &mut Errors) {
        for item in items.iter().flatten().filter(|item| !item.path.is_empty()) {
            self.take(&item.path, owner, errors);
        }
    }
}

fn validate_projection<'a>(source: &'a VolumeProjection, paths: &mut Paths<'a>, path: &Path, errors: &mut Errors) {
    let mut count = 0;
    if let Some(secret) = &source.secret {
        count += 1;
        validate_keys(&secret.name, &secret.items, &path.child("secret"), errors);
        paths.take_items(&secret.items, &secret.name, errors);
    }
    if let Some(config_map) = &source.config_map {
        count += 1;
        validate_keys(&config_map.name, &config_map.items, &path.child("configMap"), errors);
        paths.take_items(&config_map.items, &config_map.name, errors);
    }
    if let Some(downward) = &source.downward_api {
        count += 1;
        for file in downward.items.iter().flatten() {
            validate_downward_file(file, &path.child("downwardAPI"), errors);
            if !file.path.is_empty() {
                paths.take(&file.path, &file.path, errors);
            }
        }
    }
    if let Some(token) = &source.service_account_token {
        count += 1;
        validate_token(token, paths.volume, &path.child("serviceAccountToken"), errors);
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        count += 1;
        validate_trust_bundle(bundle, &path.child("clusterTrustBundle"), errors);
        paths.take(&bundle.path, &bundle.path, errors);
    }
    if let Some(certificate) = &source.pod_certificate {
        count += 1;
        validate_certificate(certificate, paths, &path.child("podCertificate"), errors);
    }
    if count > 1 {
        errors.forbidden(path.clone(), "may not specify more than 1 volume type per source");
    }
}

fn validate_keys(name: &str, items: &Option<Vec<KeyToPath>>, path: &Path, errors: &mut Errors) {
    require(&[("name", name)], path, errors);
    validate_items(items, path, errors);
}

/// Upstream looks for the token's path at the volume.
fn validate_token(token: &ServiceAccountTokenProjection, volume: &Path, path: &Path, errors: &mut Errors) {
    let seconds_path = path.child("expirationSeconds");
    match token.expiration_seconds {
        None => errors.required(seconds_path, ""),
        Some(seconds) if seconds < TOKEN_SECONDS_MIN => {
            errors.invalid(seconds_path, seconds, "may not specify a duration less than 10 minutes");
        }
        Some(seconds) if seconds > TOKEN_SECONDS_MAX => {
            errors.invalid(seconds_path, seconds, "may not specify a duration larger than 2^32 seconds");
        }
        Some(_) => {}
    }
    require(&[("path", &token.path)], volume, errors);
    validate_file_path(&token.path, &volume.child("path"), errors);
}

fn validate_trust_bundle(bundle: &ClusterTrustBundleProjection, path: &Path, errors: &mut Errors) {
    match (bundle.name.as_deref(), bundle.signer_name.as_deref()) {
        (Some(name), Some(signer)) => {
            let fields = [
                ("Name", json!(name)),
                ("SignerName", json!(signer)),
                ("LabelSelector", json!(bundle.label_selector)),
                ("Optional", json!(bundle.optional)),
                ("Path", json!(bundle.path)),
                ("User", json!(bundle.user)),
            ];
            errors.invalid_struct(path.clone(), &fields, "only one of name and signerName may be used");
        }
        (Some(name), None) => {
            if name.is_empty() {
                errors.required(path.child("name"), "must be a valid object name");
            }
            for message in trust_bundle_name(name) {
                errors.invalid(path.child("name"), name, format!("not a valid clustertrustbundlename: {message}"));
            }
            if let Some(selector) = &bundle.label_selector {
                let detail = "labelSelector must be unset if name is specified";
                errors.invalid(path.child("labelSelector"), json!(selector), detail);
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.required(path.child("signerName"), "must be a valid signer name");
            }
            validate_signer_name(signer, &path.child("signerName"), errors);
            validate_label_selector(bundle.label_selector.as_ref(), &path.child("labelSelector"), errors);
        }
        (None, None) => errors.required(path.clone(), "either name or signerName must be specified"),
    }
    require(&[("path", &bundle.path)], path, errors);
    validate_file_path(&bundle.path, &path.child("path"), errors);
}

/// The name of a ClusterTrustBundle; that of a signer's begins with the signer, `:` for `/`.
fn trust_bundle_name(name: &str) -> Vec<String> {
    subdomain_name(name.rsplit(':').next().unwrap_or(name), false)
}

fn validate_certificate<'a>(
    certificate: &'a PodCertificateProjection,
    paths: &mut Paths<'a>,
    path: &Path,
    errors: &mut Errors,
) {
    validate_signer_name(&certificate.signer_name, &path.child("signerName"), errors);
    validate_user_annotations(certificate, &path.child("userAnnotations"), errors);
    if !KEY_TYPES.contains(&certificate.key_type.as_str()) {
        errors.not_supported(path.child("keyType"), certificate.key_type.as_str(), &KEY_TYPES);
    }
    validate_validity(certificate, &path.child("maxExpirationSeconds"), errors);
    let files = [
        ("credentialBundlePath", text(&certificate.credential_bundle_path)),
        ("keyPath", text(&certificate.key_path)),
        ("certificateChainPath", text(&certificate.certificate_chain_path)),
    ];
    for (name, file) in files.into_iter().filter(|(_, file)| !file.is_empty()) {
        validate_file_path(file, &path.child(name), errors);
        paths.take(file, file, errors);
    }
    if files.iter().all(|(_, file)| file.is_empty()) {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.required(path.clone(), detail);
    }
}

fn validate_validity(certificate: &PodCertificateProjection, path: &Path, errors: &mut Errors) {
    let Some(seconds) = certificate.max_expiration_seconds else { return };
    let most = match is_kubernetes_signer(&certificate.signer_name) {
        true => KUBERNETES_CERTIFICATE_SECONDS_MAX,
        false => CERTIFICATE_SECONDS_MAX,
    };
    if seconds < CERTIFICATE_SECONDS_MIN {
        let detail = format!("if provided, maxExpirationSeconds must be >= {CERTIFICATE_SECONDS_MIN}");
        errors.invalid(path.clone(), seconds, detail);
    }
    if seconds > most {
        errors.invalid(path.clone(), seconds, format!("if provided, maxExpirationSeconds must be <= {most}"));
    }
}

fn validate_user_annotations(certificate: &PodCertificateProjection, path: &Path, errors: &mut Errors) {
    for key in certificate.user_annotations.iter().flatten().map(|(key, _)| key.to_lowercase()) {
        let problems = qualified_name(&key);
        if key.is_empty() {
            errors.required(path.clone(), "");
        } else if problems.is_empty() && !key.contains('/') {
            let detail = "must be a domain-prefixed key (such as \"acme.io/foo\")";
            errors.invalid(path.clone(), key.as_str(), detail);
        } else {
            errors.invalid_each(path, &key, problems);
        }
    }
    validate_annotations_size(&certificate.user_annotations, path, errors);
}

#[cfg(test)]
mod tests {
    use crate::check::check_create;
    use serde_json::{Value, json};

    /// `@` in `expect` is the volume's source, `#` the first projection.
    #[track_caller]
    fn check(sources: Value, expect: &str) {
        let volume = json!({"name": "v", "projected": {"sources": sources}});
        let spec = json!({"serviceAccountName": "s", "containers": [{"name": "c", "image": "i"}], "volumes": [volume]});
        let expect = expect.replace('#', "@.sources[0]").replace('@', "spec.volumes[0].projected");
        check_create("", "v1", "Pod", json!({ "spec": spec }), &expect);
    }

    #[test]
    fn one_kind_a_source_and_one_source_a_path() {
        let secret = json!({"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}});
        check(json!([{}]), "");
        check(json!([secret.clone(), secret.clone()]), "@: Invalid value: \"s\": conflicting duplicate paths");
        check(json!([{"serviceAccountToken": {"path": "p"}}, secret]), "");
        check(
            json!([{"configMap": {"name": "c"}, "serviceAccountToken": {"path": ""}}]),
            "[@.path: Required value, #: Forbidden: may not specify more than 1 volume type per source]",
        );
    }

    #[test]
    fn trust_bundles() {
        let check = |bundle: Value, expect: &str| check(json!([{"clusterTrustBundle": bundle}]), expect);
        check(json!({"path": "p", "name": "a.b:c:d"}), "");
        check(
            json!({"path": ""}),
            "[#.clusterTrustBundle: Required value: either name or signerName must be specified, #.clusterTrustBundle.path: Required value]",
        );
        check(
            json!({"path": "p", "name": "n", "signerName": "a.b/c"}),
            "#.clusterTrustBundle: Invalid value: {\"Name\":\"n\",\"SignerName\":\"a.b/c\",\"LabelSelector\":null,\"Optional\":null,\"Path\":\"p\",\"User\":null}: only one of name and signerName may be used",
        );
        check(
            json!({"path": "/p", "signerName": "x"}),
            "[#.clusterTrustBundle.signerName: Invalid value: \"x\": must be a fully qualified domain and path of the form 'example.com/signer-name', #.clusterTrustBundle.path: Invalid value: \"/p\": must be a relative path]",
        );
    }

    #[test]
    fn certificates() {
        let check = |certificate: Value, expect: &str| check(json!([{"podCertificate": certificate}]), expect);
        check(json!({"signerName": "a.b/c", "keyType": "ED25519", "keyPath": "k"}), "");
        check(
            json!({"signerName": "kubernetes.io/c", "keyType": "X", "maxExpirationSeconds": 90000}),
            "[#.podCertificate.keyType: Unsupported value: \"X\": supported values: \"RSA3072\", \"RSA4096\", \"ECDSAP256\", \"ECDSAP384\", \"ECDSAP521\", \"ED25519\", #.podCertificate.maxExpirationSeconds: Invalid value: 90000: if provided, maxExpirationSeconds must be <= 86400, #.podCertificate: Required value: specify at least one of credentialBundlePath, keyPath, and certificateChainPath]",
        );
        check(
            json!({"signerName": "a.b/c", "keyType": "ED25519", "keyPath": "k", "userAnnotations": {"a": "b"}}),
            "#.podCertificate.userAnnotations: Invalid value: \"a\": must be a domain-prefixed key (such as \"acme.io/foo\")",
        );
    }
}
