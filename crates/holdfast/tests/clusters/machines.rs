//! Machines of a test: network namespaces with a host name and an address of their own, on one switch. For root.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

/// Gone at the end, with everything in them.
pub struct Machines {
    switch: String,
    network: [u8; 3],
    names: Vec<String>,
}

impl Machines {
    /// `None`, and says so, if this user may not make any.
    pub fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped, it needs root");
            return None;
        }
        let id = std::process::id();
        let machines = Self { switch: format!("hfc{id}"), network: [10, 98, (id % 250) as u8], names: Vec::new() };
        let gateway = format!("{}/24", machines.address(254));
        run(&["link", "add", &machines.switch, "type", "bridge"]);
        run(&["addr", "add", &gateway, "dev", &machines.switch]);
        run(&["link", "set", &machines.switch, "up"]);
        Some(machines)
    }

    fn address(&self, number: u8) -> IpAddr {
        let [a, b, c] = self.network;
        Ipv4Addr::new(a, b, c, number).into()
    }

    /// Another machine: its address, and the words that run a command on it.
    pub fn add(&mut self, name: &str) -> (IpAddr, Vec<String>) {
        let number = self.names.len() as u8 + 1;
        let (address, space, plug) =
            (self.address(number), format!("{}-{name}", self.switch), format!("{}-{number}", self.switch));
        run(&["netns", "add", &space]);
        self.names.push(space.clone());
        run(&["link", "add", &plug, "type", "veth", "peer", "name", "eth0", "netns", &space]);
        run(&["link", "set", &plug, "master", &self.switch, "up"]);
        run(&["-n", &space, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
        run(&["-n", &space, "link", "set", "eth0", "up"]);
        run(&["-n", &space, "link", "set", "lo", "up"]);
        let named = "hostname \"$0\" && exec \"$@\"";
        let words = ["ip", "netns", "exec", &space, "unshare", "--uts", "sh", "-c", named, name];
        (address, words.map(str::to_owned).to_vec())
    }

    /// Pulls the plug of the `number`th machine, counted from 1, or puts it in again.
    pub fn plug(&self, number: usize, is_in: bool) {
        run(&["link", "set", &format!("{}-{number}", self.switch), if is_in { "up" } else { "down" }]);
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in &self.names {
            Command::new("ip").args(["netns", "del", name]).status().ok();
        }
        Command::new("ip").args(["link", "del", &self.switch]).status().ok();
    }
}

fn run(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
