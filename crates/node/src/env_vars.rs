//! A container's environment. Input: its env and envFrom, the objects they name, Services, pod facts. Output: ordered
//! pairs, or the message of a CreateContainerConfigError.
//!
//! Invariant: later entries win; `$(NAME)` sees what was defined before it, Services included; an optional missing
//! object is no entry, a required one an error.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, EnvVarSource, Pod, Secret, Service};
use podlife::downward::{RuntimeFacts, field_value, resource_value};
use podlife::expand::expand;
use podlife::payload::{config_map_data, secret_data};
use podlife::service_env::{is_visible, service_variables};
use podlife::spec::{namespace, pod_spec};

use crate::objects::Objects;

/// Sources of an environment besides the spec.
pub struct EnvSources<'a> {
    pub objects: &'a Objects,
    pub services: Vec<std::sync::Arc<Service>>,
    pub facts: &'a RuntimeFacts,
}

type Data = BTreeMap<String, Vec<u8>>;

/// In the order of definition, each name once with its last value.
pub async fn resolve_env(
    pod: &Pod,
    container: &Container,
    sources: &EnvSources<'_>,
) -> Result<Vec<(String, String)>, String> {
    let links = pod_spec(pod).enable_service_links != Some(false);
    let visible = sources.services.iter().filter(|service| is_visible(service, namespace(pod), links));
    // A Service of the pod's own namespace hides default/kubernetes of the same name: it comes later.
    let (own, master): (Vec<_>, Vec<_>) =
        visible.partition(|service| service.metadata.namespace.as_deref() == Some(namespace(pod)));
    let services = service_variables(master.into_iter().chain(own).map(AsRef::as_ref));
    let service_map = services.iter().cloned().collect::<BTreeMap<_, _>>();
    let mut result = Pairs::default();
    resolve_env_from(pod, container, sources, &mut result).await?;
    for variable in container.env.iter().flatten() {
        let lookup = |name: &str| result.get(name).or_else(|| service_map.get(name).cloned());
        let value = match &variable.value_from {
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), lookup)),
            Some(source) => resolve_source(pod, container, variable, source, sources).await?,
        };
        if let Some(value) = value {
            result.set(&variable.name, value);
        }
    }
    for (name, value) in services {
        if result.get(&name).is_none() {
            result.set(&name, value);
        }
    }
    Ok(result.list)
}

#[derive(Default)]
struct Pairs {
    list: Vec<(String, String)>,
}

impl Pairs {
    fn get(&self, name: &str) -> Option<String> {
        self.list.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    fn set(&mut self, name: &str, value: String) {
        match self.list.iter_mut().find(|(known, _)| known == name) {
            Some(pair) => pair.1 = value,
            None => self.list.push((name.to_owned(), value)),
        }
    }
}

async fn resolve_env_from(
    pod: &Pod,
    container: &Container,
    sources: &EnvSources<'_>,
    result: &mut Pairs,
) -> Result<(), String> {
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let data = if let Some(reference) = &source.config_map_ref {
            fetch_config_map(pod, &reference.name, reference.optional == Some(true), sources.objects).await?
        } else if let Some(reference) = &source.secret_ref {
            fetch_secret(pod, &reference.name, reference.optional == Some(true), sources.objects).await?
        } else {
            None
        };
        for (key, bytes) in data.into_iter().flatten() {
            result.set(&format!("{prefix}{key}"), String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    Ok(())
}

async fn resolve_source(
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    source: &EnvVarSource,
    sources: &EnvSources<'_>,
) -> Result<Option<String>, String> {
    if let Some(field) = &source.field_ref {
        return field_value(pod, field, sources.facts).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return resource_value(pod, Some(container), resource, sources.facts).map(Some);
    }
    let (data, key, optional, what) = if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let data = fetch_config_map(pod, &reference.name, optional, sources.objects).await?;
        (data, &reference.key, optional, format!("ConfigMap {}/{}", namespace(pod), reference.name))
    } else if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional == Some(true);
        let data = fetch_secret(pod, &reference.name, optional, sources.objects).await?;
        (data, &reference.key, optional, format!("Secret {}/{}", namespace(pod), reference.name))
    } else {
        return Err(format!("unsupported source of environment variable {}", variable.name));
    };
    match data.and_then(|mut data| data.remove(key)) {
        Some(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        None if optional => Ok(None),
        None => Err(format!("couldn't find key {key} in {what}")),
    }
}

async fn fetch_config_map(pod: &Pod, name: &str, optional: bool, objects: &Objects) -> Result<Option<Data>, String> {
    match objects.fetch::<ConfigMap>(namespace(pod), name).await? {
        Some(config_map) => Ok(Some(config_map_data(&config_map))),
        None if optional => Ok(None),
        None => Err(format!("configmap \"{name}\" not found")),
    }
}

async fn fetch_secret(pod: &Pod, name: &str, optional: bool, objects: &Objects) -> Result<Option<Data>, String> {
    match objects.fetch::<Secret>(namespace(pod), name).await? {
        Some(secret) => Ok(Some(secret_data(&secret))),
        None if optional => Ok(None),
        None => Err(format!("secret \"{name}\" not found")),
    }
}
