//! Which cluster `holdfast etcd` founds or joins: etcd's flags in, ids and members out, with etcd's ids.
//!
//! A directory that holds data knows its cluster; the flags that name members count for an empty one alone.

use clap::{ArgAction, Args};
use peers::{ClusterView, PeerTls, PeerUrl};
use store::MemberInfo;

use crate::etcd_listen::EtcdFlagsError;

/// etcd's flags about the other members.
#[derive(Debug, Clone, Args)]
pub struct EtcdClusterArgs {
    /// URLs to listen on for other members.
    #[arg(long, action = ArgAction::Set, value_delimiter = ',', default_value = "http://localhost:2380", env = "ETCD_LISTEN_PEER_URLS")]
    pub listen_peer_urls: Vec<String>,
    /// Where other members reach this one.
    #[arg(
        long,
        action = ArgAction::Set, value_delimiter = ',',
        default_value = "http://localhost:2380",
        env = "ETCD_INITIAL_ADVERTISE_PEER_URLS"
    )]
    pub initial_advertise_peer_urls: Vec<String>,
    /// NAME=PEERURL of all members, this one included [default: this one alone].
    #[arg(long, env = "ETCD_INITIAL_CLUSTER")]
    initial_cluster: Option<String>,
    /// `new` founds the cluster; `existing` joins one that was told of this member by `member add`.
    #[arg(long, default_value = "new", value_parser = ["new", "existing"], env = "ETCD_INITIAL_CLUSTER_STATE")]
    initial_cluster_state: String,
    /// Tells clusters apart whose members have the same URLs.
    #[arg(long, default_value = "etcd-cluster", env = "ETCD_INITIAL_CLUSTER_TOKEN")]
    initial_cluster_token: String,
}

/// What an empty directory becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPlan {
    pub cluster_id: u64,
    pub member_id: u64,
    /// All members of a new cluster; of an existing one as far as is known.
    pub members: Vec<MemberInfo>,
    /// The state comes from the others.
    pub joining: bool,
}

/// The members by name that the flags say, checked against themselves.
pub fn parse_members(name: &str, args: &EtcdClusterArgs) -> Result<Vec<(String, Vec<String>)>, EtcdFlagsError> {
    let own = &args.initial_advertise_peer_urls;
    for url in own {
        let reason = "expected http://HOST:PORT or https://HOST:PORT";
        let bad = |_| EtcdFlagsError::Value { flag: "--initial-advertise-peer-urls", value: url.clone(), reason };
        PeerUrl::parse(url).map_err(bad)?;
    }
    let Some(given) = args.initial_cluster.as_deref().filter(|given| !given.is_empty()) else {
        return Ok(vec![(name.to_owned(), own.clone())]);
    };
    let bad = |reason| EtcdFlagsError::Value { flag: "--initial-cluster", value: given.to_owned(), reason };
    let mut members: Vec<(String, Vec<String>)> = Vec::new();
    for part in given.split(',') {
        let (name, url) = part.split_once('=').ok_or_else(|| bad("expected NAME=PEERURL"))?;
        let (name, url) = (name.trim(), url.trim());
        PeerUrl::parse(url).map_err(|_| bad("expected NAME=http://HOST:PORT or NAME=https://HOST:PORT"))?;
        if members.iter().any(|(_, urls)| urls.iter().any(|known| known == url)) {
            return Err(bad("two members have the same URL"));
        }
        match members.iter_mut().find(|(known, _)| known == name) {
            Some((_, urls)) => urls.push(url.to_owned()),
            None => members.push((name.to_owned(), vec![url.to_owned()])),
        }
    }
    let Some((_, said)) = members.iter().find(|(known, _)| known == name) else {
        return Err(EtcdFlagsError::NotInCluster { given: given.to_owned(), name: name.to_owned() });
    };
    if !is_same_set(said, own) {
        let (said, own) = (said.join(","), own.join(","));
        return Err(EtcdFlagsError::OwnUrls { name: name.to_owned(), said, own });
    }
    Ok(members)
}

/// A new cluster of these members.
pub fn plan_new(name: &str, args: &EtcdClusterArgs, members: &[(String, Vec<String>)]) -> ClusterPlan {
    let token = &args.initial_cluster_token;
    let member_id = etcd::ids::derive_member_id(&args.initial_advertise_peer_urls, token);
    let members = members.iter().map(|(member, peer_urls)| MemberInfo {
        id: if member == name { member_id } else { etcd::ids::derive_member_id(peer_urls, token) },
        name: member.clone(),
        peer_urls: peer_urls.clone(),
        ..MemberInfo::default()
    });
    let members: Vec<MemberInfo> = members.collect();
    let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
    ClusterPlan { cluster_id: etcd::ids::derive_cluster_id(&ids), member_id, members, joining: false }
}

/// The place in a running cluster that `member add` made for these URLs.
pub fn plan_existing(own_urls: &[String], view: ClusterView) -> Result<ClusterPlan, EtcdFlagsError> {
    let own = view.members.iter().find(|member| is_same_set(&member.peer_urls, own_urls));
    let Some(own) = own else {
        return Err(EtcdFlagsError::NotAdded { urls: own_urls.join(",") });
    };
    Ok(ClusterPlan { cluster_id: view.cluster_id, member_id: own.id, members: view.members.clone(), joining: true })
}

/// What an empty directory of this member becomes; asks the others when the cluster exists.
pub async fn plan(name: &str, args: &EtcdClusterArgs, tls: Option<&PeerTls>) -> Result<ClusterPlan, EtcdFlagsError> {
    let members = parse_members(name, args)?;
    if args.initial_cluster_state == "new" {
        return Ok(plan_new(name, args, &members));
    }
    let others = members.into_iter().filter(|(member, _)| member != name);
    let others: Vec<String> = others.flat_map(|(_, urls)| urls).collect();
    if others.is_empty() {
        return Err(EtcdFlagsError::NobodyToJoin);
    }
    let view = peers::ask_members(&others, tls).await;
    plan_existing(&args.initial_advertise_peer_urls, view.map_err(|error| EtcdFlagsError::NotAsked(error.to_string()))?)
}

fn is_same_set(one: &[String], other: &[String]) -> bool {
    let sorted = |urls: &[String]| {
        let mut urls: Vec<String> = urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        urls.sort();
        urls.dedup();
        urls
    };
    sorted(one) == sorted(other)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        cluster: EtcdClusterArgs,
    }

    fn parse(own: &str, cluster: &str) -> EtcdClusterArgs {
        let flags = ["x", "--initial-advertise-peer-urls", own, "--initial-cluster", cluster];
        Flags::try_parse_from(flags).unwrap().cluster
    }

    #[test]
    fn members_are_checked_against_the_own_flags() {
        let check = |own: &str, cluster: &str, expect: Result<usize, &str>| {
            let parsed = parse_members("m1", &parse(own, cluster)).map(|members| members.len());
            assert_eq!(parsed.map_err(|error| error.to_string()), expect.map_err(str::to_owned));
        };
        check("http://a:1", "m1=http://a:1", Ok(1));
        check("http://a:1", "", Ok(1));
        check("http://a:1,http://b:1", "m1=http://b:1,m1=http://a:1/,m2=http://c:1", Ok(2));
        check(
            "http://a:1",
            "x=http://a:1",
            Err("--initial-cluster x=http://a:1 does not name this member, whose --name is m1"),
        );
        check(
            "http://a:1",
            "m1=http://b:1",
            Err(
                "--initial-cluster says http://b:1 for m1, but --initial-advertise-peer-urls says http://a:1; make them the same",
            ),
        );
        check(
            "http://a:1",
            "m1=http://a:1,m2=http://a:1",
            Err("--initial-cluster m1=http://a:1,m2=http://a:1: two members have the same URL"),
        );
        check("http://a:1", "m1", Err("--initial-cluster m1: expected NAME=PEERURL"));
        check("a:1", "", Err("--initial-advertise-peer-urls a:1: expected http://HOST:PORT or https://HOST:PORT"));
    }

    #[test]
    fn ids_are_the_same_on_all_members_and_depend_on_the_token() {
        let cluster = "m1=http://a:1,m2=http://b:1";
        let plan_of = |name, own| {
            let args = parse(own, cluster);
            let members = parse_members(name, &args).unwrap();
            plan_new(name, &args, &members)
        };
        let (one, two) = (plan_of("m1", "http://a:1"), plan_of("m2", "http://b:1"));
        assert_eq!((one.cluster_id, &one.members), (two.cluster_id, &two.members));
        assert_eq!((one.members[0].id, one.members[1].id), (one.member_id, two.member_id));
    }

    #[test]
    fn a_joiner_finds_its_place_by_its_urls() {
        let added = MemberInfo { id: 9, peer_urls: vec!["http://b:1".to_owned()], ..MemberInfo::default() };
        let view = ClusterView { cluster_id: 7, member_id: 1, members: vec![added] };
        let plan = plan_existing(&["http://b:1".to_owned()], view.clone()).unwrap();
        assert_eq!((plan.cluster_id, plan.member_id, plan.joining), (7, 9, true));
        let refused = plan_existing(&["http://c:1".to_owned()], view).unwrap_err().to_string();
        assert!(refused.contains("etcdctl member add"), "{refused}");
    }
}
