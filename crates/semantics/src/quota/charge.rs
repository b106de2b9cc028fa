//! Admission's question: do the quotas of a namespace allow this write, and what do they show as used after it?
//!
//! Input: the quotas as stored, the object as it will be and as it was, the time. Output: new usages, or the refusal in
//! upstream's words. Invariant: only what grows is charged; a quota counts once its status says what it limits.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec};
use serde::Deserialize as _;
use serde_json::Value;

use super::{Item, Source, claims, pods};
use crate::resources::{Quantities, ResourceList};

/// One write of an object that may count.
#[derive(Debug, Clone)]
pub struct Write {
    pub new: Item,
    /// `None` at creation.
    pub old: Option<Item>,
    /// Empty for the object itself.
    pub subresource: String,
}

impl Write {
    /// Whether quotas look at a write like this at all.
    pub fn is_charged(&self) -> bool {
        match (&self.new, self.old.as_ref(), self.subresource.as_str()) {
            (_, None, subresource) => subresource.is_empty(),
            (Item::Pod(new), Some(Item::Pod(old)), "") => pods::is_terminating(new) != pods::is_terminating(old),
            (Item::Pod(_), Some(_), "resize") | (Item::Service(_) | Item::Claim(_), Some(_), "") => true,
            (Item::Claim(new), Some(Item::Claim(old)), "status") => {
                let allocated = |claim: &k8s_openapi::api::core::v1::PersistentVolumeClaim| {
                    claim.status.as_ref().and_then(|status| status.allocated_resources.clone())
                };
                allocated(new) != allocated(old) || claims::classes(new) != claims::classes(old)
            }
            _ => false,
        }
    }
}

/// A quota's usage after the write.
#[derive(Debug, Clone, PartialEq)]
pub struct Charge {
    /// Which of the quotas.
    pub index: usize,
    pub used: ResourceList,
}

/// From the API's JSON. Errors: one of them does not have a quota's form.
pub fn parse_quotas<'a>(quotas: impl Iterator<Item = &'a Value>) -> Result<Vec<ResourceQuota>, serde_json::Error> {
    quotas.map(ResourceQuota::deserialize).collect()
}

/// What the write costs. Errors: why it is forbidden.
pub fn charge(quotas: &[ResourceQuota], write: &Write, now: Timestamp) -> Result<Vec<Charge>, String> {
    let source = write.new.source();
    let mut matching = Vec::new();
    for (index, quota) in quotas.iter().enumerate() {
        let account = Account::of(quota, &source);
        if account.limited.is_empty() || !write.new.is_in_scope(account.spec) {
            continue;
        }
        account.check(&write.new)?;
        matching.push((index, account));
    }
    if matching.is_empty() {
        return Ok(Vec::new());
    }
    let usage = write.new.usage(now);
    let negative: Vec<&str> = usage.iter().filter(|(_, amount)| amount.sign() < 0).map(|(name, _)| name).collect();
    if !negative.is_empty() {
        return Err(format!("quota usage is negative for resource(s): {}", negative.join(",")));
    }
    let before = write.old.as_ref().map(|old| (old, old.usage(now)));
    let mut charges = Vec::new();
    for (index, account) in matching {
        let counted = before.as_ref().filter(|(old, _)| account.matches(old));
        let growth = counted.map_or_else(|| usage.clone(), |(_, before)| usage.beyond(before));
        charges.extend(account.charge(&growth.without_zeros(), write)?.map(|used| Charge { index, used }));
    }
    Ok(charges)
}

/// One quota, as its status tells it.
struct Account<'a> {
    name: &'a str,
    spec: &'a ResourceQuotaSpec,
    hard: Quantities,
    used: Quantities,
    /// The names in `hard` that the write's kind is measured by.
    limited: Vec<String>,
}

/// What a quota without a spec limits.
const NOTHING: &ResourceQuotaSpec = &ResourceQuotaSpec { hard: None, scope_selector: None, scopes: None };

impl<'a> Account<'a> {
    fn of(quota: &'a ResourceQuota, source: &Source) -> Self {
        let status = quota.status.as_ref();
        let hard = Quantities::from_list(status.and_then(|status| status.hard.as_ref()));
        let limited = hard.names().filter(|name| source.measures(name)).map(str::to_owned).collect();
        Self {
            name: quota.metadata.name.as_deref().unwrap_or_default(),
            spec: quota.spec.as_ref().unwrap_or(NOTHING),
            used: Quantities::from_list(status.and_then(|status| status.used.as_ref())),
            hard,
            limited,
        }
    }

    fn matches(&self, item: &Item) -> bool {
        item.is_in_scope(self.spec)
    }

    /// Whether the object says enough to be counted, and the quota enough to be held to.
    fn check(&self, item: &Item) -> Result<(), String> {
        let is_limited = |name: &str| self.limited.iter().any(|limited| limited == name);
        if let Item::Pod(pod) = item
            && let Some(unspecified) = pods::unspecified(pod, is_limited)
        {
            return Err(format!("failed quota: {}: {unspecified}", self.name));
        }
        if self.limited.iter().any(|name| !self.used.contains(name)) {
            return Err(format!("status unknown for quota: {}, resources: {}", self.name, self.limited.join(",")));
        }
        Ok(())
    }

    /// The usage with `growth`; `None` if nothing of it is limited here.
    fn charge(&self, growth: &Quantities, write: &Write) -> Result<Option<ResourceList>, String> {
        let requested = growth.only(|name| self.hard.contains(name));
        if requested.is_empty() {
            return Ok(None);
        }
        let mut used = self.used.clone();
        used.add(&requested);
        // A status tells what has happened already: it is counted, not refused.
        if write.subresource != "status" {
            let exceeds = |name: &str| requested.contains(name) && used.get(name) > self.hard.get(name);
            let exceeded = |list: &Quantities| list.only(exceeds);
            let over = exceeded(&self.hard);
            if !over.is_empty() {
                return Err(format!(
                    "exceeded quota: {}, requested: {}, used: {}, limited: {over}",
                    self.name,
                    exceeded(&requested),
                    exceeded(&self.used),
                ));
            }
        }
        Ok(Some(used.to_resource_list()))
    }
}
