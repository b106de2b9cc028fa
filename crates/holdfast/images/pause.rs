//! The sandbox's first process: holds the Pod's namespaces open, reaps orphans, and ends on TERM or INT.
//!
//! Standalone program, compiled by the build script into a static binary. Standard library only, so the few system calls
//! it needs are declared here for Linux with glibc.
//!
//! Invariant: it never exits on its own, and no zombie stays.

use std::os::raw::{c_int, c_void};

const SIG_BLOCK: c_int = 0;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
const SIGCHLD: c_int = 17;
const WNOHANG: c_int = 1;

/// glibc's signal set: 1024 bits.
#[repr(C)]
struct SignalSet([u64; 16]);

unsafe extern "C" {
    fn sigemptyset(set: *mut SignalSet) -> c_int;
    fn sigaddset(set: *mut SignalSet, signal: c_int) -> c_int;
    fn sigprocmask(how: c_int, set: *const SignalSet, old: *mut c_void) -> c_int;
    fn sigwait(set: *const SignalSet, signal: *mut c_int) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
}

fn main() {
    if std::env::args().any(|argument| argument == "-v") {
        println!("pause (holdfast)");
        return;
    }
    let mut signals = SignalSet([0; 16]);
    // SAFETY: the set outlives every call and all pointers are to live locals. Signals are blocked before the first wait,
    // so none can be lost between two waits.
    unsafe {
        sigemptyset(&mut signals);
        for signal in [SIGINT, SIGTERM, SIGCHLD] {
            sigaddset(&mut signals, signal);
        }
        sigprocmask(SIG_BLOCK, &signals, std::ptr::null_mut());
        loop {
            let mut signal = 0;
            sigwait(&signals, &mut signal);
            match signal {
                SIGCHLD => while waitpid(-1, std::ptr::null_mut(), WNOHANG) > 0 {},
                SIGINT | SIGTERM => return,
                _ => {}
            }
        }
    }
}
