//! Dead dependencies: what a manifest lists and no source file of the crate names, and root entries that no crate takes.
//!
//! Cargo metadata and source text -> findings. A name counts when it stands as a word on a line that is no comment; that a
//! named crate is really needed it does not prove. A build script's dependencies are looked for in `build.rs` alone.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

/// Named by generated code only, which git does not know.
const GENERATED_USES: &[&str] = &["tonic-prost"];

/// All dead dependencies of the workspace whose root is the working directory.
pub fn find_unused(metadata: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let mut taken = BTreeSet::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let sources = read_sources(manifest.parent().unwrap_or(Path::new(".")));
        for dep in package["dependencies"].as_array().into_iter().flatten() {
            taken.insert(dep["name"].as_str().unwrap_or_default().to_owned());
        }
        problems.extend(check_package(package, &sources));
    }
    let root = std::fs::read_to_string("Cargo.toml").unwrap_or_default();
    problems.extend(
        root_entries(&root)
            .into_iter()
            .filter(|name| !taken.contains(*name))
            .map(|name| format!("Cargo.toml: no crate takes {name}; remove it from workspace.dependencies")),
    );
    problems
}

/// The crate's sources by place: (build script, src, everything else).
#[derive(Default)]
struct Sources {
    build: String,
    library: String,
    tests: String,
}

fn check_package(package: &Value, sources: &Sources) -> Vec<String> {
    let mut problems = Vec::new();
    let name = package["name"].as_str().unwrap_or_default();
    for dep in package["dependencies"].as_array().into_iter().flatten() {
        let used = dep["name"].as_str().unwrap_or_default();
        if GENERATED_USES.contains(&used) {
            continue;
        }
        let found = |text: &str| names(text, &used.replace('-', "_"));
        match dep["kind"].as_str() {
            None if found(&sources.library) => {}
            None if found(&sources.tests) => {
                problems.push(format!("{name}: only tests and examples name {used}; make it a dev-dependency"));
            }
            Some("build") if found(&sources.build) => {}
            Some("dev") if found(&sources.library) || found(&sources.tests) => {}
            _ => problems.push(format!("{name}: nothing names {used}; remove it from the manifest")),
        }
    }
    problems
}

/// Whether `word` stands in `text` as a whole word, comments aside.
fn names(text: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .any(|line| line.split(|c| !is_word(c)).any(|w| w == word))
}

fn read_sources(crate_dir: &Path) -> Sources {
    let mut sources = Sources::default();
    read_tree(&crate_dir.join("src"), &mut sources.library);
    for dir in ["tests", "examples", "benches"] {
        read_tree(&crate_dir.join(dir), &mut sources.tests);
    }
    sources.build = std::fs::read_to_string(crate_dir.join("build.rs")).unwrap_or_default();
    sources
}

fn read_tree(dir: &Path, text: &mut String) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_tree(&path, text);
        } else if path.extension().is_some_and(|e| e == "rs") {
            text.push_str(&std::fs::read_to_string(&path).unwrap_or_default());
        }
    }
}

/// The names under `[workspace.dependencies]`, each on a line of its own.
fn root_entries(manifest: &str) -> Vec<&str> {
    let section = manifest.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    section
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(kind: Value, library: &str, tests: &str) -> Vec<String> {
        let package = json!({"name": "a", "dependencies": [{"name": "b-c", "kind": kind}]});
        let sources = Sources { library: library.to_owned(), tests: tests.to_owned(), ..Sources::default() };
        check_package(&package, &sources)
    }

    #[test]
    fn a_named_dependency_passes() {
        assert!(problems(Value::Null, "use b_c::X;", "").is_empty());
        assert!(problems(json!("dev"), "", "b_c::f()").is_empty());
    }

    #[test]
    fn unnamed_commented_and_misplaced_ones_are_found() {
        assert_eq!(problems(Value::Null, "// b_c\nab_c", ""), ["a: nothing names b-c; remove it from the manifest"]);
        assert_eq!(problems(Value::Null, "", "b_c").len(), 1);
        assert_eq!(problems(json!("build"), "b_c", "b_c").len(), 1);
    }

    #[test]
    fn root_entries_are_read_to_the_next_section() {
        assert_eq!(root_entries("[workspace.dependencies]\na = \"1\"\n\nb = { x = 1 }\n[other]\nc = 2\n"), ["a", "b"]);
    }
}
