//! `etcdctl downgrade`: etcd's answers while no downgrade is under way, which is always. Pure.
//!
//! The files of this store are no etcd's, so there is nothing to go back to; everything that comes before that is said as etcd
//! says it.

use crate::proto::etcdserverpb::downgrade_request::DowngradeAction;
use crate::refusals::{BAD_DOWNGRADE_FORMAT, BAD_DOWNGRADE_TARGET, NOT_DOWNGRADABLE, Refusal};

/// Major and minor.
type Version = (i64, i64);

/// The answer to a request in a cluster of `cluster`: its version, as a text.
pub(crate) fn answer(action: DowngradeAction, target: &str, cluster: &str) -> Result<String, Refusal> {
    let (major, minor) = parse_version(cluster).ok_or(BAD_DOWNGRADE_FORMAT)?;
    match action {
        // There never is one to cancel: etcd only writes that into its log.
        DowngradeAction::Cancel => Ok(format!("{major}.{minor}")),
        DowngradeAction::Validate | DowngradeAction::Enable => match parse_version(target) {
            None => Err(BAD_DOWNGRADE_FORMAT),
            Some(target) if target != (major, minor - 1) => Err(BAD_DOWNGRADE_TARGET),
            Some(_) => Err(NOT_DOWNGRADABLE),
        },
    }
}

/// As etcd reads versions: `3.6`, or `3.6.0` with what may follow a patch behind `-` or `+`.
fn parse_version(text: &str) -> Option<Version> {
    let core = |text: &str| {
        let text = text.split('+').next()?.split('-').next()?;
        let [major, minor, patch] = text.split('.').collect::<Vec<_>>().try_into().ok()?;
        let parse = |part: &str| part.parse::<i64>().ok();
        parse(patch)?;
        Some((parse(major)?, parse(minor)?))
    };
    core(text).or_else(|| core(&format!("{text}.0")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What etcd 3.7.3 answers, but for the one target that it takes.
    #[test]
    fn answers_are_etcds() {
        let check = |target: &str, expect: Refusal| {
            for action in [DowngradeAction::Validate, DowngradeAction::Enable] {
                assert_eq!(answer(action, target, "3.7.0"), Err(expect), "{target}");
            }
        };
        for target in ["3.6", "3.6.0", "3.6.9", "3.6.0-rc1", "03.6"] {
            check(target, NOT_DOWNGRADABLE);
        }
        for target in ["3.5", "3.7", "3.8", "4.6"] {
            check(target, BAD_DOWNGRADE_TARGET);
        }
        for target in ["x", "3", "3.6.x", "v3.6.0", "3.-6", "3.6.0.0", "3.6+a", ""] {
            check(target, BAD_DOWNGRADE_FORMAT);
        }
        assert_eq!(answer(DowngradeAction::Cancel, "", "3.7.0"), Ok("3.7".to_owned()));
    }
}
