//! Simple tokens: what a client shows instead of its password, for some minutes.
//!
//! ```text
//! base64url(random 8 | seconds since 1970, 8 | user name) . base64url(HMAC-SHA256)
//! ```
//!
//! A token is signed with the key of the rules and the password's hash of its user, so that every member knows every member's
//! tokens without being told, and they end when the password changes, the user is deleted, or access control is disabled.
//! As in etcd, a token lasts for a time after its last use at a member. Bounded: a member remembers the uses of
//! [`REMEMBERED_MAX`] tokens; those beyond last from when they were made.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use base::{Clock, OsRng, Rng as _};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};

use super::rules::Rules;

const REMEMBERED_MAX: usize = 10_000;
const NAME_AT: usize = 16;

/// Makes and checks tokens.
pub(crate) struct SimpleTokens {
    clock: Arc<dyn Clock>,
    time_to_live: Duration,
    /// Token -> its last use, on the monotonic clock.
    used: Mutex<HashMap<String, Duration>>,
}

impl SimpleTokens {
    pub(crate) fn new(clock: Arc<dyn Clock>, time_to_live: Duration) -> Self {
        Self { clock, time_to_live, used: Mutex::default() }
    }

    /// A token of a user whose password is right. The rules have a key.
    pub(crate) fn assign(&self, rules: &Rules, user: &str) -> String {
        let mut content = OsRng.next_u64().to_be_bytes().to_vec();
        content.extend_from_slice(&self.now_seconds().to_be_bytes());
        content.extend_from_slice(user.as_bytes());
        let signature = hmac::sign(&signing_key(rules, user), &content);
        format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(content), BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// The user whose token it is, if it is valid.
    pub(crate) fn verify(&self, rules: &Rules, token: &str) -> Option<String> {
        let (content, signature) = token.split_once('.')?;
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let (content, signature) = (decode(content)?, decode(signature)?);
        let issued = u64::from_be_bytes(content.get(8..NAME_AT)?.try_into().ok()?);
        let user = std::str::from_utf8(content.get(NAME_AT..)?).ok()?;
        if rules.token_key.is_empty() || !rules.users.contains_key(user) {
            return None;
        }
        hmac::verify(&signing_key(rules, user), &content, &signature).ok()?;
        self.is_fresh(token, issued).then(|| user.to_owned())
    }

    /// Takes note of the use of a token that is not too old.
    fn is_fresh(&self, token: &str, issued: u64) -> bool {
        let now = self.clock.monotonic();
        let is_recent = |last: &Duration| now.saturating_sub(*last) < self.time_to_live;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = used.get_mut(token).filter(|last| is_recent(last)) {
            *last = now;
            return true;
        }
        // A clock that jumped back must not prolong a token by more than its time.
        if self.now_seconds().abs_diff(issued) >= self.time_to_live.as_secs() {
            used.remove(token);
            return false;
        }
        if used.len() >= REMEMBERED_MAX {
            used.retain(|_, last| is_recent(last));
        }
        if used.len() < REMEMBERED_MAX {
            used.insert(token.to_owned(), now);
        }
        true
    }

    fn now_seconds(&self) -> u64 {
        u64::try_from(self.clock.now().as_second()).unwrap_or(0)
    }
}

fn signing_key(rules: &Rules, user: &str) -> hmac::Key {
    let password = rules.users.get(user).map(|user| user.password.as_ref()).unwrap_or_default();
    let rules_key = hmac::Key::new(hmac::HMAC_SHA256, &rules.token_key);
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&rules_key, password).as_ref())
}

#[cfg(test)]
mod tests {
    use base::ManualClock;
    use jiff::Timestamp;
    use store::Policy;

    use super::*;
    use crate::proto::authpb::{AccessState, User};

    fn rules(token_key: &'static str, password: &'static str) -> Rules {
        rules_of(token_key, password, &["ann", "bob"])
    }

    fn rules_of(token_key: &'static str, password: &'static str, users: &[&'static str]) -> Rules {
        let state = AccessState { enabled: true, revision: 7, token_key: token_key.into() };
        let user = |name: &&'static str| User { name: (*name).into(), password: password.into(), ..User::default() };
        let users: Vec<_> = users.iter().map(user).collect();
        let records = Rules::records(&state, &users, &[]);
        Rules::of(&Policy { revision: 1, records: Arc::new(records) })
    }

    fn tokens() -> (Arc<ManualClock>, SimpleTokens) {
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH + Duration::from_secs(1_000_000)));
        (clock.clone(), SimpleTokens::new(clock, Duration::from_secs(300)))
    }

    #[test]
    fn a_token_is_of_its_user_and_of_these_rules() {
        let (_, tokens) = tokens();
        let before = rules("key", "hash");
        let token = tokens.assign(&before, "ann");
        assert_eq!(tokens.verify(&before, &token).as_deref(), Some("ann"));
        assert_ne!(token, tokens.assign(&before, "ann"));
        for (after, case) in [
            (rules("other", "hash"), "enabled anew"),
            (rules("", "hash"), "disabled"),
            (rules("key", "changed"), "another password"),
            (rules_of("key", "hash", &["bob"]), "deleted"),
        ] {
            assert_eq!(tokens.verify(&after, &token), None, "{case}");
        }
        let bobs = tokens.assign(&before, "bob");
        let (content, _) = bobs.split_once('.').unwrap();
        let (_, signature) = token.split_once('.').unwrap();
        for forged in
            [format!("{content}.{signature}"), content.to_owned(), String::new(), ".".to_owned(), "a.b.c".to_owned()]
        {
            assert_eq!(tokens.verify(&before, &forged), None, "{forged}");
        }
    }

    #[test]
    fn a_token_lasts_for_its_time_after_its_last_use() {
        let (clock, tokens) = tokens();
        let rules = rules("key", "hash");
        let (used, unused) = (tokens.assign(&rules, "ann"), tokens.assign(&rules, "ann"));
        for _ in 0..3 {
            clock.advance(Duration::from_secs(200));
            let is_valid = tokens.verify(&rules, &used).is_some();
            assert!(is_valid);
        }
        assert_eq!(tokens.verify(&rules, &unused), None);
        clock.advance(Duration::from_secs(300));
        assert_eq!(tokens.verify(&rules, &used), None);
        assert_eq!(tokens.verify(&rules, &used), None);
    }
}
