//! All containers of a pod with their paths, whatever their kind.

use k8s_openapi::api::core::v1::{EnvVar, PodSpec, SecurityContext, VolumeDevice};

use crate::field::Path;

/// What rules that look at every container ask for.
pub(super) struct AnyContainer<'s> {
    pub(super) name: &'s str,
    pub(super) env: &'s [EnvVar],
    pub(super) volume_devices: &'s [VolumeDevice],
    pub(super) security_context: Option<&'s SecurityContext>,
}

/// Init containers, then app containers, then ephemeral ones: upstream's order. `path` is the spec's.
pub(super) fn all_containers<'s>(spec: &'s PodSpec, path: &Path) -> Vec<(Path, AnyContainer<'s>)> {
    macro_rules! visit {
        ($list:expr, $name:literal) => {
            $list.enumerate().map(|(index, container)| {
                let any = AnyContainer {
                    name: &container.name,
                    env: container.env.as_deref().unwrap_or_default(),
                    volume_devices: container.volume_devices.as_deref().unwrap_or_default(),
                    security_context: container.security_context.as_ref(),
                };
                (path.child($name).index(index), any)
            })
        };
    }
    let init = visit!(spec.init_containers.iter().flatten(), "initContainers");
    let app = visit!(spec.containers.iter(), "containers");
    let ephemeral = visit!(spec.ephemeral_containers.iter().flatten(), "ephemeralContainers");
    init.chain(app).chain(ephemeral).collect()
}
