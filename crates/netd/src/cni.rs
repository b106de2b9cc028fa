//! The CNI plugin: the process that a container runtime starts for each sandbox. Environment and standard input in, one
//! JSON document on standard output and an exit code out, as the CNI specification (0.3.0 to 1.1.0) lays down.
//!
//! ```text
//! runtime --(CNI_COMMAND=ADD, conflist)--> [`run`] -> [`protocol`] parse -> [`pod`] wire | [`loopback`]
//!                                                         [`ipam`] one file an address, [`hostport`] nft table
//! ```
//!
//! Invariant: every command is idempotent, and a crash at any point leaves only what DEL or the next start of netd
//! reclaims. Synchronous throughout: no runtime is started, since this is on the path of every Pod's start.
//! Not here: writing the configuration the runtime reads (see `setup`).

pub mod hostport;
pub mod ipam;
pub mod loopback;
pub mod pod;
pub mod protocol;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::ExitCode;

use protocol::{Call, CniError, Command};

/// Name of the plugin's executable, and its `type` in the network configuration.
pub const PLUGIN: &str = "holdfast-cni";
/// Name of the executable that runtimes ask for to bring up a sandbox's `lo`.
pub const LOOPBACK_PLUGIN: &str = "loopback";
/// The largest network configuration we read; runtimes send a few hundred bytes, or the attachments of one node on GC.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Whether this process was started as a CNI plugin. The binary asks before it parses its own command line.
pub fn is_invocation(vars: &BTreeMap<String, String>) -> bool {
    vars.contains_key("CNI_COMMAND")
}

/// Runs one CNI command: `vars` is the process's environment, the configuration comes on standard input. The exit code
/// is 0 for success and 1 with an error document on standard output otherwise.
pub fn run(vars: &BTreeMap<String, String>) -> ExitCode {
    let mut input = Vec::new();
    let read = std::io::stdin().take(CONFIG_BYTES_MAX).read_to_end(&mut input);
    let answer = read
        .map_err(|error| CniError::io("read the network configuration", &error))
        .and_then(|_| Call::parse(vars, &input))
        .and_then(|call| execute(&call).map_err(|error| error.in_version(call.version())));
    let (text, code) = match answer {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => (error.document(), ExitCode::FAILURE),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Executes a parsed call; the text is what goes to standard output (empty for DEL, CHECK, GC and STATUS).
pub fn execute(call: &Call) -> Result<String, CniError> {
    if call.command == Command::Version {
        return Ok(protocol::version_document(call.version()));
    }
    if call.config.kind == LOOPBACK_PLUGIN {
        return loopback::execute(call);
    }
    match call.command {
        Command::Add => pod::add(call).map(|result| result.document(call.version())),
        Command::Del => pod::del(call).map(|()| String::new()),
        Command::Check => pod::check(call).map(|()| String::new()),
        Command::Gc => pod::gc(call).map(|()| String::new()),
        Command::Status => pod::status().map(|()| String::new()),
        Command::Version => Ok(protocol::version_document(call.version())),
    }
}
