//! How a source is split into a part to train on and a part to test on.

use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

/// Where the test part of a [`Split`](super::Split) comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SplitRule {
    /// The set has a fixed test part of its own: the documented last part of a bundled set, or the files of a set that
    /// is known by name.
    Fixed,
    /// A file of its own beside the training file.
    Files(String),
    /// Folders that are named after the parts: `train`, `test` and perhaps `val`.
    Folders,
    /// The last ⌊n/10⌋ items (at least one) are the test part: the items are taken to be in no particular order.
    LastTenth,
    /// Items 9, 19, 29, … (at least the last one) are the test part: safe for files that are sorted by class.
    EveryTenth,
    /// This share of the items, in ten-thousandths, chosen by a hash of each item's name or, without names, its values:
    /// an item stays in its
    /// part when others come and go, and equal rows share a part.
    Share(u16),
    /// Every item is trained on, and there is nothing to test on.
    Nothing,
    /// The files that match this pattern are the test part.
    Matching(String),
    /// Both parts are generated, from separate streams of one seed.
    Generated,
}

impl SplitRule {
    /// Whether item `index` of `n` is a test item under a rule that goes by number; the other rules say no.
    pub(super) fn is_test(&self, index: usize, n: usize) -> bool {
        match self {
            Self::LastTenth => index >= n - (n / 10).max(1).min(n),
            Self::EveryTenth if n < 10 => index + 1 == n,
            Self::EveryTenth => index % 10 == 9,
            _ => false,
        }
    }

    /// Whether an item is a test item by the hash of `key`.
    pub(super) fn is_test_key(share: u16, key: &[u8]) -> bool {
        let mut hash = Fnv::default();
        hash.write(key);
        // FNV mixes its low bits last: those are what the remainder takes.
        hash.finish() % 10_000 < u64::from(share)
    }
}

/// FNV-1a, the same on every machine.
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        // The last rounds of MurmurHash3 spread what the last bytes changed over all bits.
        let mixed = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ (mixed >> 33)
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    }
}

/// As it reads behind a count: `40 to test on (every tenth item)`.
impl fmt::Display for SplitRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed => f.write_str("the set's own test part"),
            Self::Files(name) => write!(f, "the file {name}"),
            Self::Folders => f.write_str("folders named after the parts"),
            Self::LastTenth => f.write_str("the last tenth"),
            Self::EveryTenth => f.write_str("every tenth item"),
            Self::Share(share) => write!(f, "{} % by hash", f64::from(*share) / 100.0),
            Self::Nothing => f.write_str("nothing is set aside"),
            Self::Matching(pattern) => write!(f, "files that match {pattern}"),
            Self::Generated => f.write_str("generated apart"),
        }
    }
}

/// A rule that the option `split=` of a source can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitOption {
    /// `every-tenth`.
    EveryTenth,
    /// `last-tenth`.
    LastTenth,
    /// `hash:0.2`, in ten-thousandths.
    Share(u16),
    /// `none`.
    Nothing,
    /// `folders`, of pictures alone.
    Folders,
}

impl From<SplitOption> for SplitRule {
    fn from(option: SplitOption) -> Self {
        match option {
            SplitOption::EveryTenth => Self::EveryTenth,
            SplitOption::LastTenth => Self::LastTenth,
            SplitOption::Share(share) => Self::Share(share),
            SplitOption::Nothing => Self::Nothing,
            SplitOption::Folders => Self::Folders,
        }
    }
}

impl SplitOption {
    /// What it is written as.
    pub const EXPECTED: &'static str =
        "every-tenth, last-tenth, hash:SHARE with a share from 0.0001 to 0.9999, none, or of pictures folders";

    /// The option that would give a rule.
    pub fn of(rule: &SplitRule) -> Option<Self> {
        match rule {
            SplitRule::EveryTenth => Some(Self::EveryTenth),
            SplitRule::LastTenth => Some(Self::LastTenth),
            SplitRule::Share(share) => Some(Self::Share(*share)),
            SplitRule::Nothing => Some(Self::Nothing),
            SplitRule::Folders => Some(Self::Folders),
            _ => None,
        }
    }
}

impl fmt::Display for SplitOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EveryTenth => f.write_str("every-tenth"),
            Self::LastTenth => f.write_str("last-tenth"),
            Self::Share(share) => write!(f, "hash:{}", f64::from(*share) / 10_000.0),
            Self::Nothing => f.write_str("none"),
            Self::Folders => f.write_str("folders"),
        }
    }
}

impl FromStr for SplitOption {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "every-tenth" => Ok(Self::EveryTenth),
            "last-tenth" => Ok(Self::LastTenth),
            "none" => Ok(Self::Nothing),
            "folders" => Ok(Self::Folders),
            _ => {
                let share: f64 = text.strip_prefix("hash:").and_then(|share| share.parse().ok()).ok_or(())?;
                num_traits::cast::<f64, u16>((share * 10_000.0).round()).filter(|s| (1..10_000).contains(s)).map(Self::Share).ok_or(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_leaves_a_tenth_and_at_least_one() {
        let count = |rule: &SplitRule, n: usize| (0..n).filter(|&i| rule.is_test(i, n)).count();
        for rule in [SplitRule::LastTenth, SplitRule::EveryTenth] {
            let counts: Vec<_> = [1, 2, 9, 10, 19, 20, 1000].iter().map(|&n| count(&rule, n)).collect();
            assert_eq!(counts, [1, 1, 1, 1, 1, 2, 100], "{rule:?}");
        }
        assert!(SplitRule::LastTenth.is_test(18, 19) && !SplitRule::LastTenth.is_test(17, 19));
        assert!(SplitRule::EveryTenth.is_test(9, 19) && !SplitRule::EveryTenth.is_test(18, 19));
    }

    /// Of keys that differ in their last digits alone the share is what was asked for, within four standard deviations.
    #[test]
    fn a_share_by_hash_is_that_share() {
        for share in [500, 2_000, 9_000] {
            let n = 20_000;
            let taken = (0..n).filter(|i| SplitRule::is_test_key(share, format!("p{i:05}.png").as_bytes())).count() as f64;
            let (expected, p) = (f64::from(n) * f64::from(share) / 10_000.0, f64::from(share) / 10_000.0);
            assert!((taken - expected).abs() < 4.0 * (expected * (1.0 - p)).sqrt(), "{taken} for {expected}");
        }
    }

    #[test]
    fn options_are_written_as_they_are_read() {
        for text in ["every-tenth", "last-tenth", "hash:0.2", "hash:0.0001", "none", "folders"] {
            let option: SplitOption = text.parse().expect(text);
            assert_eq!(option.to_string(), text);
            assert_eq!(SplitOption::of(&option.into()), Some(option));
        }
        for text in ["", "tenth", "hash:0", "hash:1", "hash:x", "hash:-0.1", "hash:NaN"] {
            assert!(text.parse::<SplitOption>().is_err(), "{text}");
        }
    }
}
