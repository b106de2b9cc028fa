//! Resource claims: those a pod names, and those its containers use.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PodResourceClaim, PodSpec, ResourceClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::{dns1123_label, subdomain_name};

/// Marks a pod that a kubelet runs from a file and only shows in the API.
pub(super) const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// The names that containers may refer to.
pub(super) fn claim_names(spec: &PodSpec) -> BTreeSet<&str> {
    spec.resource_claims.iter().flatten().map(|claim| claim.name.as_str()).filter(|name| !name.is_empty()).collect()
}

pub(super) fn validate_pod_claims(spec: &PodSpec, metadata: &ObjectMeta, path: &Path, errors: &mut Errors) {
    let mirrored = metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR_ANNOTATION));
    let mut names = BTreeSet::new();
    for (index, claim) in spec.resource_claims.iter().flatten().enumerate() {
        if mirrored {
            errors.forbidden(Path::root("[]"), "static pods do not support resource claims");
        } else {
            validate_pod_claim(claim, &mut names, &path.index(index), errors);
        }
    }
}

fn validate_pod_claim<'a>(
    claim: &'a PodResourceClaim,
    names: &mut BTreeSet<&'a str>,
    path: &Path,
    errors: &mut Errors,
) {
    if claim.name.is_empty() {
        errors.required(path.child("name"), "");
    } else if !names.insert(&claim.name) {
        errors.duplicate(path.child("name"), claim.name.as_str());
    } else {
        errors.invalid_each(&path.child("name"), &claim.name, dns1123_label(&claim.name));
    }
    let (made, template) = (&claim.resource_claim_name, &claim.resource_claim_template_name);
    let detail = match (made, template) {
        (Some(_), Some(_)) => "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
        (None, None) => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
        _ => "",
    };
    if !detail.is_empty() {
        let fields = [
            ("Name", json!(claim.name)),
            ("ResourceClaimName", json!(made)),
            ("ResourceClaimTemplateName", json!(template)),
        ];
        errors.invalid_struct(path.clone(), &fields, detail);
    }
    for (field, name) in [("resourceClaimName", made), ("resourceClaimTemplateName", template)] {
        if let Some(name) = name {
            errors.invalid_each(&path.child(field), name, subdomain_name(name, false));
        }
    }
}

/// What a container uses: whole claims, or single requests of them, nothing twice. `known` are the pod's claims.
pub(super) fn validate_container_claims(
    claims: &[ResourceClaim],
    known: &BTreeSet<&str>,
    path: &Path,
    errors: &mut Errors,
) {
    let mut used: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (index, claim) in claims.iter().enumerate() {
        let path = path.index(index);
        let (name, request) = (claim.name.as_str(), text(&claim.request));
        if name.is_empty() {
            errors.required(path, "");
            continue;
        }
        if used.contains(&(name, "")) {
            errors.duplicate(path.clone(), name);
        } else {
            validate_use((name, request), &used, &path, errors);
            used.insert((name, request));
        }
        if !known.contains(name) {
            let among = known.iter().copied().collect::<Vec<_>>().join(", ");
            let among = if among.is_empty() { " which is empty".to_owned() } else { format!(": {among}") };
            errors.not_found_among(path, name, format!("must be one of the names in pod.spec.resourceClaims{among}"));
        }
    }
}

/// The claim as a whole has not been used before; is this request of it, or any, if the whole is asked for now?
fn validate_use((name, request): (&str, &str), used: &BTreeSet<(&str, &str)>, path: &Path, errors: &mut Errors) {
    if request.is_empty() {
        for _ in used.iter().filter(|(other, _)| *other == name) {
            errors.duplicate(path.clone(), name);
        }
        return;
    }
    errors.invalid_each(&path.child("request"), request, dns1123_label(request));
    if used.contains(&(name, request)) {
        errors.duplicate(path.clone(), format!("{name}/{request}"));
    }
}

#[cfg(test)]
mod tests {
    use crate::check::check_create;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(pod_claims: Value, used: Value, expect: &str) {
        let container = json!({"name": "c", "image": "i", "resources": {"claims": used}});
        let spec = json!({"containers": [container], "resourceClaims": pod_claims});
        let expect = expect.replace('@', "spec.resourceClaims").replace('#', "spec.containers[0].resources.claims");
        check_create("", "v1", "Pod", json!({ "spec": spec }), &expect);
    }

    #[test]
    fn claims_of_the_pod() {
        let claim = json!({"name": "r", "resourceClaimName": "c"});
        check(json!([claim, {"name": "s", "resourceClaimTemplateName": "t"}]), json!([]), "");
        check(json!([claim, claim]), json!([]), "@[1].name: Duplicate value: \"r\"");
        check(
            json!([{}]),
            json!([]),
            "[@[0].name: Required value, @[0]: Invalid value: {\"Name\":\"\",\"ResourceClaimName\":null,\"ResourceClaimTemplateName\":null}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`]",
        );
        check(
            json!([{"name": "r", "resourceClaimName": "c", "resourceClaimTemplateName": "t"}]),
            json!([]),
            "@[0]: Invalid value: {\"Name\":\"r\",\"ResourceClaimName\":\"c\",\"ResourceClaimTemplateName\":\"t\"}: at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
        );
    }

    #[test]
    fn claims_in_use() {
        let claims = || json!([{"name": "r", "resourceClaimName": "c"}, {"name": "s", "resourceClaimName": "d"}]);
        check(claims(), json!([{"name": "r", "request": "a"}, {"name": "r", "request": "b"}, {"name": "s"}]), "");
        check(claims(), json!([{"name": "r"}, {"name": "r", "request": "a"}]), "#[1]: Duplicate value: \"r\"");
        check(claims(), json!([{"name": "r", "request": "a"}, {"name": "r"}]), "#[1]: Duplicate value: \"r\"");
        let twice = json!([{"name": "r", "request": "a"}, {"name": "r", "request": "a"}]);
        check(claims(), twice, "#[1]: Duplicate value: \"r/a\"");
        check(
            claims(),
            json!([{"name": "z"}, {"name": ""}]),
            "[#[0]: Not found: \"z\": must be one of the names in pod.spec.resourceClaims: r, s, #[1]: Required value]",
        );
        check(
            json!([]),
            json!([{"name": "z"}]),
            "#[0]: Not found: \"z\": must be one of the names in pod.spec.resourceClaims which is empty",
        );
    }
}
