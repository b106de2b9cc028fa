//! `holdfast down`: ends the cluster on this machine and removes everything that it made there.
//!
//! Order: the process, then containers and containerd, then the network, then (unless kept) the data. Every step works from
//! any half-way state and twice in a row.

use std::path::Path;

use crate::agent::{self, AgentSettings};
use crate::cli::DownArgs;
use crate::{CommandResult, instance, kubeconfig, network, run, user_kubeconfig};

/// How long the process may take to end in order.
const END_SECONDS_MAX: u64 = 15;

pub fn run(args: &DownArgs) -> CommandResult {
    let place = &args.place;
    match instance::running_pid(&place.run_dir) {
        Some(pid) => instance::end(pid, &place.run_dir, END_SECONDS_MAX),
        None if !place.data_dir.exists() && !place.run_dir.exists() => {
            println!("holdfast is not running here, and nothing of it is left");
            return Ok(());
        }
        None => println!("holdfast is not running; removing what it left"),
    }
    let settings = AgentSettings {
        data_dir: place.data_dir.clone(),
        run_dir: place.run_dir.clone(),
        config_dir: place.config_dir.clone(),
        node_name: run::hostname(),
        node_ip: network::own_address(),
        container_runtime_endpoint: None,
        eviction_hard: Default::default(),
        cluster_cidr: ([10, 42, 0, 0].into(), 16),
        service_cidr: ([10, 43, 0, 0].into(), 16),
    };
    let config = agent::node_config(&settings);
    crate::block_on(node::runtime::teardown::stop_runtime(&config))?;
    let mut left = netd::remove_all(&netd::CniPaths::under(&place.data_dir));
    remove(&place.run_dir, &mut left);
    if !args.keep_data {
        remove(&place.data_dir, &mut left);
        remove(&config.kubelet_dir, &mut left);
        if let Some(path) = user_kubeconfig() {
            kubeconfig::remove_from(&path)?;
        }
    }
    if left.is_empty() {
        println!("stopped{}", if args.keep_data { ", data kept" } else { ", nothing left" });
        return Ok(());
    }
    Err(format!("stopped, but some things could not be removed:\n  {}", left.join("\n  ")).into())
}

fn remove(path: &Path, left: &mut Vec<String>) {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => left.push(format!("{}: {error}", path.display())),
        _ => {}
    }
}
