//! Generates the schema table of `api` from the published modules.

pub fn run(_args: &[String]) -> Result<(), String> {
    Err("xtask schema: not here yet".to_owned())
}
