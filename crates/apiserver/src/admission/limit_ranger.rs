//! LimitRanger: what a namespace's LimitRanges give containers by default, and what they allow.
//!
//! In: pod creates and resizes, claim writes. Out: missing requests and limits filled in (and an annotation that says so);
//! 403 for amounts outside of the ranges, with every violation of a range named.
//!
//! Pod totals count as the scheduler counts them: containers and sidecars together, or the largest init container with the
//! sidecars before it; pod-level resources override.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{refuse, text};
use crate::chain::{Admission, AdmissionRequest, Operation};
use crate::error::ApiError;
use crate::reader::Reader;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Amounts up to here compare by thousandths, larger ones by whole units.
const MILLI_VALUE_MAX: i64 = i64::MAX / 1000;
const POD_LEVEL: [&str; 2] = ["cpu", "memory"];

type Amounts = BTreeMap<String, Quantity>;

/// See the module.
pub struct LimitRanger;

impl Admission for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn mutate<'a>(
        &'a self,
        request: &'a mut AdmissionRequest,
        reader: &'a dyn Reader,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            if concerns(request) && request.resource == "pods" {
                for range in reader.list("", "limitranges", &request.namespace) {
                    if let Some(pod) = &mut request.object {
                        fill_defaults(pod, &range);
                    }
                }
            }
            Ok(())
        })
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest,
        reader: &'a dyn Reader,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let Some(object) = request.object.as_ref().filter(|_| concerns(request)) else { return Ok(()) };
            for range in reader.list("", "limitranges", &request.namespace) {
                let problems = violations(object, &request.resource, &range);
                match problems.as_slice() {
                    [] => {}
                    [one] => return Err(refuse(request, one)),
                    many => return Err(refuse(request, &format!("[{}]", many.join(", ")))),
                }
            }
            Ok(())
        })
    }
}

/// Containers cannot change by a plain update, so only creates and resizes of pods matter; an object that is being
/// deleted does not.
fn concerns(request: &AdmissionRequest) -> bool {
    let written = matches!(
        (&*request.resource, &*request.subresource, request.operation),
        ("pods", "", Operation::Create)
            | ("pods", "resize", Operation::Update)
            | ("persistentvolumeclaims", "", Operation::Create | Operation::Update)
    );
    let deleted = request.old_object.as_ref().is_some_and(|old| old["metadata"]["deletionTimestamp"].is_string());
    request.group.is_empty() && written && !deleted
}

fn limits_of<'a>(range: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    range["spec"]["limits"].as_array().into_iter().flatten().filter(move |limit| limit["type"] == kind)
}

fn fill_defaults(pod: &mut Value, range: &Value) {
    let mut defaults = json!({"limits": {}, "requests": {}});
    for limit in limits_of(range, "Container") {
        for (from, to) in [("default", "limits"), ("defaultRequest", "requests")] {
            for (name, amount) in limit[from].as_object().into_iter().flatten() {
                defaults[to][name] = amount.clone();
            }
        }
    }
    let mut notes = Vec::new();
    for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            for (field, what) in [("requests", "request"), ("limits", "limit")] {
                let set = fill(&mut container["resources"], field, &defaults[field]);
                if !set.is_empty() {
                    notes.push(format!("{} {what} for {word} {}", set.join(", "), text(&container["name"])));
                }
            }
        }
    }
    if !notes.is_empty() {
        pod["metadata"]["annotations"][ANNOTATION] = format!("LimitRanger plugin set: {}", notes.join("; ")).into();
    }
}

/// Adds what is missing; returns the names added, sorted.
fn fill(resources: &mut Value, field: &str, defaults: &Value) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in defaults.as_object().into_iter().flatten() {
        if resources[field].get(name).is_none() {
            resources[field][name] = amount.clone();
            set.push(name.clone());
        }
    }
    set
}

fn violations(object: &Value, resource: &str, range: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let spec = &object["spec"];
    if resource == "persistentvolumeclaims" {
        let asked = Asked {
            kind: "PersistentVolumeClaim",
            requests: amounts(&spec["resources"]["requests"]),
            limits: Amounts::new(),
        };
        for limit in limits_of(range, asked.kind) {
            out.extend(amounts(&limit["min"]).iter().filter_map(|(name, bound)| asked.below(name, bound)));
            out.extend(amounts(&limit["max"]).iter().filter_map(|(name, bound)| asked.request_above(name, bound)));
        }
        return out;
    }
    for limit in range["spec"]["limits"].as_array().into_iter().flatten() {
        let asked: Vec<Asked> = match text(&limit["type"]) {
            "Container" => containers(spec)
                .map(|container| Asked {
                    kind: "Container",
                    requests: amounts(&container["resources"]["requests"]),
                    limits: amounts(&container["resources"]["limits"]),
                })
                .collect(),
            "Pod" => {
                vec![Asked { kind: "Pod", requests: pod_total(spec, "requests"), limits: pod_total(spec, "limits") }]
            }
            _ => continue,
        };
        for asked in asked {
            out.extend(amounts(&limit["min"]).iter().filter_map(|(name, bound)| asked.below(name, bound)));
            out.extend(amounts(&limit["max"]).iter().filter_map(|(name, bound)| asked.above(name, bound)));
            let ratios = amounts(&limit["maxLimitRequestRatio"]);
            out.extend(ratios.iter().filter_map(|(name, bound)| asked.ratio_above(name, bound)));
        }
    }
    out
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["containers", "initContainers"].into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten())
}

/// What a container, pod or claim asks for, against one bound.
struct Asked {
    kind: &'static str,
    requests: Amounts,
    limits: Amounts,
}

impl Asked {
    fn below(&self, name: &str, bound: &Quantity) -> Option<String> {
        let head = format!("minimum {name} usage per {} is {bound}", self.kind);
        let Some(request) = self.requests.get(name) else { return Some(format!("{head}.  No request is specified")) };
        if less(request, bound) {
            return Some(format!("{head}, but request is {request}"));
        }
        let limit = self.limits.get(name).filter(|limit| less(limit, bound))?;
        Some(format!("{head}, but limit is {limit}"))
    }

    fn above(&self, name: &str, bound: &Quantity) -> Option<String> {
        let head = format!("maximum {name} usage per {} is {bound}", self.kind);
        let Some(limit) = self.limits.get(name) else { return Some(format!("{head}.  No limit is specified")) };
        if less(bound, limit) {
            return Some(format!("{head}, but limit is {limit}"));
        }
        let request = self.requests.get(name).filter(|request| less(bound, request))?;
        Some(format!("{head}, but request is {request}"))
    }

    fn request_above(&self, name: &str, bound: &Quantity) -> Option<String> {
        let head = format!("maximum {name} usage per {} is {bound}", self.kind);
        let Some(request) = self.requests.get(name) else { return Some(format!("{head}.  No request is specified")) };
        less(bound, request).then(|| format!("{head}, but request is {request}"))
    }

    fn ratio_above(&self, name: &str, bound: &Quantity) -> Option<String> {
        let head = format!("{name} max limit to request ratio per {} is {bound}", self.kind);
        let nonzero = |amounts: &Amounts| amounts.get(name).filter(|amount| !amount.is_zero()).map(Quantity::as_f64);
        let Some(request) = nonzero(&self.requests) else {
            return Some(format!("{head}, but no request is specified or request is 0"));
        };
        let Some(limit) = nonzero(&self.limits) else {
            return Some(format!("{head}, but no limit is specified or limit is 0"));
        };
        let ratio = limit / request;
        (ratio > bound.as_f64()).then(|| format!("{head}, but provided ratio is {ratio:.6}"))
    }
}

fn less(a: &Quantity, b: &Quantity) -> bool {
    if a.value() <= MILLI_VALUE_MAX && b.value() <= MILLI_VALUE_MAX {
        a.milli_value() < b.milli_value()
    } else {
        a.value() < b.value()
    }
}

/// Unparseable amounts are left out; validation has refused them already.
fn amounts(value: &Value) -> Amounts {
    let pairs = value.as_object().into_iter().flatten();
    pairs.filter_map(|(name, amount)| Some((name.clone(), Quantity::parse(&amount_text(amount)?).ok()?))).collect()
}

fn amount_text(amount: &Value) -> Option<String> {
    amount.as_str().map(str::to_owned).or_else(|| amount.is_number().then(|| amount.to_string()))
}

fn pod_total(spec: &Value, field: &str) -> Amounts {
    let of = |container: &Value| amounts(&container["resources"][field]);
    let mut total = Amounts::new();
    for container in spec["containers"].as_array().into_iter().flatten() {
        add(&mut total, &of(container));
    }
    let (mut sidecars, mut init) = (Amounts::new(), Amounts::new());
    for container in spec["initContainers"].as_array().into_iter().flatten() {
        let mut here = of(container);
        if container["restartPolicy"] == "Always" {
            add(&mut total, &here);
            add(&mut sidecars, &here);
            here = sidecars.clone();
        } else {
            add(&mut here, &sidecars);
        }
        raise(&mut init, &here);
    }
    raise(&mut total, &init);
    for (name, amount) in amounts(&spec["resources"][field]) {
        if POD_LEVEL.contains(&name.as_str()) || name.starts_with("hugepages-") {
            total.insert(name, amount);
        }
    }
    total
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.get(name).map_or_else(|| amount.clone(), |known| known.add(amount));
        total.insert(name.clone(), sum);
    }
}

fn raise(total: &mut Amounts, floor: &Amounts) {
    for (name, amount) in floor {
        if total.get(name).is_none_or(|known| known < amount) {
            total.insert(name.clone(), amount.clone());
        }
    }
}
