//! `holdfast store snapshot|restore|import`: the state of a cluster to a file in etcd's form, and back.
//!
//! A file is checked as a whole before anything is touched. Where a server runs it is asked over its API; where none runs, its
//! data directory is taken for as long as the command works. See docs/decisions/2026-11-28-snapshots.md.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use apiserver::pki::files;
use base::{Clock as _, SystemClock, with_causes};
use futures::AsyncReadExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::ListParams;
use store::{Content, Disk as _, RealDisk};

use crate::cli::{ImportArgs, PlaceArgs, RestoreArgs, SnapshotArgs, StoreCommand};
use crate::replacement::{self, SharedKeys};
use crate::store_routes::{ADOPT_PATH, SNAPSHOT_PATH};
use crate::{CommandResult, block_on, instance, status};

const BUFFER_BYTES: usize = 256 << 10;
/// A restarted server answers within this many looks, one every [`LOOK_EVERY`].
const LOOKS_MAX: usize = 240;
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub fn run(place: &PlaceArgs, command: &StoreCommand) -> CommandResult {
    crate::datastore::refuse_outside(place, "use `etcdctl snapshot save` and `etcdutl snapshot restore` there")?;
    match command {
        StoreCommand::Snapshot(args) => block_on(save(place, args))?.map_err(status::explain),
        StoreCommand::Restore(args) => restore(place, args),
        StoreCommand::Import(args) => import(place, args),
    }
}

async fn save(place: &PlaceArgs, args: &SnapshotArgs) -> CommandResult {
    let file = &args.file;
    let keys_file = with_suffix(file, ".keys");
    for path in [file, &keys_file].into_iter().take(1 + usize::from(args.with_keys)) {
        if path.exists() {
            return Err(format!("{} exists; a snapshot overwrites nothing, choose another name", path.display()).into());
        }
    }
    // Before anything is written, so that there is all or nothing.
    let keys = args.with_keys.then(|| SharedKeys::collect(&place.data_dir)).transpose()?;
    let client = status::connect(place).await?;
    let part = with_suffix(file, ".part");
    let path = format!("{SNAPSHOT_PATH}?stale={}", args.stale);
    let saved = receive(&client, &path, &part).await.and_then(|()| {
        // Read as a restore would: what is saved is known to be whole.
        let content = replacement::read(&part)?;
        std::fs::rename(&part, file)?;
        Ok(content)
    });
    let content = saved.inspect_err(|_| {
        // Whatever is there of it is of no use.
        std::fs::remove_file(&part).ok();
    })?;
    println!("saved {}: {} keys at revision {}", file.display(), content.keys.len(), content.revision);
    let Some(keys) = keys else {
        println!(
            "Secrets in it are encrypted; elsewhere than here they are read with the cluster's keys: --with-keys saves those, too"
        );
        return Ok(());
    };
    files::write_private(&keys_file, keys.render().as_bytes())?;
    println!("saved {}: the cluster's keys; whoever has both files has the cluster", keys_file.display());
    if !keys.has_encryption() {
        println!("the keys of Secrets are in the file of --encryption-provider-config: keep that one with it");
    }
    Ok(())
}

async fn receive(client: &kube::Client, path: &str, part: &Path) -> CommandResult {
    let mut stream = std::pin::pin!(client.request_stream(http::Request::get(path).body(Vec::new())?).await?);
    let unwritten = |error: std::io::Error| format!("cannot write {}: {error}", part.display());
    let unsent = |error: std::io::Error| format!("the server of this machine sends no more: {}", with_causes(&error));
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(part);
    let mut out = opened.map_err(unwritten)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match stream.read(&mut buffer).await.map_err(unsent)? {
            0 => break,
            got => out.write_all(&buffer[..got]).map_err(unwritten)?,
        }
    }
    Ok(out.sync_all().map_err(unwritten)?)
}

fn restore(place: &PlaceArgs, args: &RestoreArgs) -> CommandResult {
    let content = replacement::read(&args.file)?;
    let keys = args.keys.as_deref().map(SharedKeys::read).transpose()?;
    if instance::running_pid(&place.run_dir).is_some() {
        if keys.is_some() {
            return Err("a server runs here and has keys; --keys is for an empty data directory".into());
        }
        replacement::check_sealed(&content, &place.data_dir, (args.encryption_provider_config.as_deref(), None))?;
        return block_on(restore_running(place, args.alone, content))?.map_err(status::explain);
    }
    restore_stopped(place, (args.encryption_provider_config.as_deref(), keys.as_ref()), content)?;
    if keys.is_none() && !place.data_dir.join("pki/ca.key").exists() {
        println!(
            "this data directory has no certificates of that cluster: its nodes and kubeconfigs will not be known; --keys FILE.keys brings them"
        );
    }
    Ok(())
}

/// With nobody else on the data directory. `given`: a file with keys for Secrets that the server will be given, too.
fn restore_stopped(
    place: &PlaceArgs,
    (given, keys): (Option<&Path>, Option<&SharedKeys>),
    content: Content,
) -> CommandResult {
    let data_dir = &place.data_dir;
    replacement::check_sealed(&content, data_dir, (given, keys))?;
    keys.map(|keys| keys.check(data_dir)).transpose()?;
    let _instance = instance::lock(&place.run_dir)?;
    check_unused(data_dir)?;
    let content = replacement::ahead_of(content, replacement::present_revision(data_dir)?);
    keys.map(|keys| keys.install(data_dir)).transpose()?;
    let (count, revision) = (content.keys.len(), content.revision);
    replacement::prepare(data_dir, content)?;
    let kept = replacement::adopt(data_dir, SystemClock::new().now().as_second())?;
    println!("restored {count} keys into {}; the cluster goes on at revision {revision}", data_dir.display());
    if let Some(kept) = kept {
        println!("what was there before is kept in {}", kept.display());
    }
    if let Some(given) = given {
        println!("its Secrets are encrypted: start it with --encryption-provider-config {}", given.display());
    }
    println!("start it as before; other servers of the old cluster join again with empty data directories");
    Ok(())
}

/// A server with another run directory may work on this data.
fn check_unused(data_dir: &Path) -> CommandResult {
    let store = data_dir.join(replacement::STORE);
    if !store.exists() {
        return Ok(());
    }
    match RealDisk::new(&store)?.lock() {
        Ok(_free) => Ok(()),
        Err(store::LockError::Held { pid }) => {
            let pid = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
            Err(format!("process {pid} works on {}; give its --run-dir", store.display()).into())
        }
        Err(store::LockError::Io(source)) => Err(source.into()),
    }
}

async fn restore_running(place: &PlaceArgs, alone: bool, content: Content) -> CommandResult {
    let client = status::connect(place).await?;
    let content = replacement::ahead_of(content, served_revision(&client).await?);
    let (count, revision) = (content.keys.len(), content.revision);
    replacement::prepare(&place.data_dir, content)?;
    let request = http::Request::post(format!("{ADOPT_PATH}?alone={alone}")).body(Vec::new())?;
    if let Err(error) = client.request_text(request).await {
        replacement::discard(&place.data_dir)?;
        return Err(error.into());
    }
    println!("the server restarts on {count} keys at revision {revision}; containers run on");
    for _ in 0..LOOKS_MAX {
        tokio::time::sleep(LOOK_EVERY).await;
        let ready = client.request_text(http::Request::get("/readyz").body(Vec::new())?).await;
        if !replacement::is_prepared(&place.data_dir) && ready.is_ok_and(|text| text == "ok") {
            println!("restored; what was there before is kept beside it in {}", place.data_dir.display());
            return Ok(());
        }
    }
    Err("the server has not come back yet; its log and `holdfast doctor` say why".into())
}

/// Of the store behind a server, through the version of a list.
async fn served_revision(client: &kube::Client) -> Result<i64, Box<dyn std::error::Error>> {
    let list = Api::<Namespace>::all(client.clone()).list(&ListParams::default().limit(1)).await?;
    Ok(list.metadata.resource_version.unwrap_or_default().parse()?)
}

fn import(place: &PlaceArgs, args: &ImportArgs) -> CommandResult {
    if place.data_dir.join(replacement::STORE).exists() {
        return Err(format!(
            "{} holds a cluster already; `holdfast store restore` replaces its state and keeps the old one, or choose another --data-dir",
            place.data_dir.display()
        )
        .into());
    }
    let content = replacement::read(&args.file)?;
    if content.keys.is_empty() {
        return Err(
            format!("{} is of an etcd that holds nothing; there is nothing to import", args.file.display()).into()
        );
    }
    restore_stopped(place, (args.encryption_provider_config.as_deref(), None), content)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
