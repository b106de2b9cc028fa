//! Below how much free memory and disk the node takes no more Pods and evicts some: the kubelet's `--eviction-hard`.
//!
//! Input: the flag's text, and what was observed of the machine. Output: what is short. Pure. Source of the syntax and
//! the signals: "Node-pressure Eviction" of the Kubernetes documentation.
//! Invariant: a flag replaces the defaults as a whole; a signal that it does not name is not looked at.

use std::str::FromStr;

use api::quantity::Quantity;

use crate::machine::Space;

/// A share of 100 % in the unit of [`Floor::Share`].
const WHOLE: u64 = 1_000_000;
const GIB: u64 = 1 << 30;

/// What can run short, by the names of the flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    MemoryAvailable,
    NodefsAvailable,
    NodefsInodesFree,
    ImagefsAvailable,
    ImagefsInodesFree,
}

impl Signal {
    const ALL: [(Signal, &'static str); 5] = [
        (Signal::MemoryAvailable, "memory.available"),
        (Signal::NodefsAvailable, "nodefs.available"),
        (Signal::NodefsInodesFree, "nodefs.inodesFree"),
        (Signal::ImagefsAvailable, "imagefs.available"),
        (Signal::ImagefsInodesFree, "imagefs.inodesFree"),
    ];

    /// The resource that an evicted Pod's message names.
    fn resource(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory",
            Signal::NodefsAvailable | Signal::ImagefsAvailable => "ephemeral-storage",
            Signal::NodefsInodesFree | Signal::ImagefsInodesFree => "inodes",
        }
    }
}

/// How much should be free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    /// Bytes or inodes.
    Fixed(u64),
    /// A share of what there is, in millionths, but no more than `most`.
    Share { millionths: u64, most: u64 },
}

impl Floor {
    /// A share that is no more than `most` bytes on a large disk.
    pub const fn percent(percent: u64, most: u64) -> Self {
        Self::Share { millionths: WHOLE / 100 * percent, most }
    }

    /// Of `whole` bytes or inodes.
    pub fn of(self, whole: u64) -> u64 {
        match self {
            Self::Fixed(amount) => amount,
            Self::Share { millionths, most } => {
                let share = u128::from(whole) * u128::from(millionths) / u128::from(WHOLE);
                u64::try_from(share).unwrap_or(u64::MAX).min(most)
            }
        }
    }
}

/// What the machine has, as far as it could be read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Observed {
    pub memory_free: Option<u64>,
    pub memory_bytes: u64,
    /// The filesystem of the kubelet's directory.
    pub nodefs: Option<Space>,
    /// The filesystem of the runtime's images.
    pub imagefs: Option<Space>,
}

impl Observed {
    /// (free, in all), in bytes or inodes.
    fn amounts(&self, signal: Signal) -> Option<(u64, u64)> {
        let bytes = |space: Space| (space.free_bytes, space.usable_bytes);
        let inodes = |space: Space| (space.free_inodes, space.inodes);
        match signal {
            Signal::MemoryAvailable => Some((self.memory_free?, self.memory_bytes)),
            Signal::NodefsAvailable => self.nodefs.map(bytes),
            Signal::NodefsInodesFree => self.nodefs.map(inodes),
            Signal::ImagefsAvailable => self.imagefs.map(bytes),
            Signal::ImagefsInodesFree => self.imagefs.map(inodes),
        }
    }
}

/// What the node has too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    pub resource: &'static str,
    /// Bytes, or inodes.
    pub threshold: u64,
    pub available: u64,
}

impl Shortage {
    pub fn is_memory(&self) -> bool {
        self.resource == "memory"
    }

    /// What the evicted Pod's owner reads; upstream's words.
    pub fn message(&self) -> String {
        let show = |amount: u64| match self.resource {
            "inodes" => amount.to_string(),
            _ => format!("{}Ki", amount >> 10),
        };
        let Self { resource, threshold, available } = *self;
        format!(
            "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
            show(threshold),
            show(available)
        )
    }
}

/// The floor of each signal that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds(Vec<(Signal, Floor)>);

impl Default for Thresholds {
    /// Upstream's for the memory and the node's filesystem, of which a large disk need not keep a tenth free. The images
    /// are on that filesystem and have rules of their own.
    fn default() -> Self {
        Self(vec![
            (Signal::MemoryAvailable, Floor::Fixed(100 << 20)),
            (Signal::NodefsAvailable, Floor::percent(10, 4 * GIB)),
            (Signal::NodefsInodesFree, Floor::percent(5, u64::MAX)),
        ])
    }
}

impl Thresholds {
    /// What is short, memory first.
    pub fn shortages(&self, observed: &Observed) -> impl Iterator<Item = Shortage> {
        Signal::ALL.into_iter().filter_map(|(signal, _)| {
            let (available, whole) = observed.amounts(signal)?;
            let threshold = self.floor(signal)?.of(whole);
            (available < threshold).then_some(Shortage { resource: signal.resource(), threshold, available })
        })
    }

    /// How much of `whole` is kept from Pods for the sake of `signal`.
    pub fn kept(&self, signal: Signal, whole: u64) -> u64 {
        self.floor(signal).map_or(0, |floor| floor.of(whole)).min(whole)
    }

    fn floor(&self, signal: Signal) -> Option<Floor> {
        self.0.iter().find(|(named, _)| *named == signal).map(|(_, floor)| *floor)
    }
}

/// Why a text is no list of thresholds.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    #[error("`{0}`: expected SIGNAL<AMOUNT, such as nodefs.available<10% or memory.available<100Mi")]
    Form(String),
    #[error("unknown signal `{0}`; known are {known}", known = Signal::ALL.map(|(_, name)| name).join(", "))]
    Signal(String),
    #[error("`{0}` is named twice")]
    Twice(String),
    #[error("`{0}`: expected an amount such as 100Mi, or a share from 0% to 100%")]
    Amount(String),
}

impl FromStr for Thresholds {
    type Err = ThresholdError;

    /// `memory.available<100Mi,nodefs.available<5%`. A share of 0 % or 100 % turns its signal off, as upstream; so does
    /// an empty text for all of them.
    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        let mut named = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, amount) = part.split_once('<').ok_or_else(|| ThresholdError::Form(part.to_owned()))?;
            let known = Signal::ALL.into_iter().find(|(_, known)| *known == name);
            let (signal, _) = known.ok_or_else(|| ThresholdError::Signal(name.to_owned()))?;
            if named.iter().any(|(other, _)| *other == signal) {
                return Err(ThresholdError::Twice(name.to_owned()));
            }
            let floor = parse_floor(amount).ok_or_else(|| ThresholdError::Amount(part.to_owned()))?;
            named.push((signal, floor));
        }
        let turned_off = [Floor::percent(0, u64::MAX), Floor::percent(100, u64::MAX)];
        named.retain(|(_, floor)| !turned_off.contains(floor));
        Ok(Self(named))
    }
}

fn parse_floor(text: &str) -> Option<Floor> {
    let Some(percent) = text.strip_suffix('%') else {
        return u64::try_from(Quantity::parse(text).ok()?.value()).ok().map(Floor::Fixed);
    };
    // Four decimals are what a millionth of the whole can show.
    let percent = Quantity::parse(percent).ok()?;
    let millionths = u64::try_from(percent.nano() / 100_000).ok()?;
    (millionths <= WHOLE).then_some(Floor::Share { millionths, most: u64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(free_bytes: u64, usable_bytes: u64, free_inodes: u64) -> Observed {
        let space = Space { free_bytes, usable_bytes, free_inodes, inodes: 100 };
        Observed { nodefs: Some(space), imagefs: Some(space), ..Observed::default() }
    }

    fn short(thresholds: &Thresholds, observed: &Observed) -> Vec<&'static str> {
        thresholds.shortages(observed).map(|shortage| shortage.resource).collect()
    }

    #[test]
    fn a_disk_is_short_by_share_and_a_large_one_by_bytes() {
        let check = |free, usable, inodes, expect: &[&str]| {
            let observed = disk(free, usable, inodes);
            assert_eq!(short(&Thresholds::default(), &observed), expect, "{observed:?}");
        };
        check(GIB, 8 * GIB, 50, &[]);
        check(GIB / 2, 8 * GIB, 50, &["ephemeral-storage"]);
        check(5 * GIB, 1000 * GIB, 50, &[]);
        check(3 * GIB, 1000 * GIB, 50, &["ephemeral-storage"]);
        check(5 * GIB, 8 * GIB, 4, &["inodes"]);
        // A filesystem that counts no inodes.
        let space = Space { free_bytes: GIB, usable_bytes: GIB, free_inodes: 0, inodes: 0 };
        let observed = Observed { nodefs: Some(space), ..Observed::default() };
        assert!(short(&Thresholds::default(), &observed).is_empty());
    }

    #[test]
    fn a_flag_replaces_the_defaults() {
        let flag: Thresholds = "memory.available<5%, nodefs.available<256Mi,imagefs.available<12.5%".parse().unwrap();
        let low = Observed { memory_free: Some(49), memory_bytes: 1000, ..disk(300 << 20, 8 * GIB, 1) };
        let shortages: Vec<_> = flag.shortages(&low).collect();
        assert_eq!(shortages[0], Shortage { resource: "memory", threshold: 50, available: 49 });
        assert_eq!(shortages[1].threshold, GIB, "an eighth of the images' filesystem");
        assert_eq!(shortages.len(), 2, "no floor for inodes, and 256Mi of the node's filesystem are free");
        assert_eq!(flag.kept(Signal::NodefsAvailable, 8 * GIB), 256 << 20);
        assert_eq!(flag.kept(Signal::NodefsInodesFree, 100), 0);
        for off in ["", "nodefs.available<0%,memory.available<100%"] {
            assert!(short(&off.parse().unwrap(), &low).is_empty(), "{off}");
        }
    }

    #[test]
    fn what_is_no_threshold_is_named() {
        let error = |text: &str| text.parse::<Thresholds>().unwrap_err().to_string();
        assert!(error("nodefs.available=5%").starts_with("`nodefs.available=5%`: expected SIGNAL<AMOUNT"));
        assert!(error("disk<5%").starts_with("unknown signal `disk`; known are memory.available, "));
        assert_eq!(error("memory.available<1Mi,memory.available<2Mi"), "`memory.available` is named twice");
        for amount in ["", "5%%", "101%", "-1%", "-5Mi", "x"] {
            let text = format!("memory.available<{amount}");
            assert!(error(&text).starts_with(&format!("`{text}`: expected an amount")), "{text}");
        }
    }

    #[test]
    fn an_evicted_pod_reads_the_figures() {
        let message = |resource, threshold, available| Shortage { resource, threshold, available }.message();
        let memory = "The node was low on resource: memory. Threshold quantity: 102400Ki, available: 51200Ki. ";
        assert_eq!(message("memory", 100 << 20, 50 << 20), memory);
        let inodes = "The node was low on resource: inodes. Threshold quantity: 5, available: 4. ";
        assert_eq!(message("inodes", 5, 4), inodes);
    }
}
