//! Acknowledgement levels and their arithmetic. Tested below.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How many replicas must take part before a client is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// The coordinator alone; the others follow asynchronously.
    #[default]
    One,
    /// A majority.
    Quorum,
    /// Every replica.
    All,
}

impl Level {
    /// Replicas required out of `replicas`, the coordinator included.
    pub fn required(self, replicas: usize) -> usize {
        match self {
            Self::One => 1,
            Self::Quorum => replicas / 2 + 1,
            Self::All => replicas,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "one",
            Self::Quorum => "quorum",
            Self::All => "all",
        })
    }
}

impl FromStr for Level {
    type Err = BadLevel;
    fn from_str(text: &str) -> Result<Self, BadLevel> {
        [Self::One, Self::Quorum, Self::All]
            .into_iter()
            .find(|level| text.eq_ignore_ascii_case(&level.to_string()))
            .ok_or(BadLevel)
    }
}

/// Not one of the three levels.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a consistency level is one, quorum or all")]
pub struct BadLevel;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_acknowledgements() {
        for (replicas, one, quorum, all) in [(1, 1, 1, 1), (2, 1, 2, 2), (3, 1, 2, 3), (4, 1, 3, 4), (5, 1, 3, 5)] {
            assert_eq!(Level::One.required(replicas), one);
            assert_eq!(Level::Quorum.required(replicas), quorum);
            assert_eq!(Level::All.required(replicas), all);
        }
    }

    #[test]
    fn names_round_trip_in_any_case() {
        assert_eq!("QUORUM".parse(), Ok(Level::Quorum));
        assert_eq!("two".parse::<Level>(), Err(BadLevel));
    }
}
