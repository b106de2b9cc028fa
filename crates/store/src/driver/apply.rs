//! From the log to the state: committed entries are executed in order, and their clients answered.

use raft::eraftpb::Entry;

use super::{Driver, Output, Reply};
use crate::command::Command;
use crate::error::KvError;
use crate::machine::{Machine, Outcome};
use crate::member::command_of;
use crate::mvcc::State;
use crate::proposal::ProposalId;

/// Answers that wait until the state is published.
pub(super) type Answers = Vec<(Reply<Outcome>, Result<Outcome, KvError>)>;

impl Driver {
    /// Executes committed entries. What their clients are told is put into `answers`.
    pub(super) fn apply(&mut self, entries: Vec<Entry>, answers: &mut Answers) {
        let Some(last) = entries.last().map(|entry| (entry.index, entry.term)) else { return };
        let mut members_changed = false;
        for entry in &entries {
            let id = if entry.context.is_empty() { None } else { ProposalId::decode(&entry.context).ok() };
            let Some((command, change)) = command_of(entry) else {
                return self.stop(&format!("entry {} of the log makes no sense", entry.index).into());
            };
            let outcome = self.machine.apply((entry.index, entry.term), id.as_ref(), &command);
            self.unpublished = true;
            if let Some(Ok(Outcome::Members(Ok(_)))) = &outcome {
                members_changed = true;
                if let Some(Err(error)) = change.map(|change| self.member.apply_conf_change(&change)) {
                    return self.stop(&format!("entry {} changes the membership: {error}", entry.index).into());
                }
            }
            if let Some(outcome) = &outcome {
                self.follow_up(&command, outcome);
            }
            if let Some(id) = id {
                let reply = self.proposals.applied(&id);
                answers.extend(reply.zip(outcome));
            }
        }
        self.settle_at(last, members_changed);
    }

    /// What an applied command means for this member's own bookkeeping.
    fn follow_up(&mut self, command: &Command, outcome: &Result<Outcome, KvError>) {
        if self.lessor_term.is_none() {
            return;
        }
        match (command.deed(), outcome) {
            (Command::LeaseGrant { .. }, Ok(Outcome::Granted(lease))) => {
                self.lessor.grant(lease.id, lease.ttl_seconds, self.clock.monotonic());
            }
            (Command::LeaseRevoke { id }, Ok(_) | Err(KvError::LeaseNotFound { .. })) => self.lessor.revoke(*id),
            _ => {}
        }
    }

    /// Tells the rest of the driver how far the state is.
    fn settle_at(&mut self, position: (u64, u64), members_changed: bool) {
        let (me, cluster) = (self.identity.member, &self.machine.state().cluster);
        let conf_state = members_changed.then(|| cluster.conf_state());
        let is_alone = cluster.is_alone(me);
        let is_removed = cluster.is_removed(me);
        if members_changed {
            self.reports.retain(|id, _| cluster.contains(*id));
            self.proposals.members_changed(|id| cluster.contains(id));
            self.outbox.push(Output::Members(cluster.list()));
        }
        self.member.applied(position, conf_state, is_alone);
        if is_removed {
            self.removed();
        }
    }

    /// A snapshot of the leader has become this member's log: it is its state from now on.
    pub(super) fn adopt(&mut self, state: State) {
        let position = (state.index, state.term);
        self.checkpoint.covers_all(&state);
        self.machine = Machine::new(state);
        self.unpublished = true;
        self.settle_at(position, true);
        self.proposals.settle(&self.machine.state().cluster.sessions);
    }
}
