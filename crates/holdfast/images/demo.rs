//! The example application: an HTTP server that tells which Pod answered, and a client to ask it from inside a Pod.
//!
//! ```text
//! demo                 serve on 8080: / answers with the Pod's name, /healthz and /readyz with ok, anything else 404;
//!                      /fail/healthz and /fail/readyz make them answer 500 until /mend/healthz and /mend/readyz
//! demo get URL         fetch an http:// URL and print the body; exit 1 unless the status is 200
//! ```
//!
//! On TERM it stops accepting, lets requests under way finish (at most five seconds), and exits 0. `SHUTDOWN_DELAY_MS`
//! makes it go on serving for that long first, so that a rolling update loses no request while routes catch up.
//!
//! Standalone program, compiled by the build script into a static binary; standard library only. Bounded: request heads
//! to 8 KiB, connections to 256, each read and write to five seconds.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::raw::c_int;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

const PORT: u16 = 8080;
const HEAD_BYTES_MAX: u64 = 8 << 10;
const CONNECTIONS_MAX: usize = 256;
const IO_TIMEOUT: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(5);
/// How long an idle kept-alive connection is waited for before looking whether to stop.
const IDLE_POLL: Duration = Duration::from_millis(100);
const BODY_BYTES_MAX: u64 = 1 << 20;

const SIG_BLOCK: c_int = 0;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;

static CONNECTIONS: Mutex<usize> = Mutex::new(0);
/// Told at the end of each connection.
static DRAINED: Condvar = Condvar::new();
static STOPPING: AtomicUsize = AtomicUsize::new(0);
static HEALTHY: AtomicBool = AtomicBool::new(true);
static READY: AtomicBool = AtomicBool::new(true);

/// glibc's signal set: 1024 bits.
#[repr(C)]
struct SignalSet([u64; 16]);

unsafe extern "C" {
    fn sigemptyset(set: *mut SignalSet) -> c_int;
    fn sigaddset(set: *mut SignalSet, signal: c_int) -> c_int;
    fn pthread_sigmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn sigwait(set: *const SignalSet, signal: *mut c_int) -> c_int;
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["serve"] => serve(),
        ["get", url] => get(url),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: demo [serve | get URL]")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let stop = block_stop_signals();
    let listener = TcpListener::bind(("::", PORT)).or_else(|_| TcpListener::bind(("0.0.0.0", PORT)))?;
    println!("{} listens on {PORT}", pod_name());
    std::thread::spawn(move || accept(&listener));
    wait_for_signal(&stop);
    println!("{} stops", pod_name());
    let delay = std::env::var("SHUTDOWN_DELAY_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    wait_until_drained(Duration::from_millis(delay), |_| false);
    STOPPING.store(1, Ordering::SeqCst);
    wait_until_drained(GRACE, |connections| connections == 0);
    Ok(())
}

/// Waits until the number of connections is `enough`, or for `longest`.
fn wait_until_drained(longest: Duration, enough: impl Fn(usize) -> bool) {
    let connections = CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    drop(DRAINED.wait_timeout_while(connections, longest, |connections| !enough(*connections)));
}

/// Takes a place among the connections, if one is free.
fn enter() -> bool {
    let mut connections = CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    let free = *connections < CONNECTIONS_MAX;
    *connections += usize::from(free);
    free
}

fn leave() {
    *CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    DRAINED.notify_all();
}

fn accept(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if STOPPING.load(Ordering::SeqCst) == 1 || !enter() {
            continue;
        }
        std::thread::spawn(move || {
            if let Err(error) = serve_connection(stream) {
                if !matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) {
                    eprintln!("demo: {error}");
                }
            }
            leave();
        });
    }
}

/// Serves requests of one connection, kept alive as HTTP/1.1 has it, until it idles too long or we stop.
fn serve_connection(mut stream: TcpStream) -> io::Result<()> {
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    loop {
        if !wait_for_request(&stream)? {
            return Ok(());
        }
        stream.set_read_timeout(Some(IO_TIMEOUT))?;
        let mut reader = BufReader::new((&stream).take(HEAD_BYTES_MAX));
        let (mut request, mut keep) = (String::new(), true);
        reader.read_line(&mut request)?;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            keep &= line != "connection: close";
        }
        keep &= request.trim_end().ends_with("HTTP/1.1") && STOPPING.load(Ordering::SeqCst) == 0;
        let path = request.split(' ').nth(1).unwrap_or("/");
        let (status, body) = answer(path.split('?').next().unwrap_or("/"));
        let connection = if keep { "keep-alive" } else { "close" };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
            body.len()
        )?;
        if !keep {
            return Ok(());
        }
    }
}

fn answer(path: &str) -> (&'static str, String) {
    let probe = |state: &AtomicBool| match state.load(Ordering::SeqCst) {
        true => ("200 OK", "ok\n".to_owned()),
        false => ("500 Internal Server Error", "told to fail\n".to_owned()),
    };
    let tell = |state: &AtomicBool, to: bool| {
        state.store(to, Ordering::SeqCst);
        ("200 OK", "done\n".to_owned())
    };
    match path {
        "/" => ("200 OK", format!("Hello from {}\n", pod_name())),
        "/healthz" => probe(&HEALTHY),
        "/readyz" => probe(&READY),
        "/fail/healthz" => tell(&HEALTHY, false),
        "/fail/readyz" => tell(&READY, false),
        "/mend/healthz" => tell(&HEALTHY, true),
        "/mend/readyz" => tell(&READY, true),
        _ => ("404 Not Found", "not found\n".to_owned()),
    }
}

/// Waits for the first byte of a request; false when the peer closed, idled for long, or we stop.
fn wait_for_request(stream: &TcpStream) -> io::Result<bool> {
    stream.set_read_timeout(Some(IDLE_POLL))?;
    let deadline = Instant::now() + 12 * IO_TIMEOUT;
    loop {
        match stream.peek(&mut [0]) {
            Ok(read) => return Ok(read > 0),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if STOPPING.load(Ordering::SeqCst) == 1 || Instant::now() > deadline {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn get(url: &str) -> io::Result<()> {
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text.to_owned());
    let rest = url.strip_prefix("http://").ok_or_else(|| invalid("only http:// URLs"))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let target = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let mut stream = TcpStream::connect(target)?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(BODY_BYTES_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| invalid("the answer is not HTTP"))?;
    print!("{body}");
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(invalid(head.lines().next().unwrap_or_default())),
    }
}

fn pod_name() -> String {
    let name = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).ok();
    let name = name.or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    name.map_or_else(|| "demo".to_owned(), |name| name.trim().to_owned())
}

/// Blocks TERM and INT in this and all later threads, for [`wait_for_signal`].
fn block_stop_signals() -> SignalSet {
    let mut signals = SignalSet([0; 16]);
    // SAFETY: the pointers are to a live local of the layout glibc expects.
    unsafe {
        sigemptyset(&mut signals);
        sigaddset(&mut signals, SIGINT);
        sigaddset(&mut signals, SIGTERM);
        pthread_sigmask(SIG_BLOCK, &signals, std::ptr::null_mut());
    }
    signals
}

fn wait_for_signal(signals: &SignalSet) {
    let mut signal = 0;
    // SAFETY: both pointers are to live values.
    unsafe { sigwait(signals, &mut signal) };
}
