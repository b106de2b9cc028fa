//! The IP families of a Service, on a cluster whose Services have IPv4 addresses.
//!
//! Input: a defaulted spec, and the old one of an update. Output: the same with `ipFamilyPolicy` and `ipFamilies` filled in,
//! or why they cannot be. Runs before an address is allocated. A headless Service without selector has endpoints of its
//! author's, and so may name families that the cluster does not have.

use k8s_openapi::api::core::v1::ServiceSpec;
use serde_json::json;

use super::{needs_cluster_ip, validation};
use crate::defaults::{fill, text};
use crate::field::{Errors, Path};

/// The family of the cluster's Services, and the other.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

pub(super) fn settle(spec: &mut ServiceSpec, old: Option<&ServiceSpec>, errors: &mut Errors) {
    if !needs_cluster_ip(spec) {
        return;
    }
    let is_bare = text(&spec.cluster_ip) == "None" && spec.selector.as_ref().is_none_or(|labels| labels.is_empty());
    let usual = if is_bare { "RequireDualStack" } else { "SingleStack" };
    let known = old.and_then(|old| old.ip_family_policy.clone());
    fill(&mut spec.ip_family_policy, known.unwrap_or_else(|| usual.to_owned()));
    validation::validate_addresses(spec, &Path::root("spec"), errors);
    if !errors.is_empty() {
        return;
    }
    if let Some(old) = old {
        release_secondary(spec, old, errors);
    }
    validate_single(spec, errors);
    infer_families(spec, errors);
    if errors.is_empty() && !is_bare {
        validate_configured(spec, errors);
    }
    if errors.is_empty() {
        fill_families(spec, is_bare);
    }
}

fn is_single(spec: &ServiceSpec) -> bool {
    text(&spec.ip_family_policy) == "SingleStack"
}

fn length<T>(list: &Option<Vec<T>>) -> usize {
    list.as_ref().map_or(0, Vec::len)
}

/// Asking for a single stack, with the rest as it was, gives the second address and family up.
fn release_secondary(spec: &mut ServiceSpec, old: &ServiceSpec, errors: &mut Errors) {
    if is_single(spec) {
        for (list, old) in [(&mut spec.cluster_ips, &old.cluster_ips), (&mut spec.ip_families, &old.ip_families)] {
            if let Some(values) = list
                && Some(&*values) == old.as_ref()
            {
                values.truncate(1);
            }
        }
        return;
    }
    let lists =
        [("cluster IP", &spec.cluster_ips, &old.cluster_ips), ("IP family", &spec.ip_families, &old.ip_families)];
    for (what, list, old) in lists {
        if (1..length(old)).contains(&length(list)) {
            refuse_policy(spec, &format!("must be 'SingleStack' to release the secondary {what}"), errors);
        }
    }
}

fn validate_single(spec: &ServiceSpec, errors: &mut Errors) {
    if !is_single(spec) {
        return;
    }
    for (what, list) in [("cluster IPs", &spec.cluster_ips), ("IP families", &spec.ip_families)] {
        if length(list) == 2 {
            let why = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            refuse_policy(spec, &why, errors);
        }
    }
}

fn refuse_policy(spec: &ServiceSpec, why: &str, errors: &mut Errors) {
    errors.invalid(Path::root("spec").child("ipFamilyPolicy"), text(&spec.ip_family_policy), why);
}

/// An address that is asked for says its family.
fn infer_families(spec: &mut ServiceSpec, errors: &mut Errors) {
    let ips = spec.cluster_ips.clone().unwrap_or_default();
    for (index, ip) in ips.iter().enumerate().filter(|(_, ip)| *ip != "None").skip(length(&spec.ip_families)) {
        let [own, other] = FAMILIES;
        if ip.contains(':') {
            let path = Path::root("spec").child("clusterIPs").index(index);
            errors.invalid(path, json!(ips), format!("{other} is not configured on this cluster"));
        } else {
            spec.ip_families.get_or_insert_default().push(own.to_owned());
        }
    }
}

fn validate_configured(spec: &ServiceSpec, errors: &mut Errors) {
    if text(&spec.ip_family_policy) == "RequireDualStack" {
        refuse_policy(spec, "this cluster is not configured for dual-stack services", errors);
    }
    for (index, family) in spec.ip_families.iter().flatten().enumerate().filter(|(_, family)| *family != FAMILIES[0]) {
        let path = Path::root("spec").child("ipFamilies").index(index);
        errors.invalid(path, family.as_str(), "not configured on this cluster");
    }
}

fn fill_families(spec: &mut ServiceSpec, is_bare: bool) {
    let wants_both = is_bare && !is_single(spec);
    let families = spec.ip_families.get_or_insert_default();
    if families.is_empty() {
        families.push(FAMILIES[0].to_owned());
    }
    if wants_both {
        let missing = FAMILIES.into_iter().filter(|family| !families.iter().any(|known| known == family));
        let missing: Vec<String> = missing.map(str::to_owned).collect();
        families.extend(missing);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value};

    use super::*;

    /// `Ok` with policy and families, or the errors.
    fn settled(spec: Value, old: Option<Value>) -> Result<String, String> {
        let mut spec: ServiceSpec = from_value(spec).unwrap();
        let old: Option<ServiceSpec> = old.map(|old| from_value(old).unwrap());
        let mut errors = Errors::new();
        settle(&mut spec, old.as_ref(), &mut errors);
        if !errors.is_empty() {
            let lines = errors.into_vec().iter().map(ToString::to_string).collect::<Vec<_>>();
            return Err(lines.join("; "));
        }
        Ok(format!("{} {}", text(&spec.ip_family_policy), spec.ip_families.unwrap_or_default().join(",")))
    }

    #[test]
    fn created() {
        let check = |spec: Value, expect: &str| assert_eq!(settled(spec, None).as_deref(), Ok(expect));
        check(json!({}), "SingleStack IPv4");
        check(json!({"ipFamilyPolicy": "PreferDualStack"}), "PreferDualStack IPv4");
        check(json!({"clusterIP": "10.43.0.8", "clusterIPs": ["10.43.0.8"]}), "SingleStack IPv4");
        check(json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}}), "SingleStack IPv4");
        let bare = |field: &str, value: Value| json!({"clusterIP": "None", "clusterIPs": ["None"], field: value});
        check(bare("selector", json!({})), "RequireDualStack IPv4,IPv6");
        check(bare("ipFamilyPolicy", json!("PreferDualStack")), "PreferDualStack IPv4,IPv6");
        check(bare("ipFamilyPolicy", json!("SingleStack")), "SingleStack IPv4");
        check(bare("ipFamilies", json!(["IPv6"])), "RequireDualStack IPv6,IPv4");
    }

    #[test]
    fn refused() {
        let check = |spec: Value, expect: &str| assert_eq!(settled(spec, None), Err(expect.to_owned()));
        let ips = |ips: &[&str]| json!({"clusterIP": ips[0], "clusterIPs": ips});
        check(
            json!({"clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.8"]}),
            "spec.clusterIPs: Invalid value: [\"10.43.0.8\"]: first value must match `clusterIP`",
        );
        check(
            json!({"clusterIPs": ["10.43.0.8"]}),
            "spec.clusterIPs: Invalid value: [\"10.43.0.8\"]: must be empty when `clusterIP` is not specified",
        );
        check(
            ips(&["10.43.0.8", "10.43.0.9"]),
            "spec.clusterIPs: Invalid value: [\"10.43.0.8\",\"10.43.0.9\"]: may specify no more than one IP for each IP family",
        );
        check(
            ips(&["10.43.0.8", "fd00::1"]),
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified; spec.clusterIPs[1]: Invalid value: [\"10.43.0.8\",\"fd00::1\"]: IPv6 is not configured on this cluster",
        );
        check(
            ips(&["fd00::1"]),
            "spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this cluster",
        );
        check(
            ips(&["None", "10.43.0.1"]),
            "spec.clusterIPs: Invalid value: [\"None\",\"10.43.0.1\"]: 'None' must be the first and only value",
        );
        check(
            ips(&["x", "y"]),
            "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff); spec.clusterIPs[1]: Invalid value: \"y\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
        check(
            json!({"ipFamilies": ["IPv4", "IPv6"]}),
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
        );
        check(
            json!({"ipFamilies": ["IPv6"], "ipFamilyPolicy": "RequireDualStack"}),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services; spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
        );
        let mut mismatch = ips(&["10.43.0.8"]);
        mismatch["ipFamilies"] = json!(["IPv6"]);
        check(
            mismatch,
            "spec.clusterIPs[0]: Invalid value: \"10.43.0.8\": expected an IPv6 value as indicated by `ipFamilies[0]`",
        );
    }

    #[test]
    fn updated() {
        let bare = |policy: Value, families: Value| json!({"clusterIP": "None", "clusterIPs": ["None"], "ipFamilyPolicy": policy, "ipFamilies": families});
        let both = || bare(json!("RequireDualStack"), json!(["IPv4", "IPv6"]));
        let check = |spec: Value, expect: Result<&str, &str>| {
            assert_eq!(settled(spec, Some(both())), expect.map(str::to_owned).map_err(str::to_owned));
        };
        check(bare(json!(null), json!(["IPv4", "IPv6"])), Ok("RequireDualStack IPv4,IPv6"));
        check(bare(json!("SingleStack"), json!(["IPv4", "IPv6"])), Ok("SingleStack IPv4"));
        check(
            bare(json!("RequireDualStack"), json!(["IPv4"])),
            Err(
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the secondary IP family",
            ),
        );
    }
}
