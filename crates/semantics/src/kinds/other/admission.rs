//! The admission registration group: webhooks and policies.

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, MutatingAdmissionPolicy, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference,
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration, WebhookClientConfig,
};

use super::super::PLAIN;
use crate::defaults::fill;
use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::strategy::{Generation, Shape, StatusMetadata, Strategy};
use crate::typed::{Rules, Typed};

const WEBHOOK: Shape = Shape::new(subdomain_name).any_finalizers().generation(Generation::Content);

pub fn strategy(version: &str, kind: &str) -> &'static dyn Strategy {
    match (version, kind) {
        ("v1", "ValidatingWebhookConfiguration") => const { &Typed::<ValidatingWebhookRules>::new() },
        ("v1", "MutatingWebhookConfiguration") => const { &Typed::<MutatingWebhookRules>::new() },
        ("v1", "ValidatingAdmissionPolicy") => const { &Typed::<ValidatingPolicyRules>::new() },
        ("v1", "ValidatingAdmissionPolicyBinding") => const { &Typed::<ValidatingPolicyBindingRules>::new() },
        ("v1", "MutatingAdmissionPolicy") => const { &Typed::<MutatingPolicyRules>::new() },
        _ => &PLAIN,
    }
}

pub struct ValidatingWebhookRules;

impl Rules for ValidatingWebhookRules {
    type Object = ValidatingWebhookConfiguration;
    const SHAPE: Shape = WEBHOOK;

    fn default(object: &mut Self::Object) {
        for hook in object.webhooks.iter_mut().flatten() {
            fill(&mut hook.failure_policy, "Fail".to_owned());
            fill(&mut hook.match_policy, "Equivalent".to_owned());
            hook.namespace_selector.get_or_insert_default();
            hook.object_selector.get_or_insert_default();
            fill(&mut hook.timeout_seconds, 10);
            default_rules(&mut hook.rules);
            default_client(&mut hook.client_config);
        }
    }

    fn validate(object: &Self::Object, errors: &mut Errors) {
        let hooks = object.webhooks.iter().flatten();
        validate_hooks(hooks.map(|h| (&h.name, &h.client_config, &h.side_effects, h.timeout_seconds)), errors);
    }
}

pub struct MutatingWebhookRules;

impl Rules for MutatingWebhookRules {
    type Object = MutatingWebhookConfiguration;
    const SHAPE: Shape = WEBHOOK;

    fn default(object: &mut Self::Object) {
        for hook in object.webhooks.iter_mut().flatten() {
            fill(&mut hook.failure_policy, "Fail".to_owned());
            fill(&mut hook.match_policy, "Equivalent".to_owned());
            hook.namespace_selector.get_or_insert_default();
            hook.object_selector.get_or_insert_default();
            fill(&mut hook.timeout_seconds, 10);
            fill(&mut hook.reinvocation_policy, "Never".to_owned());
            default_rules(&mut hook.rules);
            default_client(&mut hook.client_config);
        }
    }

    fn validate(object: &Self::Object, errors: &mut Errors) {
        let hooks = object.webhooks.iter().flatten();
        validate_hooks(hooks.map(|h| (&h.name, &h.client_config, &h.side_effects, h.timeout_seconds)), errors);
    }
}

fn default_rules(rules: &mut Option<Vec<RuleWithOperations>>) {
    for rule in rules.iter_mut().flatten() {
        fill(&mut rule.scope, "*".to_owned());
    }
}

fn default_client(client: &mut WebhookClientConfig) {
    if let Some(ServiceReference { port, .. }) = &mut client.service {
        fill(port, 443);
    }
}

type HookFacts<'a> = (&'a String, &'a WebhookClientConfig, &'a String, Option<i32>);

fn validate_hooks<'a>(hooks: impl Iterator<Item = HookFacts<'a>>, errors: &mut Errors) {
    let mut names = std::collections::BTreeSet::new();
    for (index, (name, client, side_effects, timeout)) in hooks.enumerate() {
        let path = Path::root("webhooks").index(index);
        if name.is_empty() {
            errors.required(path.child("name"), "");
        } else if name.split('.').count() < 3 {
            let detail = "should be a domain with at least three segments separated by dots";
            errors.invalid(path.child("name"), name.as_str(), detail);
        }
        if !names.insert(name) {
            errors.duplicate(path.child("name"), name.as_str());
        }
        if client.url.is_some() == client.service.is_some() {
            errors.required(path.child("clientConfig"), "exactly one of url or service is required");
        }
        if !matches!(side_effects.as_str(), "None" | "NoneOnDryRun") {
            errors.not_supported(path.child("sideEffects"), side_effects.as_str(), &["None", "NoneOnDryRun"]);
        }
        if let Some(seconds) = timeout.filter(|seconds| !(1..=30).contains(seconds)) {
            errors.invalid(path.child("timeoutSeconds"), seconds, "the timeout value must be between 1 and 30 seconds");
        }
    }
}

pub struct ValidatingPolicyRules;

impl Rules for ValidatingPolicyRules {
    type Object = ValidatingAdmissionPolicy;
    const SHAPE: Shape = Shape::new(subdomain_name)
        .any_finalizers()
        .generation(Generation::Spec)
        .with_status()
        .status_metadata(StatusMetadata::Keep);

    fn default(object: &mut Self::Object) {
        let spec = object.spec.get_or_insert_default();
        fill(&mut spec.failure_policy, "Fail".to_owned());
        default_match(&mut spec.match_constraints);
    }
}

pub struct MutatingPolicyRules;

impl Rules for MutatingPolicyRules {
    type Object = MutatingAdmissionPolicy;
    const SHAPE: Shape = Shape::new(subdomain_name).any_finalizers().generation(Generation::Spec);

    fn default(object: &mut Self::Object) {
        let spec = object.spec.get_or_insert_default();
        fill(&mut spec.failure_policy, "Fail".to_owned());
        default_match(&mut spec.match_constraints);
    }
}

pub struct ValidatingPolicyBindingRules;

impl Rules for ValidatingPolicyBindingRules {
    type Object = ValidatingAdmissionPolicyBinding;
    const SHAPE: Shape = Shape::new(subdomain_name).any_finalizers().generation(Generation::Spec);

    fn default(object: &mut Self::Object) {
        default_match(&mut object.spec.match_resources);
    }
}

fn default_match(resources: &mut Option<MatchResources>) {
    let Some(resources) = resources else { return };
    fill(&mut resources.match_policy, "Equivalent".to_owned());
    resources.namespace_selector.get_or_insert_default();
    resources.object_selector.get_or_insert_default();
    let rules =
        resources.resource_rules.iter_mut().flatten().chain(resources.exclude_resource_rules.iter_mut().flatten());
    for rule in rules {
        fill(&mut rule.scope, "*".to_owned());
    }
}
