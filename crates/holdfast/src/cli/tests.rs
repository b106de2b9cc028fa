//! Flags -> what they mean, or the line that refuses them.

use super::*;

fn parse(args: &[&str]) -> Result<Cli, String> {
    let matches = Cli::command().try_get_matches_from(["holdfast"].iter().chain(args));
    matches.and_then(Cli::of_matches).map_err(|error| error.to_string())
}

#[track_caller]
fn check_refused(args: &[&str], reason: &str) {
    let error = parse(args).map(|_| ()).unwrap_err();
    assert!(error.contains(reason), "{args:?}: {error}");
}

#[test]
fn what_cannot_be_followed_is_refused_with_what_is_expected() {
    for url in ["127.0.0.1:7143", "http://10.0.0.1:6443", "https://", "https://a:6443/b", "cp1"] {
        check_refused(&["server", "--token", "t", "--join", url], "expected https://HOST:PORT");
    }
    for address in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"] {
        check_refused(&["server", "--advertise-address", address], "expected the address of one machine");
    }
    check_refused(&["server", "--port", "0"], "'--port <PORT>'");
    check_refused(&["up", "--peer-port", "0"], "'--peer-port <PEER_PORT>'");
    for filter in ["bogus", "info,bogus", "store=loud"] {
        check_refused(&["server", "--log", filter], "expected one of off, error, warn, info, debug, trace");
    }
    check_refused(&["etcd", "--log-level", "bogus"], "debug, info, warn, error");
    check_refused(&["member", "remove", "zz"], "`holdfast member list` shows them");
    check_refused(&["server", "--token", "t"], "with --join URL alone");
    check_refused(&["up", "--token", "t"], "with --join URL alone");
}

#[test]
fn what_is_right_is_taken() {
    let of_server = |args: &[&str]| match parse(&[&["server"], args].concat()).unwrap().command {
        Command::Server(args) => args,
        other => panic!("{other:?}"),
    };
    let args = of_server(&["--join", "https://[::1]:6443/", "--token", "t", "--log", "warn,store=debug"]);
    assert_eq!(args.join.join.as_deref(), Some("https://[::1]:6443"));
    assert_eq!(args.cluster.log, "warn,store=debug");
    assert_eq!(of_server(&["--etcd-port", "0"]).cluster.etcd_port, 0);
    assert!(parse(&["member", "remove", "8e9e05c52164694d"]).is_ok());
    assert!(parse(&["token", "list"]).is_ok() && parse(&["doctor"]).is_ok());
}
