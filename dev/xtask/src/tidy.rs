//! `cargo xtask tidy`: style that a machine can check, over the files git knows.
//!
//! Each rule is one line of [`RULES`] with its reason. Generated files (first line says so) are exempt from lengths, and what
//! stands right before generated code (`include_proto!`) from the rules: it speaks of code that nobody here writes.

use std::process::Command;

/// Longest source file before its tests; declarative tables and generated files are exempt.
const FILE_LINES_MAX: usize = 700;

/// (what a line must not contain, why and what instead, whether test code is exempt)
const RULES: &[(&str, &str, bool)] = &[
    ("#[allow(", "no waivers: fix it, or `#[expect(.., reason = ..)]`", false),
    ("#![allow(", "no waivers: fix it, or `#![expect(.., reason = ..)]`", false),
    ("#[ignore", "a test that does not run is no test", false),
    ("todo!(", "nothing unfinished lands", false),
    ("unimplemented!(", "nothing unfinished lands", false),
    ("thread::sleep(", "wait for the event itself", false),
    ("/work/", "no machine paths", false),
    ("/root/", "no machine paths", false),
];

const NAMES_BANNED: &[&str] = &["mod.rs", "utils.rs", "util.rs", "common.rs", "helpers.rs", "misc.rs"];

/// Succeeds silently, or returns all findings.
pub fn run() -> Result<(), String> {
    let out = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .output()
        .map_err(|e| format!("git ls-files: {e}"))?;
    let mut findings = Vec::new();
    for file in String::from_utf8_lossy(&out.stdout).lines() {
        if file.ends_with("xtask/src/tidy.rs") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        check_file(file, &text, &mut findings);
    }
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
}

fn check_file(file: &str, text: &str, findings: &mut Vec<String>) {
    let base = file.rsplit('/').next().unwrap_or(file);
    if NAMES_BANNED.contains(&base) {
        findings.push(format!("{file}:1: the name says nothing of what is inside; name it after that"));
    }
    let first = text.lines().next().unwrap_or_default();
    if !first.starts_with("//!") {
        findings
            .push(format!("{file}:1: a file opens with `//!`: what it is, input -> output, the invariant it keeps"));
    }
    let in_tests_dir = file.contains("/tests/") || base == "tests.rs" || base.ends_with("_tests.rs");
    let lines: Vec<&str> = text.lines().collect();
    let tests_start = lines.iter().position(|l| l.contains("#[cfg(test)]")).unwrap_or(usize::MAX);
    for (i, line) in lines.iter().enumerate() {
        let in_test = in_tests_dir || i >= tests_start;
        for (pattern, why, tests_exempt) in RULES {
            let is_generated = || lines.iter().skip(i + 1).take(2).any(|next| next.contains("include_proto!"));
            if line.contains(pattern) && !(in_test && *tests_exempt) && !is_generated() {
                findings.push(format!("{file}:{}: `{pattern}`: {why}", i + 1));
            }
        }
        if i > 0 && is_unfenced_code(lines[i - 1], line) {
            findings.push(format!("{file}:{}: rustdoc compiles indented text as Rust; fence it with ```text", i + 1));
        }
        if line.ends_with(' ') || line.ends_with('\t') {
            findings.push(format!("{file}:{}: white space at the end of the line", i + 1));
        }
    }
    let code_lines = tests_start.min(lines.len());
    let exempt = in_tests_dir || first.contains("enerated") || first.contains("table");
    if code_lines > FILE_LINES_MAX && !exempt {
        findings.push(format!(
            "{file}:1: {code_lines} lines before its tests (at most {FILE_LINES_MAX}); split it by story"
        ));
    }
}

/// A documentation line that starts an indented block: four spaces and more after a blank documentation line.
fn is_unfenced_code(before: &str, line: &str) -> bool {
    let is_indented = ["//!     ", "///     "].iter().any(|start| line.trim_start().starts_with(start));
    is_indented && matches!(before.trim(), "//!" | "///")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(file: &str, text: &str) -> usize {
        let mut all = Vec::new();
        check_file(file, text, &mut all);
        all.len()
    }

    #[test]
    fn a_clean_file_passes() {
        assert_eq!(findings("a/b.rs", "//! What it is.\nfn f() {}\n"), 0);
    }

    #[test]
    fn each_rule_fires() {
        assert_eq!(findings("a/utils.rs", "//! x\n"), 1);
        assert_eq!(findings("a/b.rs", "fn f() {}\n"), 1);
        assert_eq!(findings("a/b.rs", "//! x\n#[allow(dead_code)]\n"), 1);
        assert_eq!(findings("a/b.rs", "//! x\nfn f() {} \n"), 1);
        assert_eq!(findings("a/b.rs", "//! x\n//!\n//!     a -> b\n"), 1);
        assert_eq!(findings("a/b.rs", &format!("//! x\n{}", "fn f() {}\n".repeat(FILE_LINES_MAX + 1))), 1);
        assert_eq!(findings("a/tests.rs", &format!("//! x\n{}", "fn f() {}\n".repeat(FILE_LINES_MAX + 1))), 0);
    }
}
