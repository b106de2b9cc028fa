//! The first words on a connection: who dials, for what, and whether it is welcome.
//!
//! Dialer: `holdfast`, version (u16), purpose (u8), cluster, from, to, instance (u64 each). Acceptor: verdict (u8), length (u16),
//! reason. All numbers big-endian. The layout up to the version, and of the answer, never changes, so that other versions can be refused
//! with a reason.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::PeerError;

const MAGIC: &[u8; 8] = b"holdfast";
/// Of the protocol between members.
pub(crate) const VERSION: u16 = 1;
const HELLO_BYTES: usize = 8 + 2 + 1 + 4 * 8;
const REASON_BYTES_MAX: usize = 1024;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Small frames.
    Urgent,
    /// Large frames.
    Bulk,
    /// One snapshot.
    Snapshot,
    /// One question: who are the members? Asked by those who are none yet.
    Members,
    /// One question: how is this member? Asked by administrators.
    Figures,
}

impl Purpose {
    /// Whoever may speak to a member may ask; ids are not looked at.
    pub(crate) fn is_question(self) -> bool {
        matches!(self, Self::Members | Self::Figures)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version: u16,
    pub(crate) purpose: Purpose,
    pub(crate) cluster: u64,
    pub(crate) from: u64,
    /// The member that the dialer believes to be here.
    pub(crate) to: u64,
    /// Random, one a process: tells two processes with one id apart.
    pub(crate) instance: u64,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Welcome,
    Refused {
        reason: String,
    },
    /// The dialer is no member any more, and will not be again.
    Removed {
        reason: String,
    },
}

impl Hello {
    pub(crate) fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut out = [0; HELLO_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&self.version.to_be_bytes());
        out[10] = match self.purpose {
            Purpose::Urgent => 0,
            Purpose::Bulk => 1,
            Purpose::Snapshot => 2,
            Purpose::Members => 3,
            Purpose::Figures => 4,
        };
        for (place, number) in [self.cluster, self.from, self.to, self.instance].into_iter().enumerate() {
            out[11 + place * 8..19 + place * 8].copy_from_slice(&number.to_be_bytes());
        }
        out
    }

    /// `None`: no member of any version.
    pub(crate) fn decode(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        if &bytes[..8] != MAGIC {
            return None;
        }
        let number =
            |place: usize| bytes[11 + place * 8..19 + place * 8].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let purpose = match bytes[10] {
            0 => Purpose::Urgent,
            1 => Purpose::Bulk,
            2 => Purpose::Snapshot,
            3 => Purpose::Members,
            4 => Purpose::Figures,
            _ => return None,
        };
        let version = u16::from_be_bytes([bytes[8], bytes[9]]);
        Some(Self { version, purpose, cluster: number(0), from: number(1), to: number(2), instance: number(3) })
    }

    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Self>, PeerError> {
        let mut bytes = [0; HELLO_BYTES];
        stream.read_exact(&mut bytes).await?;
        Ok(Self::decode(&bytes))
    }
}

/// Answers a hello.
pub(crate) async fn write_verdict(stream: &mut (impl AsyncWrite + Unpin), verdict: &Verdict) -> Result<(), PeerError> {
    let (code, reason) = match verdict {
        Verdict::Welcome => (0, ""),
        Verdict::Refused { reason } => (1, reason.as_str()),
        Verdict::Removed { reason } => (2, reason.as_str()),
    };
    let reason = &reason.as_bytes()[..reason.len().min(REASON_BYTES_MAX)];
    let mut out = vec![code];
    out.extend_from_slice(&(reason.len() as u16).to_be_bytes());
    out.extend_from_slice(reason);
    stream.write_all(&out).await?;
    Ok(stream.flush().await?)
}

/// Reads the answer to a hello; `with` names the other side in errors.
pub(crate) async fn read_verdict(stream: &mut (impl AsyncRead + Unpin), with: &str) -> Result<Verdict, PeerError> {
    let mut head = [0; 3];
    stream.read_exact(&mut head).await?;
    let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
    if length > REASON_BYTES_MAX {
        return Err(PeerError::Foreign { with: with.to_owned() });
    }
    let mut reason = vec![0; length];
    stream.read_exact(&mut reason).await?;
    let reason = String::from_utf8_lossy(&reason).into_owned();
    match head[0] {
        0 => Ok(Verdict::Welcome),
        1 => Ok(Verdict::Refused { reason }),
        2 => Ok(Verdict::Removed { reason }),
        _ => Err(PeerError::Foreign { with: with.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_survives_the_wire_and_anything_else_is_no_hello() {
        let hello = Hello { version: 7, purpose: Purpose::Snapshot, cluster: 1, from: u64::MAX, to: 3, instance: 4 };
        let bytes = hello.encode();
        assert_eq!(Hello::decode(&bytes), Some(hello));
        let mut other = bytes;
        other[0] = b'H';
        assert_eq!(Hello::decode(&other), None);
        let mut purpose = bytes;
        purpose[10] = 9;
        assert_eq!(Hello::decode(&purpose), None);
    }
}
