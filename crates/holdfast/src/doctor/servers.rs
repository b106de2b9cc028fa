//! What was seen -> the servers, a line each: who leads, since when and why, and their disks beside each other. Pure.

use std::collections::BTreeMap;

use super::figures::{Figures, Move};
use super::findings::{Seen, Server};

/// A line a server, then one on leadership while somebody leads; nothing where no server was asked.
pub fn describe(seen: &Seen) -> Vec<String> {
    let titles: Vec<String> = seen.servers.iter().map(Server::title).collect();
    let width = titles.iter().map(|title| title.chars().count()).max().unwrap_or_default();
    let servers = seen.servers.iter().zip(&titles);
    let mut lines: Vec<String> =
        servers.map(|(server, title)| format!("{title:width$}  {}", describe_one(server))).collect();
    let leads = |id: &str| seen.servers.iter().any(|server| server.figures.as_ref().is_ok_and(|it| it.leader == id));
    lines.extend(newest_move(seen).filter(|moved| leads(&moved.to)).map(|moved| describe_move(seen, moved)));
    lines
}

fn describe_one(server: &Server) -> String {
    let Ok(figures) = &server.figures else { return "does not answer".to_owned() };
    let Figures { disk_ms, fsync_p50_ms, fsync_p99_ms, used_bytes, quota_bytes, .. } = figures;
    let role = match () {
        () if server.is_learner => "learns  ",
        () if figures.leader == server.id => "leads   ",
        () if figures.leader.is_empty() => "no leader",
        () => "follows ",
    };
    format!(
        "{role}  a write to its log takes {disk_ms:.1} ms now, since its start p50 {fsync_p50_ms:.1} ms, p99 {fsync_p99_ms:.1} ms  \
         store {} of {} MiB",
        used_bytes >> 20,
        quota_bytes >> 20
    )
}

/// At a member's address another one may listen: its figures are not those of the member.
pub fn refuse_strangers(servers: &mut [Server]) {
    let titles: BTreeMap<String, String> = servers.iter().map(|server| (server.id.clone(), server.title())).collect();
    for server in servers {
        let stranger = server.figures.as_ref().ok().map(|figures| &figures.id).filter(|id| **id != server.id);
        // A server of an earlier version does not say who it is.
        if let Some(id) = stranger.filter(|id| !id.is_empty()) {
            let stranger = titles.get(id).cloned().unwrap_or_else(|| format!("server {id}"));
            server.figures = Err(format!("{stranger} listens at {}", server.url));
        }
    }
}

/// Every server tells of the same move; the leader that gave up knows the reason best.
fn newest_move(seen: &Seen) -> Option<&Move> {
    let answering = seen.servers.iter().filter_map(|server| server.figures.as_ref().ok());
    let moves = answering.filter_map(|figures| figures.last_move.as_ref()).filter(|moved| !moved.to.is_empty());
    moves.min_by_key(|moved| (moved.ago_seconds, moved.reason.is_empty()))
}

fn describe_move(seen: &Seen, moved: &Move) -> String {
    let (to, ago) = (title_of(seen, &moved.to), span(moved.ago_seconds));
    match (moved.from.as_str(), moved.reason.as_str()) {
        ("", _) => format!("{to} has led for {ago}"),
        (from, "") => format!("{to} has led for {ago}, after {}", title_of(seen, from)),
        (from, reason) => format!("{to} has led for {ago}, after {}: {reason}", title_of(seen, from)),
    }
}

/// How a member is called.
fn title_of(seen: &Seen, id: &str) -> String {
    seen.servers.iter().find(|server| server.id == id).map_or_else(|| format!("server {id}"), Server::title)
}

/// As a human says it: 42 s, 5 min, 3 h 7 min, 2 days 3 h.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}
