//! The end of a run: the faults end, everything comes back, and what was answered is true.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::clients::{LEASES_MAX, Purpose};
use super::world::World;
use super::{Broken, Figures};
use crate::command::Command;
use crate::driver::Message;
use crate::mvcc::State;
use crate::peer::MemberChange;
use crate::record::encode_command;

/// A member that is well lacks no more entries than this.
const BEHIND_MAX: u64 = 50;
/// Of a run: twenty that [`World::unsettled`] wants at its end, and those before the first fault. A majority may be stopped all the
/// time between.
const WRITES_MIN: u64 = 30;

impl World {
    /// All faults end: every disk is well, every member that belongs to the cluster is up.
    pub(super) fn make_peace(&mut self) {
        (self.faults.enabled, self.are_busy) = (false, false);
        self.faults.heal();
        self.clients.purpose = Purpose::Calm;
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            self.heal_disk(id);
            if self.broken == Broken::DisksStayStuck {
                self.slow_down(id, Duration::MAX);
            }
            if let Some(node) = self.nodes.get_mut(&id) {
                node.paused_until = Duration::ZERO;
            }
        }
        // A frame of before may still renew a lease.
        self.led_since = self.now();
    }

    /// Lets time pass until all is as it should be when nothing goes wrong, for so long at most.
    pub(super) fn settle(&mut self, most: Duration) -> Result<(), String> {
        let (end, before) = (self.now() + most, self.figures);
        loop {
            self.run_for(Duration::from_millis(250))?;
            self.replace_ruined();
            self.break_leases();
            match self.unsettled(&before) {
                None => return Ok(()),
                Some(what) if self.now() >= end => {
                    return Err(format!("{what}, {most:?} after the faults have ended; {}", self.describe()));
                }
                Some(_) => {}
            }
        }
    }

    /// What is not as it should be when nothing goes wrong. `before`: the figures when that began.
    fn unsettled(&self, before: &Figures) -> Option<String> {
        let Some((_, newest)) = self.leading() else { return Some("no leader".into()) };
        if self.now() < self.led_since + LEASES_MAX {
            return Some("leases may live on".into());
        }
        let (writes, reads) = (self.figures.writes - before.writes, self.figures.reads - before.reads);
        if writes < 20 || reads < 10 {
            return Some(format!("only {writes} writes and {reads} reads by clients of {:?}", self.clients.members()));
        }
        let seen = |id| self.nodes.get(&id).map(|node| node.running.as_ref().map_or(0, |running| running.seen_index));
        let behind = newest.cluster.list().into_iter().find_map(|member| {
            let seen = seen(member.id).filter(|seen| seen + BEHIND_MAX < newest.index)?;
            Some(format!("member {} is at entry {seen} of {}", member.id, newest.index))
        });
        behind
            .or_else(|| self.clients.waits_long(self.now()))
            .or_else(|| self.clients.outlived(&newest, self.led_since, self.now()))
    }

    /// The end: what was answered is true.
    pub(super) fn finish(mut self) -> Result<Figures, String> {
        if self.figures.writes < WRITES_MIN {
            return Err(format!("too little happened: {:?}", self.figures));
        }
        self.oracle.check()?;
        Ok(self.figures)
    }

    /// Who leads and knows it, and what it shows.
    pub(super) fn leading(&self) -> Option<(u64, Arc<State>)> {
        self.nodes.values().find_map(|node| {
            let running = node.running.as_ref()?;
            (running.leader == node.id).then(|| (node.id, running.published.state.load_full()))
        })
    }

    /// The operator removes a member whose disk is damaged, and adds a new one.
    pub(super) fn replace_ruined(&mut self) {
        let Some(ruined) = self.nodes.values().find(|node| node.is_ruined).map(|node| node.id) else { return };
        let Some((leader, state)) = self.leading() else { return };
        if state.cluster.contains(ruined) {
            self.propose_change(leader, MemberChange::Remove { id: ruined });
        } else if !self.faults.is_replaced {
            self.faults.is_replaced = true;
            self.add_member(leader, |id, peer_urls| MemberChange::AddVoter { id, peer_urls });
        }
    }

    /// A new machine, and the word of it to the cluster.
    pub(super) fn add_member(&mut self, at: u64, change: impl FnOnce(u64, Vec<String>) -> MemberChange) {
        let new = self.nodes.keys().next_back().map_or(1, |last| last + 1);
        self.add_node(new);
        self.propose_change(at, change(new, vec![format!("sim:{new}")]));
    }

    pub(super) fn propose_change(&mut self, at: u64, change: MemberChange) {
        self.propose(at, Command::Member(change));
    }

    /// Nobody waits for the answer.
    fn propose(&mut self, at: u64, command: Command) {
        let body = encode_command(&command).into();
        let (reply, _) = oneshot::channel();
        self.tell(at, Message::Propose { command, body, permit: None, reply });
    }

    /// Ends or keeps leases behind the oracle's back, where that rule is broken on purpose.
    pub(super) fn break_leases(&mut self) {
        if !matches!(self.broken, Broken::LeasesCut | Broken::LeasesKept) {
            return;
        }
        let Some((leader, state)) = self.leading() else { return };
        for id in state.leases.keys().copied() {
            if self.broken == Broken::LeasesCut {
                return self.propose(leader, Command::LeaseRevoke { id });
            }
            let (reply, _) = oneshot::channel();
            self.tell(leader, Message::KeepAlive { id, reply });
        }
    }
}
