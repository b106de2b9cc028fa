//! `cargo xtask deps`: the crate table of ARCHITECTURE.md against the manifests.
//!
//! Checks that every workspace crate has a row, uses only the siblings its row allows, and that a crate marked pure has no
//! dependency that can reach a socket, file, process or clock; development dependencies are free there. Dead dependencies
//! are found too, see `unused`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::unused::find_unused;

/// What a pure crate may never link: each can do IO or read the clock.
const IMPURE: &[&str] = &[
    "tokio",
    "tokio-util",
    "hyper",
    "hyper-util",
    "kube",
    "tonic",
    "rustls",
    "rustix",
    "libc",
    "nix",
    "tracing-subscriber",
    "socket2",
    "rtnetlink",
    "nftables",
    "hickory-server",
    "getrandom",
    "rand",
    "clap",
    "tower",
];

struct Row {
    may_use: BTreeSet<String>,
    any: bool,
    pure: bool,
}

/// Succeeds silently, or returns all violations.
pub fn run() -> Result<(), String> {
    let page = std::fs::read_to_string("ARCHITECTURE.md")
        .map_err(|e| format!("ARCHITECTURE.md: {e}; run it in the project's root"))?;
    let rows = parse_table(&page);
    let metadata = cargo_metadata()?;
    let mut problems = check(&rows, &metadata);
    problems.extend(find_unused(&metadata));
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

fn parse_table(page: &str) -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    let lines = page.lines().skip_while(|l| !l.starts_with("| crate |")).skip(2).take_while(|l| l.starts_with('|'));
    for line in lines {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let (Some(name), Some(uses), Some(pure)) =
            (cells.first(), cells.get(cells.len().saturating_sub(2)), cells.last())
        else {
            continue;
        };
        let may_use = uses.split(',').map(|u| u.trim().to_owned()).filter(|u| u != "-" && !u.is_empty()).collect();
        let name = name.rsplit('/').next().unwrap_or(name);
        rows.insert(name.to_owned(), Row { may_use, any: *uses == "all", pure: pure.starts_with("yes") });
    }
    rows
}

fn cargo_metadata() -> Result<Value, String> {
    let out = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .map_err(|e| format!("cargo metadata: {e}"))?;
    serde_json::from_slice(&out.stdout).map_err(|e| format!("cargo metadata: {e}"))
}

fn check(rows: &BTreeMap<String, Row>, metadata: &Value) -> Vec<String> {
    let empty = Vec::new();
    let packages = metadata["packages"].as_array().unwrap_or(&empty);
    let members: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let mut problems = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(row) = rows.get(name) else {
            problems.push(format!("ARCHITECTURE.md: crate {name} has no row in the table; add one"));
            continue;
        };
        for dep in package["dependencies"].as_array().unwrap_or(&empty) {
            if !dep["kind"].is_null() {
                continue;
            }
            let used = dep["name"].as_str().unwrap_or_default();
            if members.contains(used) && !row.any && !row.may_use.contains(used) {
                problems
                    .push(format!("{name}: may not use {used}; move the shared word down, or change the table openly"));
            }
            if row.pure && IMPURE.contains(&used) && name != "base" {
                problems.push(format!("{name}: is pure and may not link {used}; take what it needs as an argument"));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PAGE: &str =
        "| crate | what | may use | pure |\n|---|---|---|---|\n| base | x | - | yes |\n| api | y | base | yes |\n";

    fn problems(dep: &str) -> Vec<String> {
        let metadata = json!({"packages": [
            {"name": "base", "dependencies": []},
            {"name": "api", "dependencies": [{"name": dep, "kind": null}]},
        ]});
        check(&parse_table(PAGE), &metadata)
    }

    #[test]
    fn allowed_use_passes() {
        assert!(problems("base").is_empty());
    }

    #[test]
    fn impure_dependency_is_found() {
        assert_eq!(problems("tokio").len(), 1);
    }

    #[test]
    fn crate_without_row_and_forbidden_sibling_are_found() {
        let metadata = json!({"packages": [{"name": "base", "dependencies": [{"name": "api", "kind": null}]}, {"name": "api", "dependencies": []}, {"name": "new", "dependencies": []}]});
        assert_eq!(check(&parse_table(PAGE), &metadata).len(), 2);
    }
}
