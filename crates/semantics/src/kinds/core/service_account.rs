//! ServiceAccount: of its secret references only the name is kept.

use k8s_openapi::api::core::v1::{ObjectReference, ServiceAccount};

use crate::names::subdomain_name;
use crate::strategy::{Context, Shape, Write};
use crate::typed::Rules;

pub struct ServiceAccountRules;

impl Rules for ServiceAccountRules {
    type Object = ServiceAccount;
    const SHAPE: Shape = Shape::new(subdomain_name);

    fn prepare_create(_context: &Context, object: &mut ServiceAccount) {
        clean_secrets(object);
    }

    fn prepare_update(_write: &Write<'_>, object: &mut ServiceAccount, _old: &ServiceAccount) {
        clean_secrets(object);
    }
}

fn clean_secrets(object: &mut ServiceAccount) {
    for secret in object.secrets.iter_mut().flatten() {
        *secret = ObjectReference { name: secret.name.take(), ..ObjectReference::default() };
    }
}
