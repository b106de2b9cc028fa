//! Acting as someone else: the `Impersonate-*` headers.
//!
//! In: who asks, and the headers. Out: who the request acts as, 400 or 403.
//!
//! Invariant: each thing impersonated (user, group, uid, each extra value) is allowed one by one by the verb
//! `impersonate`, before any of it takes effect.

use http::HeaderMap;

use super::service_accounts::{group_names, split_user_name};
use super::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED};
use crate::authz::forbidden;
use crate::chain::{Attributes, Authorizer, Decision, Identity};
use crate::error::ApiError;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";

/// The identity that the request acts as; `requestor` itself without impersonation headers.
pub async fn apply(
    requestor: Identity,
    headers: &HeaderMap,
    authorizer: &dyn Authorizer,
) -> Result<Identity, ApiError> {
    let wanted = parse(headers)?;
    let Some(wanted) = wanted else { return Ok(requestor) };
    for attributes in wanted.checks(&requestor) {
        match authorizer.authorize(&attributes).await {
            Decision::Allow => {}
            Decision::Deny(reason) | Decision::NoOpinion(reason) => return Err(forbidden(&attributes, &reason)),
        }
    }
    Ok(wanted.resolve())
}

/// What the headers ask for.
#[derive(Debug, Default)]
struct Wanted {
    identity: Identity,
}

fn parse(headers: &HeaderMap) -> Result<Option<Wanted>, ApiError> {
    let values = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    };
    let first = |name: &str| values(name).into_iter().next().unwrap_or_default();
    let mut identity = Identity {
        user: first(USER),
        uid: first(UID),
        groups: values(GROUP),
        extra: std::collections::BTreeMap::new(),
    };
    for name in headers.keys().map(http::HeaderName::as_str) {
        if let Some(key) = name.strip_prefix(EXTRA_PREFIX) {
            identity.extra.insert(percent_decode(key), values(name));
        }
    }
    let others = !identity.groups.is_empty() || !identity.extra.is_empty() || !identity.uid.is_empty();
    match (identity.user.is_empty(), others) {
        (true, false) => Ok(None),
        (true, true) => {
            let names: Vec<&str> =
                headers.keys().map(http::HeaderName::as_str).filter(|n| n.starts_with("impersonate-")).collect();
            Err(ApiError::bad_request(format!("requested {names:?} without impersonating a user")))
        }
        (false, _) => Ok(Some(Wanted { identity })),
    }
}

impl Wanted {
    fn checks(&self, requestor: &Identity) -> Vec<Attributes> {
        let check = |group: &str, resource: &str, namespace: &str, name: &str| Attributes {
            identity: requestor.clone(),
            verb: "impersonate".to_owned(),
            is_resource: true,
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        };
        let wanted = &self.identity;
        let mut out = vec![match split_user_name(&wanted.user) {
            Some((namespace, name)) => check("", "serviceaccounts", namespace, name),
            None => check("", "users", "", &wanted.user),
        }];
        out.extend(wanted.groups.iter().map(|group| check("", "groups", "", group)));
        for (key, values) in &wanted.extra {
            out.extend(values.iter().map(|value| Attributes {
                subresource: key.clone(),
                ..check(AUTHENTICATION_GROUP, "userextras", "", value)
            }));
        }
        if !wanted.uid.is_empty() {
            out.push(check(AUTHENTICATION_GROUP, "uids", "", &wanted.uid));
        }
        out
    }

    /// Adds the groups that come with the user: those of a service account when none were given, and whether the user
    /// counts as authenticated.
    fn resolve(self) -> Identity {
        let mut identity = self.identity;
        if let Some((namespace, _)) = split_user_name(&identity.user)
            && identity.groups.is_empty()
        {
            identity.groups = group_names(namespace);
        }
        if identity.user == ANONYMOUS {
            if !identity.in_group(UNAUTHENTICATED) {
                identity.groups.push(UNAUTHENTICATED.to_owned());
            }
        } else if !identity.in_group(AUTHENTICATED) && !identity.in_group(UNAUTHENTICATED) {
            identity.groups.push(AUTHENTICATED.to_owned());
        }
        identity
    }
}

/// `%2F` -> `/`; a malformed text stays as it is.
fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'%' {
            out.push(byte);
            rest = tail;
            continue;
        }
        let Some((hex, tail)) = tail.split_at_checked(2) else { return text.to_owned() };
        let Some(value) = std::str::from_utf8(hex).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()) else {
            return text.to_owned();
        };
        out.push(value);
        rest = tail;
    }
    String::from_utf8(out).unwrap_or_else(|_invalid| text.to_owned())
}
