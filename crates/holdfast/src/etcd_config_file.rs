//! `--config-file`: etcd's settings in YAML or JSON become its flags.
//!
//! Names are those of the flags; TLS stands in sections of its own, without the word `peer`; a duration may be a number of
//! nanoseconds. As in etcd, a file takes the place of all flags and of the environment. Source: etcd's
//! `etcd.conf.yml.sample`.

use std::path::Path;

use clap::{CommandFactory as _, FromArgMatches as _};
use serde_json::{Map, Value};

use crate::cli::{Cli, Command};
use crate::etcd_command::EtcdArgs;
use crate::etcd_ignored::is_duration;

const CLIENT_TLS: &str = "client-transport-security";
const PEER_TLS: &str = "peer-transport-security";
const SOCKETS: &str = "socket-options";
/// In the sample for ever; no etcd has them any more.
const GONE: [&str; 8] = [
    "discovery-fallback",
    "enable-v2",
    "proxy",
    "proxy-dial-timeout",
    "proxy-failure-wait",
    "proxy-read-timeout",
    "proxy-refresh-interval",
    "proxy-write-timeout",
];
/// Settings of a section whose flag is not called section and name.
const OTHER_NAMES: [(&str, &str, &str); 5] = [
    (CLIENT_TLS, "allowed-hostname", "client-cert-allowed-hostname"),
    (PEER_TLS, "allowed-cn", "peer-cert-allowed-cn"),
    (PEER_TLS, "allowed-hostname", "peer-cert-allowed-hostname"),
    (SOCKETS, "reuse-address", "socket-reuse-address"),
    (SOCKETS, "reuse-port", "socket-reuse-port"),
];

/// The flags that a file stands for, parsed. Errors: one line with the file and what is wrong in it.
pub fn read(file: &Path) -> Result<EtcdArgs, String> {
    let of_file = |error: String| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| of_file(error.to_string()))?;
    parse(&text).map_err(of_file)
}

fn parse(text: &str) -> Result<EtcdArgs, String> {
    let settings = serde_saphyr::from_str::<Value>(text).map_err(|error| error.without_snippet().to_string())?;
    let Value::Object(settings) = settings else {
        return Err("expected settings, a line each: NAME: VALUE".to_owned());
    };
    let words = ["holdfast".to_owned(), "etcd".to_owned()].into_iter().chain(flags(&settings)?);
    let command = Cli::command().mut_subcommand("etcd", |etcd| etcd.mut_args(|arg| arg.env(None::<&'static str>)));
    let matches = command.try_get_matches_from(words).map_err(|error| in_one_line(&error))?;
    match Cli::from_arg_matches(&matches).map_err(|error| in_one_line(&error))?.command {
        Command::Etcd(args) => Ok(*args),
        other => Err(format!("internal error: {other:?}")),
    }
}

fn in_one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<_> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}

fn flags(settings: &Map<String, Value>) -> Result<Vec<String>, String> {
    let mut flags = Vec::new();
    for (name, value) in settings {
        match (name.as_str(), value) {
            (section @ (CLIENT_TLS | PEER_TLS | SOCKETS), Value::Object(settings)) => {
                for (name, value) in settings {
                    flags.extend(flag(&flag_name(section, name), value)?);
                }
            }
            (gone, _) if GONE.contains(&gone) => {}
            _ => flags.extend(flag(name, value)?),
        }
    }
    Ok(flags)
}

fn flag_name(section: &str, name: &str) -> String {
    let other = OTHER_NAMES.iter().find(|(of, known, _)| *of == section && *known == name);
    match other {
        Some((.., flag)) => (*flag).to_owned(),
        None if section == PEER_TLS => format!("peer-{name}"),
        None => name.to_owned(),
    }
}

/// Nothing for a setting that is empty or off: the sample names many that nobody uses.
fn flag(name: &str, value: &Value) -> Result<Option<String>, String> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if is_duration(name) => Some(format!("{number}ns")),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(true) => Some("true".to_owned()),
        Value::Bool(false) | Value::Null => Some(String::new()),
        _ => None,
    };
    let value = match value {
        Value::Array(list) => list.iter().map(text).collect::<Option<Vec<_>>>().map(|list| list.join(",")),
        value => text(value),
    };
    match value {
        Some(value) if value.is_empty() => Ok(None),
        Some(value) => Ok(Some(format!("--{name}={value}"))),
        None => Err(format!("{name}: expected a text, a number, true or false, or a list of texts")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stands_for_flags() {
        let text = "name: m1\nproxy: 'off'\ndata-dir: /d\nwal-dir:\nsnapshot-count: 10000\nforce-new-cluster: false\n\
            listen-client-urls: http://a:1,http://b:2\nlog-outputs: [stderr]\ncors:\nstrict-reconfig-check: true\n\
            client-transport-security:\n  cert-file: /c\n  key-file: /k\n  client-cert-auth: true\n  auto-tls: false\n\
            peer-transport-security:\n  cert-file: /p\n  key-file: /q\n";
        let Value::Object(settings) = serde_saphyr::from_str(text).unwrap() else { panic!("no settings") };
        let mut found = flags(&settings).unwrap();
        found.sort();
        let expected = [
            "--cert-file=/c",
            "--client-cert-auth=true",
            "--data-dir=/d",
            "--key-file=/k",
            "--listen-client-urls=http://a:1,http://b:2",
            "--log-outputs=stderr",
            "--name=m1",
            "--peer-cert-file=/p",
            "--peer-key-file=/q",
            "--snapshot-count=10000",
            "--strict-reconfig-check=true",
        ];
        assert_eq!(found, expected);
        parse(text).unwrap();
        assert_eq!(flag_name(PEER_TLS, "allowed-cn"), "peer-cert-allowed-cn");
        parse("watch-progress-notify-interval: 600000000000\ngrpc-keepalive-timeout: 20s\nsocket-options: {reuse-port: true}").unwrap();
        assert_eq!(flag("raft-read-timeout", &5_000_000.into()), Ok(Some("--raft-read-timeout=5000000ns".to_owned())));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| parse(text).unwrap_err();
        assert_eq!(error("nam: m1"), "unexpected argument '--nam' found");
        assert!(error("max-txn-ops: many").starts_with("invalid value 'many' for '--max-txn-ops"));
        assert_eq!(error("name: {a: 1}"), "name: expected a text, a number, true or false, or a list of texts");
        assert_eq!(error("just words"), "expected settings, a line each: NAME: VALUE");
        assert!(read(Path::new("/nope")).unwrap_err().starts_with("/nope: No such file"));
    }
}
