//! When this member runs for leader, and whether its vote is on its disk.
//!
//! Who may follow a leader stands in line, so that candidates do not split the votes.

use raft::StateRole;
use raft::eraftpb::{Message, MessageType};

use super::{Member, Undurable};

/// Ticks without a word from the leader until this member helps to elect another: 700 ms of 20 ms ticks, seven heartbeats.
/// Nothing that ticks or sends heartbeats waits for a disk, so that silence says more than where it does.
pub(crate) const ELECTION_TICKS: usize = 35;
/// Ticks that a candidate waits for votes, once its request for them has left: two seconds.
pub(super) const VOTING_TICKS: usize = 100;
/// The first in line runs so many ticks later: by then the others have missed the leader as well.
const FIRST_TURN_TICKS: usize = 2;
/// Between the turns of two members: enough for an election, so that they do not split the votes.
pub(super) const TURN_TICKS: usize = 4;
/// Members in line; more share their turns.
const TURNS: usize = 8;

/// Term and vote, as Raft has them.
#[derive(Clone, Copy)]
pub(super) struct OwnVote {
    pub(super) term: u64,
    pub(super) vote: u64,
    /// The step that they came with.
    pub(super) ticket: u64,
    pub(super) is_durable: bool,
}

const _: () = assert!(FIRST_TURN_TICKS + TURNS * TURN_TICKS <= ELECTION_TICKS && ELECTION_TICKS <= VOTING_TICKS);

impl Member {
    /// Runs for leader now: for a member that is the only voter.
    pub(crate) fn campaign(&mut self) {
        if self.undurable.is_empty() && !self.has_left_log() {
            // Refused if it leads already.
            self.node.campaign().ok();
            self.scatter_timeout();
        }
    }

    /// The process of another member has ended, as far as the network can tell. If that one led, its silence need not be
    /// waited for: this member votes for another now, and runs when it is its turn. A hint and no more: others who
    /// still hear the leader vote for nobody, and its next word takes the hint back.
    pub(crate) fn process_ended(&mut self, id: u64) {
        if id == self.leader() && !self.is_leader() {
            let raft = &mut self.node.raft;
            raft.election_elapsed = raft.election_elapsed.max(ELECTION_TICKS);
        }
    }

    /// Takes note of a new term or vote, which the step of this ticket brings.
    pub(super) fn note_vote(&mut self) {
        let (term, vote) = (self.node.raft.term, self.node.raft.vote);
        if (term, vote) != (self.vote.term, self.vote.vote) {
            self.vote = OwnVote { term, vote, ticket: self.ticket, is_durable: false };
        }
    }

    pub(super) fn holds_vote(&self) -> bool {
        self.held_votes > 0
    }

    /// The library draws its election timeouts from the machine's entropy, over twice the time; these are a line, and what is
    /// left to chance comes from the seed.
    pub(super) fn scatter_timeout(&mut self) {
        let mut rng = base::SeededRng::new(self.seed ^ self.me.rotate_left(17) ^ self.term().rotate_left(40));
        let chance = base::Rng::below(&mut rng, TURN_TICKS as u64 / 2) as usize;
        // Votes wait for the voters' disks.
        let patience = if self.node.raft.state == StateRole::Candidate { VOTING_TICKS } else { ELECTION_TICKS };
        let timeout = patience + FIRST_TURN_TICKS + self.turn() * TURN_TICKS + chance;
        if self.node.raft.randomized_election_timeout() != timeout {
            self.node.raft.set_randomized_election_timeout(timeout);
        }
    }

    /// This member's place in the line of those who may follow the leader; another one in every term, so that one who can't
    /// win is not always first.
    fn turn(&self) -> usize {
        let leader = self.leader();
        let voters = self.node.raft.prs().conf().voters().ids();
        let others = || voters.iter().filter(|id| *id != leader);
        let place = others().filter(|id| *id < self.me).count();
        (place + self.term() as usize) % others().count().clamp(1, TURNS)
    }
}

/// Of the messages that wait for a step, those that vote or ask for votes.
pub(super) fn votes_of(step: &Undurable) -> usize {
    let is_vote =
        |m: &&Message| matches!(m.get_msg_type(), MessageType::MsgRequestVote | MessageType::MsgRequestVoteResponse);
    step.messages.iter().filter(is_vote).count()
}
