//! Arithmetic of usages: quantities by resource name.

use std::fmt;

use api::quantity::{Format, Quantity};

use super::zero;
use crate::resources::{Quantities, ResourceList};

impl Quantities {
    /// Whole numbers.
    pub fn whole(amounts: impl IntoIterator<Item = (String, i64)>) -> Self {
        let number = |units| Quantity::from_units(units, Format::DecimalSi);
        Self(amounts.into_iter().map(|(name, units)| (name, number(units))).collect())
    }

    pub fn get(&self, name: &str) -> Option<&Quantity> {
        self.0.get(name)
    }

    pub fn insert(&mut self, name: &str, amount: Quantity) {
        self.0.insert(name.to_owned(), amount);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Quantity)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), amount))
    }

    /// Only the entries whose name `keep` wants.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self(
            self.0.iter().filter(|(name, _)| keep(name)).map(|(name, amount)| (name.clone(), amount.clone())).collect(),
        )
    }

    /// What this has more than `other`; never below zero.
    #[must_use]
    pub(super) fn beyond(&self, other: &Self) -> Self {
        let beyond = |name: &str, amount: &Quantity| match other.get(name) {
            Some(less) if amount > less => amount.sub(less),
            Some(_) => zero(),
            None => amount.clone(),
        };
        Self(self.0.iter().map(|(name, amount)| (name.clone(), beyond(name, amount))).collect())
    }

    #[must_use]
    pub(super) fn without_zeros(&self) -> Self {
        Self(self.0.iter().filter(|(_, amount)| !amount.is_zero()).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    /// The list as the API writes it.
    pub fn to_resource_list(&self) -> ResourceList {
        let text = |amount: &Quantity| k8s_openapi::apimachinery::pkg::api::resource::Quantity(amount.to_string());
        self.0.iter().map(|(name, amount)| (name.clone(), text(amount))).collect()
    }
}

/// `cpu=1,memory=2Gi`, by name.
impl fmt::Display for Quantities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, amount)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{name}={amount}")?;
        }
        Ok(())
    }
}
