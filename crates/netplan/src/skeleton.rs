//! The fixed part of netd's nftables table: maps, hooks and the rules that do not depend on any Service.
//!
//! Order of a new connection: `outside_*` maps for clients outside the cluster, then `services`, then `node_ports`; what
//! is still on its way to the Service range afterwards has no backend and is rejected. Masquerading is for three cases
//! only, everything else keeps its source: a Pod that reaches itself; an outside client whose backend is on another node
//! (the reply would bypass us); a Pod that talks to the world.

use crate::element::{DISPATCH_MAPS, Family, MARK, Protocol, backend_map};
use crate::node::NodeView;

/// The table's name, in families `ip` and `ip6`.
pub const TABLE: &str = "holdfast";

/// Replaces the table of `family` by an empty one with all maps, sets and base chains.
pub fn render_skeleton(family: Family, node: &NodeView) -> String {
    let ip = family.name();
    let address = match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    };
    let maps = render_maps(ip, address);
    let filters = ["input", "forward", "output"].map(|hook| {
        format!(
            "  chain filter_{hook} {{\n    type filter hook {hook} priority 0; policy accept;\n    jump refuse\n  }}\n"
        )
    });
    let filters = filters.concat();
    let Fixed { outside, postrouting, reject_unknown, loopback } = Fixed::of(family, node);
    format!(
        "table {ip} {TABLE} {{ }}
delete table {ip} {TABLE}
table {ip} {TABLE} {{
{maps}  map refused {{ type {address} . inet_proto . inet_service : verdict; }}
  map guarded {{ type {address} . inet_proto . inet_service : verdict; }}
  set hairpins {{ type {address} . {address}; }}
  chain reject_now {{
    meta l4proto tcp reject with tcp reset
    reject
  }}
  chain outside {{
    {ip} daddr . meta l4proto . th dport vmap @outside_services
    {loopback}fib daddr type local meta l4proto . th dport vmap @outside_node_ports
  }}
  chain translate {{
    {ip} daddr . meta l4proto . th dport vmap @guarded
    {outside}fib saddr type != local jump outside
    {ip} daddr . meta l4proto . th dport vmap @services
    {loopback}fib daddr type local meta l4proto . th dport vmap @node_ports
  }}
  chain refuse {{
    ct state new {ip} daddr . meta l4proto . th dport vmap @refused
{reject_unknown}  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    jump translate
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    jump translate
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    oifname \"lo\" return
    {ip} saddr . {ip} daddr @hairpins masquerade fully-random
{postrouting}  }}
{filters}}}
"
    )
}

/// The dispatch maps and, for each and every protocol, its backend map.
fn render_maps(ip: &str, address: &str) -> String {
    let mut maps = String::new();
    for (map, has_address) in DISPATCH_MAPS {
        let (key, expression) =
            if has_address { (format!("{address} . "), format!("{ip} daddr . ")) } else { Default::default() };
        maps += &format!("  map {map} {{ type {key}inet_proto . inet_service : verdict; }}\n");
        for protocol in Protocol::ALL {
            let port = format!("{} dport", protocol.name());
            maps += &format!(
                "  map {} {{ typeof {expression}{port} . numgen random mod 2 : {ip} daddr . {port}; }}\n",
                backend_map(map, protocol)
            );
        }
    }
    maps
}

/// Rules that need the cluster's address ranges, which are IPv4.
struct Fixed {
    outside: String,
    postrouting: String,
    reject_unknown: String,
    loopback: &'static str,
}

impl Fixed {
    fn of(family: Family, node: &NodeView) -> Self {
        let NodeView { pod_cidr, cluster_cidr, service_cidr, .. } = node;
        if family == Family::V6 {
            return Self {
                outside: String::new(),
                postrouting: String::new(),
                reject_unknown: String::new(),
                loopback: "ip6 daddr != ::1 ",
            };
        }
        Self {
            outside: format!("ip saddr != {cluster_cidr} "),
            postrouting: format!(
                "    meta mark and {MARK} != 0 ip saddr != {cluster_cidr} ip daddr != {pod_cidr} \
                 meta mark set meta mark and 0xffffbfff masquerade fully-random
    ip saddr {pod_cidr} ip daddr != {cluster_cidr} masquerade fully-random
"
            ),
            reject_unknown: format!("    ip daddr {service_cidr} fib daddr type != local goto reject_now\n"),
            loopback: "ip daddr != 127.0.0.0/8 ",
        }
    }
}
