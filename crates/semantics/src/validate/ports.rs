//! Port numbers, and ports given by number or name.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::field::{Errors, Path};
use crate::names::{port_name, port_number};

pub fn validate_port_or_name(port: &IntOrString, path: &Path, errors: &mut Errors) {
    match port {
        IntOrString::Int(number) => {
            for message in port_number(i64::from(*number)) {
                errors.invalid(path.clone(), *number, message);
            }
        }
        IntOrString::String(name) => errors.invalid_each(path, name, port_name(name)),
    }
}
