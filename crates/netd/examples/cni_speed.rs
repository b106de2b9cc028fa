//! Measures the CNI plugin as a runtime sees it: one process for each command. `cargo run -p netd --example cni_speed -- N`.
//!
//! Prints what ADD and DEL take for N sandboxes, one after the other, in namespaces of its own. Needs root and `ip`.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use base::{Clock, SystemClock};
use netd::netns::NetNs;
use netd::setup::{self, CniPaths, NodeNetwork};
use serde_json::json;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let vars: BTreeMap<String, String> = std::env::vars().collect();
    if netd::cni::is_invocation(&vars) {
        return netd::cni::run(&vars);
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Fallible<()> {
    let count: u32 = std::env::args().nth(1).map_or(Ok(30), |text| text.parse())?;
    let host = format!("hf-speed-{}", std::process::id());
    let dir = std::env::temp_dir().join(&host);
    run(&["ip", "netns", "add", &host])?;
    let result = measure_in(&host, &CniPaths::under(&dir), count);
    run(&["ip", "netns", "del", &host])?;
    std::fs::remove_dir_all(&dir)?;
    result
}

fn measure_in(host: &str, paths: &CniPaths, count: u32) -> Fallible<()> {
    let network = NodeNetwork {
        pod_cidr: "10.42.0.0/24".parse()?,
        service_cidr: "10.43.0.0/16".parse()?,
        dns: "10.43.0.10".parse()?,
        mtu: None,
    };
    let executable = std::env::current_exe()?;
    NetNs::open(format!("/run/netns/{host}").as_ref())?
        .enter(|| setup::apply(&network, paths, &executable).map_err(std::io::Error::other))?;
    let clock = SystemClock::new();
    for command in ["ADD", "DEL"] {
        let mut times = Vec::new();
        for index in 0..count {
            let pod = format!("{host}-{index}");
            if command == "ADD" {
                run(&["ip", "netns", "add", &pod])?;
            }
            let start = clock.monotonic();
            call(host, &pod, command, paths)?;
            times.push(clock.monotonic() - start);
            if command == "DEL" {
                run(&["ip", "netns", "del", &pod])?;
            }
        }
        times.sort_unstable();
        println!(
            "{command} p50 {:>6.1} ms   max {:>6.1} ms",
            millis(times[times.len() / 2]),
            millis(times[times.len() - 1])
        );
    }
    Ok(())
}

fn call(host: &str, pod: &str, command: &str, paths: &CniPaths) -> Fallible<()> {
    let config = json!({"cniVersion": "1.0.0", "name": "holdfast", "type": "holdfast-cni", "podCIDR": "10.42.0.0/24",
        "mtu": 1400, "dataDir": paths.data});
    let child = NetNs::open(format!("/run/netns/{host}").as_ref())?.enter(|| {
        Command::new(std::env::current_exe()?)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", pod)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", format!("/run/netns/{pod}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
    });
    let mut child = child?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(config.to_string().as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stdout).into()) }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn run(command: &[&str]) -> Fallible<()> {
    let status = Command::new(command[0]).args(&command[1..]).status()?;
    if status.success() { Ok(()) } else { Err(format!("{} failed", command.join(" ")).into()) }
}
