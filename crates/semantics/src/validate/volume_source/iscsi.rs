//! iSCSI sources: the two types of the API, of pods and of persistent volumes, under one set of rules.

use k8s_openapi::api::core::v1::{ISCSIPersistentVolumeSource, ISCSIVolumeSource};

use super::{require, validate_lun};
use crate::field::{Errors, Path};

const NAME_AND_PORTAL_BYTES_MAX: usize = 64;
const TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

/// What both types have in common, and the words upstream uses for each where a name is of no known form.
struct Iscsi<'a> {
    target_portal: &'a str,
    iqn: &'a str,
    lun: i32,
    initiator: Option<&'a str>,
    needs_secret: bool,
    has_secret: bool,
    unknown_form: &'static str,
}

/// The source of a pod's volume.
pub(crate) fn validate_iscsi(source: &ISCSIVolumeSource, path: &Path, errors: &mut Errors) {
    let iscsi = Iscsi {
        target_portal: &source.target_portal,
        iqn: &source.iqn,
        lun: source.lun,
        initiator: source.initiator_name.as_deref(),
        needs_secret: source.chap_auth_discovery == Some(true) || source.chap_auth_session == Some(true),
        has_secret: source.secret_ref.is_some(),
        unknown_form: "must be valid format starting with iqn, eui, or naa",
    };
    require(&[("targetPortal", iscsi.target_portal)], path, errors);
    validate_target(&iscsi, path, errors);
    validate_initiator(&iscsi, path, errors);
}

/// A pod's volume and its portal make a name together; `path` is the volume's.
pub(crate) fn validate_iscsi_length(source: &ISCSIVolumeSource, volume: &str, path: &Path, errors: &mut Errors) {
    if source.initiator_name.is_some() && is_too_long(volume, &source.target_portal) {
        errors.invalid(path.child("name"), volume, TOO_LONG);
    }
}

/// The source of the persistent volume `volume`.
pub(crate) fn validate_persistent_iscsi(
    source: &ISCSIPersistentVolumeSource,
    volume: &str,
    path: &Path,
    errors: &mut Errors,
) {
    let iscsi = Iscsi {
        target_portal: &source.target_portal,
        iqn: &source.iqn,
        lun: source.lun,
        initiator: source.initiator_name.as_deref(),
        needs_secret: source.chap_auth_discovery == Some(true) || source.chap_auth_session == Some(true),
        has_secret: source.secret_ref.is_some(),
        unknown_form: "must be valid format",
    };
    require(&[("targetPortal", iscsi.target_portal)], path, errors);
    if iscsi.initiator.is_some() && is_too_long(volume, iscsi.target_portal) {
        errors.invalid(path.child("targetportal"), iscsi.target_portal, TOO_LONG);
    }
    validate_target(&iscsi, path, errors);
    if let Some(secret) = &source.secret_ref {
        require(&[("name", secret.name.as_deref().unwrap_or_default())], &path.child("secretRef"), errors);
    }
    validate_initiator(&iscsi, path, errors);
}

fn is_too_long(volume: &str, portal: &str) -> bool {
    volume.len() + ":".len() + portal.len() > NAME_AND_PORTAL_BYTES_MAX
}

fn validate_target(iscsi: &Iscsi<'_>, path: &Path, errors: &mut Errors) {
    if iscsi.iqn.is_empty() {
        errors.required(path.child("iqn"), "");
    } else {
        validate_name(iscsi.iqn, iscsi.unknown_form, path.child("iqn"), errors);
    }
    validate_lun(iscsi.lun, path, errors);
    if iscsi.needs_secret && !iscsi.has_secret {
        errors.required(path.child("secretRef"), "");
    }
}

fn validate_initiator(iscsi: &Iscsi<'_>, path: &Path, errors: &mut Errors) {
    if let Some(initiator) = iscsi.initiator {
        validate_name(initiator, iscsi.unknown_form, path.child("initiatorname"), errors);
    }
}

/// RFC 3720's three forms: `iqn.yyyy-mm.domain:name`, `eui.` with 16 and `naa.` with 32 letters and digits.
fn validate_name(name: &str, unknown_form: &str, path: Path, errors: &mut Errors) {
    let valid = match name.get(..3) {
        Some("iqn") => is_qualified(name),
        Some("eui") => has_letters(name, 16),
        Some("naa") => has_letters(name, 32),
        _ => return errors.invalid(path, name, unknown_form),
    };
    if !valid {
        errors.invalid(path, name, "must be valid format");
    }
}

fn has_letters(name: &str, count: usize) -> bool {
    let rest: Vec<char> = name.chars().skip("eui.".len()).collect();
    name.chars().nth("eui".len()).is_some() && rest.len() == count && rest.iter().all(char::is_ascii_alphanumeric)
}

/// The form may begin anywhere in the name, as upstream looks for it.
fn is_qualified(name: &str) -> bool {
    name.match_indices("iqn.").any(|(at, marker)| is_dated_name(&name[at + marker.len()..]))
}

fn is_dated_name(rest: &str) -> bool {
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    let Some((date, rest)) = rest.split_once('.') else { return false };
    let Some((year, month)) = date.split_once('-') else { return false };
    let Some((domain, name)) = rest.split_once(':') else { return false };
    let is_domain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let is_name = |c: char| !matches!(c, ',' | ';' | '*' | '&' | '$' | '|') && !c.is_ascii_whitespace();
    digits(year, 4)
        && digits(month, 2)
        && !domain.is_empty()
        && domain.chars().all(is_domain)
        && !name.is_empty()
        && name.chars().all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::aggregate;

    #[test]
    fn names_have_one_of_three_forms() {
        let check = |name: &str, expect: &str| {
            let mut errors = Errors::new();
            validate_name(name, "unknown", Path::root("n"), &mut errors);
            let said = aggregate(&errors.into_vec());
            assert!(said.ends_with(expect) && said.is_empty() == expect.is_empty(), "{name}: {said}");
        };
        check("iqn.2001-04.com.example:storage.disk1", "");
        check("iqn.2001-04.com.example", "must be valid format");
        check("iqn.2001-4.com.example:a", "must be valid format");
        check("iqn.2001-04.com.example:a b", "must be valid format");
        check("eui.0123456789abcdef", "");
        check("eui.0123", "must be valid format");
        check("naa.0123456789abcdef0123456789abcdef", "");
        check("nax", "unknown");
        check("", "unknown");
    }
}
