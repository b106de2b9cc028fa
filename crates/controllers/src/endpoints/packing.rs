//! Which endpoint goes into which slice: existing slices and wanted endpoints -> the slices' new contents.
//!
//! Invariants: at most [`ENDPOINTS_MAX`] endpoints a slice; an endpoint that stays wanted stays where it is; new ones go
//! to slices that change anyway, then to the fullest that can take them all, then to new slices: few slices change.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// Upstream's default; larger slices cost every node more per change.
pub(super) const ENDPOINTS_MAX: usize = 100;

/// The outcome.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Packing {
    /// For each existing slice its endpoints; none means that it is to go.
    pub kept: Vec<Option<Vec<Endpoint>>>,
    /// Slices to create.
    pub new: Vec<Vec<Endpoint>>,
}

pub(super) fn pack(existing: &[Arc<EndpointSlice>], wanted: &[Endpoint]) -> Packing {
    let mut missing: BTreeMap<Identity, Endpoint> =
        wanted.iter().map(|endpoint| (identity(endpoint), endpoint.clone())).collect();
    let mut contents: Vec<Vec<Endpoint>> = Vec::new();
    let mut changed = Vec::new();
    for slice in existing {
        let before = slice.endpoints.clone().unwrap_or_default();
        let kept: Vec<Endpoint> = before.iter().filter_map(|endpoint| missing.remove(&identity(endpoint))).collect();
        changed.push(kept != before);
        contents.push(kept);
    }
    // In the order of `wanted`, so that equal inputs give equal slices.
    let mut rest: Vec<Endpoint> =
        wanted.iter().filter(|endpoint| missing.contains_key(&identity(endpoint))).cloned().collect();
    rest.reverse();
    for (content, _) in contents.iter_mut().zip(&changed).filter(|(_, changed)| **changed) {
        fill(content, &mut rest);
    }
    if !rest.is_empty() {
        let room = |content: &&mut Vec<Endpoint>| content.len() + rest.len() <= ENDPOINTS_MAX;
        if let Some(content) = contents.iter_mut().filter(room).max_by_key(|content| content.len()) {
            fill(content, &mut rest);
        }
    }
    let mut new = Vec::new();
    while !rest.is_empty() {
        let mut content = Vec::new();
        fill(&mut content, &mut rest);
        new.push(content);
    }
    keep_one_empty(contents, new, wanted.is_empty())
}

/// Empty slices go, but a group without endpoints keeps (or gets) one.
fn keep_one_empty(contents: Vec<Vec<Endpoint>>, mut new: Vec<Vec<Endpoint>>, nothing_wanted: bool) -> Packing {
    let mut spare = nothing_wanted;
    let kept: Vec<Option<Vec<Endpoint>>> = contents
        .into_iter()
        .map(|content| (!content.is_empty() || std::mem::take(&mut spare)).then_some(content))
        .collect();
    if spare {
        new.push(Vec::new());
    }
    Packing { kept, new }
}

/// Moves endpoints from the end of `rest` until the slice is full.
fn fill(content: &mut Vec<Endpoint>, rest: &mut Vec<Endpoint>) {
    while content.len() < ENDPOINTS_MAX
        && let Some(endpoint) = rest.pop()
    {
        content.push(endpoint);
    }
}

type Identity = (Vec<String>, String);

/// What makes an endpoint the same one: its addresses and the object behind it.
fn identity(endpoint: &Endpoint) -> Identity {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()).unwrap_or_default();
    (endpoint.addresses.clone(), uid)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint(number: u16) -> Endpoint {
        Endpoint { addresses: vec![format!("10.42.{}.{}", number / 256, number % 256)], ..Endpoint::default() }
    }

    fn slice(numbers: impl IntoIterator<Item = u16>) -> Arc<EndpointSlice> {
        Arc::new(EndpointSlice {
            endpoints: Some(numbers.into_iter().map(endpoint).collect()),
            ..EndpointSlice::default()
        })
    }

    #[test]
    fn a_service_without_endpoints_keeps_one_empty_slice() {
        assert_eq!(pack(&[], &[]).new, [vec![]]);
        assert_eq!(pack(&[slice([1]), slice([2])], &[]).kept, [Some(vec![]), None]);
    }

    #[test]
    fn a_new_endpoint_fills_the_slice_that_changes() {
        let packing = pack(&[slice([1, 2]), slice([3, 4])], &[endpoint(1), endpoint(2), endpoint(4), endpoint(5)]);
        assert_eq!(packing.kept, [Some(vec![endpoint(1), endpoint(2)]), Some(vec![endpoint(4), endpoint(5)])]);
    }

    proptest! {
        /// Each wanted endpoint is in exactly one slice, no slice is too large, and packing again changes nothing.
        #[test]
        fn complete_bounded_and_stable(before in proptest::collection::vec(0..600u16, 0..400), after in proptest::collection::btree_set(0..600u16, 0..500)) {
            let before: std::collections::BTreeSet<u16> = before.into_iter().collect();
            let before: Vec<u16> = before.into_iter().collect();
            let slices: Vec<_> = before.chunks(ENDPOINTS_MAX).map(|part| slice(part.to_vec())).collect();
            let wanted: Vec<Endpoint> = after.iter().map(|number| endpoint(*number)).collect();
            let packing = pack(&slices, &wanted);
            let all: Vec<Vec<Endpoint>> = packing.kept.into_iter().flatten().chain(packing.new).collect();
            let mut found: Vec<String> = all.iter().flatten().map(|endpoint| endpoint.addresses[0].clone()).collect();
            let mut expected: Vec<String> = wanted.iter().map(|endpoint| endpoint.addresses[0].clone()).collect();
            found.sort();
            expected.sort();
            prop_assert_eq!(found, expected);
            prop_assert!(all.iter().all(|content| content.len() <= ENDPOINTS_MAX));
            let slices: Vec<_> = all.iter().map(|content| Arc::new(EndpointSlice { endpoints: Some(content.clone()), ..EndpointSlice::default() })).collect();
            let again = pack(&slices, &wanted);
            prop_assert!(again.new.is_empty());
            prop_assert_eq!(again.kept.into_iter().flatten().collect::<Vec<_>>(), all);
        }
    }
}
