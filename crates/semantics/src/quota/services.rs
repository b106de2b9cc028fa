//! Services: their number, their node ports, and how many ask for a load balancer.

use k8s_openapi::api::core::v1::Service;

use crate::resources::Quantities;

pub(super) const NAMES: [&str; 3] = ["services", "services.loadbalancers", "services.nodeports"];

/// Node ports count by what is asked for: at creation they have no numbers yet.
pub(super) fn usage(service: &Service) -> Quantities {
    let spec = service.spec.as_ref();
    let ports = || spec.into_iter().flat_map(|spec| spec.ports.iter().flatten());
    let given = || ports().filter(|port| port.node_port.is_some_and(|number| number != 0));
    let (balancers, node_ports) = match spec.and_then(|spec| spec.type_.as_deref()) {
        Some("NodePort") => (0, ports().count()),
        Some("LoadBalancer") if spec.and_then(|spec| spec.allocate_load_balancer_node_ports) == Some(false) => {
            (1, given().count())
        }
        Some("LoadBalancer") => (1, ports().count()),
        _ => (0, 0),
    };
    let node_ports = i64::try_from(node_ports).unwrap_or(i64::MAX);
    let named = [
        ("count/services", 1),
        ("services", 1),
        ("services.loadbalancers", balancers),
        ("services.nodeports", node_ports),
    ];
    Quantities::whole(named.map(|(name, units)| (name.to_owned(), units)))
}
