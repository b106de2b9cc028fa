//! Measures the Service rules at size, in a network namespace of its own: `cargo run -p netd --example service_scale -- N`.
//!
//! Prints what it takes to write the table of N Services (two ports, three endpoints each) from nothing, to change one
//! endpoint afterwards, and to plan both. Needs root, `ip` and `nft`.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, SystemClock};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use netd::netns::NetNs;
use netd::nft;
use netplan::{NodeView, Proxy};
use serde_json::json;

const CHANGES: u32 = 50;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u32 = std::env::args().nth(1).map_or(Ok(5_000), |text| text.parse())?;
    let name = format!("hf-scale-{}", std::process::id());
    run(&["ip", "netns", "add", &name])?;
    let measured = NetNs::open(format!("/run/netns/{name}").as_ref())?
        .enter(|| measure(count).map_err(|error| std::io::Error::other(error.to_string())));
    run(&["ip", "netns", "del", &name])?;
    Ok(measured?)
}

fn measure(count: u32) -> Result<(), Box<dyn std::error::Error>> {
    let clock = SystemClock::new();
    let mut proxy = Proxy::new(NodeView {
        name: "n1".to_owned(),
        zone: None,
        pod_cidr: "10.42.0.0/24".parse()?,
        cluster_cidr: "10.42.0.0/16".parse()?,
        service_cidr: "10.96.0.0/12".parse()?,
        local_address: None,
    });
    let start = clock.monotonic();
    for index in 0..count {
        let (service, slice) = objects(index, 0)?;
        proxy.update(&format!("d/s{index}"), Some(&service), &[slice]);
    }
    let script = proxy.full().script;
    report("plan everything", clock.monotonic() - start);
    let start = clock.monotonic();
    nft::apply_blocking(&script)?;
    report("write everything", clock.monotonic() - start);

    let mut times = Vec::new();
    for change in 1..=CHANGES {
        let (service, slice) = objects(change % count, change)?;
        let start = clock.monotonic();
        proxy.update(&format!("d/s{}", change % count), Some(&service), &[slice]);
        let transaction = proxy.take_transaction().ok_or("nothing changed")?;
        nft::apply_blocking(&transaction.script)?;
        times.push(clock.monotonic() - start);
    }
    times.sort_unstable();
    report("change one endpoint, p50", times[times.len() / 2]);
    report("change one endpoint, max", times[times.len() - 1]);
    Ok(())
}

/// Service `index`; its third endpoint depends on `version`.
fn objects(index: u32, version: u32) -> Result<(Service, Arc<EndpointSlice>), serde_json::Error> {
    let address = std::net::Ipv4Addr::from_bits(0x0a60_0000 + 256 + index);
    let pod = |number: u32| std::net::Ipv4Addr::from_bits(0x0a2a_0000 + number % 65_536).to_string();
    let service = json!({"spec": {"clusterIP": address.to_string(),
        "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 443}]}});
    let endpoints: Vec<_> = [index * 3, index * 3 + 1, index * 3 + 2 + 7 * version]
        .map(|number| json!({"addresses": [pod(number)]}))
        .into();
    let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "a", "port": 8080}, {"name": "b", "port": 8443}]});
    Ok((serde_json::from_value(service)?, Arc::new(serde_json::from_value(slice)?)))
}

fn report(what: &str, time: Duration) {
    println!("{what:<26} {:>9.1} ms", time.as_secs_f64() * 1000.0);
}

fn run(command: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    let status = Command::new(command[0]).args(&command[1..]).status()?;
    if status.success() { Ok(()) } else { Err(format!("{} failed", command.join(" ")).into()) }
}
