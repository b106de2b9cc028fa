//! Who are the members? Asked by one that is about to join, at the peer URLs of those that are there. And how is this one?
//! Asked by administrators, whatever else of it does not answer.
//!
//! The answer is one frame of JSON. With mutual TLS only holders of a member certificate get it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use store::peer::MemberInfo;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::accept::read_frame;
use crate::dial::{Wire, open};
use crate::hello::{Hello, Purpose, VERSION};
use crate::network::{Shared, Started};
use crate::{PeerError, PeerTls};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The cluster as one member sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterView {
    pub cluster_id: u64,
    /// Of the member that answered.
    pub member_id: u64,
    pub members: Vec<MemberInfo>,
}

/// Ids are hexadecimal text: JSON's numbers hold no 64 bits.
#[derive(Serialize, Deserialize)]
struct WireView {
    cluster: String,
    member: String,
    members: Vec<WireMember>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMember {
    id: String,
    name: String,
    #[serde(rename = "peerURLs")]
    peer_urls: Vec<String>,
    #[serde(rename = "clientURLs")]
    client_urls: Vec<String>,
    is_learner: bool,
}

/// Asks the first of `urls` that answers. Errors: that of the last one.
pub async fn ask_members(urls: &[String], tls: Option<&PeerTls>) -> Result<ClusterView, PeerError> {
    let (url, answer) = ask(urls, tls, Purpose::Members).await?;
    parse_view(&answer).ok_or(PeerError::Answer { with: url })
}

/// What the member at the first of `urls` that answers tells of itself, as its [`FigureSource`] renders it; empty from one
/// that tells nothing. Errors: that of the last one.
pub async fn ask_figures(urls: &[String], tls: Option<&PeerTls>) -> Result<Bytes, PeerError> {
    Ok(ask(urls, tls, Purpose::Figures).await?.1)
}

/// Who answered, and what.
async fn ask(urls: &[String], tls: Option<&PeerTls>, purpose: Purpose) -> Result<(String, Bytes), PeerError> {
    let hello = Hello { version: VERSION, purpose, cluster: 0, from: 0, to: 0, instance: 0 };
    let mut opened = open(urls, tls, &hello).await?;
    let answer = timeout(ANSWER_WITHIN, read_frame(&mut opened.wire)).await;
    let answer = answer.map_err(|_| PeerError::Silent { with: opened.url.clone() })??;
    Ok((opened.url, answer))
}

/// What a member tells of itself, as JSON.
pub trait FigureSource: Send + Sync {
    fn render(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>>;
}

/// Answers one question.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    started: &Started,
    question: Purpose,
    wire: &mut Box<dyn Wire>,
) -> Result<(), PeerError> {
    let text = match (question, shared.figure_source()) {
        (Purpose::Figures, None) => String::new(),
        (Purpose::Figures, Some(source)) => source.render().await,
        _ => {
            let (cluster_id, member_id) = (started.cluster, started.member);
            render_view(&ClusterView { cluster_id, member_id, members: shared.members() })
        }
    };
    wire.write_u32(text.len() as u32).await?;
    wire.write_all(text.as_bytes()).await?;
    Ok(wire.shutdown().await?)
}

/// The view as one line of JSON.
pub fn render_view(view: &ClusterView) -> String {
    let members = view.members.iter().map(|member| WireMember {
        id: format!("{:x}", member.id),
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        is_learner: member.is_learner,
    });
    let (cluster, member) = (format!("{:x}", view.cluster_id), format!("{:x}", view.member_id));
    // Plain text and lists: there is nothing in it that JSON could not say.
    serde_json::to_string(&WireView { cluster, member, members: members.collect() }).unwrap_or_default()
}

/// What [`render_view`] made; `None` for anything else.
pub fn parse_view(text: &[u8]) -> Option<ClusterView> {
    let wire: WireView = serde_json::from_slice(text).ok()?;
    let id = |text: &str| u64::from_str_radix(text, 16).ok();
    let members = wire.members.into_iter().map(|member| {
        let WireMember { name, peer_urls, client_urls, is_learner, .. } = member;
        Some(MemberInfo { id: id(&member.id)?, name, peer_urls, client_urls, is_learner })
    });
    let members = members.collect::<Option<Vec<_>>>()?;
    Some(ClusterView { cluster_id: id(&wire.cluster)?, member_id: id(&wire.member)?, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_survives_the_wire() {
        let member = MemberInfo {
            id: u64::MAX,
            name: "m1".to_owned(),
            peer_urls: vec!["http://[::1]:2380".to_owned()],
            client_urls: Vec::new(),
            is_learner: true,
        };
        let view = ClusterView { cluster_id: 1 << 63, member_id: 3, members: vec![member] };
        assert_eq!(parse_view(render_view(&view).as_bytes()), Some(view));
        assert_eq!(parse_view(b"{}"), None);
    }
}
