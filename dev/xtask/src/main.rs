//! `cargo xtask deps|tidy|schema`: the checks that keep ARCHITECTURE.md and style true, and code generation.
//!
//! Every check prints all its findings, one a line as `file:line: what, remedy`, and ends with exit code 1 if there is one.

mod deps;
mod schema;
mod tidy;
mod unused;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.first().map(String::as_str) {
        Some("deps") => deps::run(),
        Some("tidy") => tidy::run(),
        Some("schema") => schema::run(&args[1..]),
        _ => Err("usage: cargo xtask deps | tidy | schema [--modules DIR]".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::FAILURE
        }
    }
}
