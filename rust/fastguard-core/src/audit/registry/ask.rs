//! What processes ask of whoever writes to the registry.

use std::time::Duration;

use super::PATIENCE;

/// How long the end of a log waits: a guard is closed in two seconds, and the next start enters what was not.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// What a process asks to have entered of its log.
#[derive(Clone, Copy, Hash)]
pub(super) enum Ask {
    /// Its first line is on disk.
    Birth,
    /// It is sealed and signed.
    End,
}

impl Ask {
    /// The name of the file that asks for it.
    pub(super) fn of(self, log: &str) -> String {
        match self {
            Self::Birth => format!("{log}.birth"),
            Self::End => format!("{log}.end"),
        }
    }

    pub(super) fn read(name: &str) -> Option<(&str, Self)> {
        let birth = name.strip_suffix(".birth").map(|log| (log, Self::Birth));
        birth.or_else(|| name.strip_suffix(".end").map(|log| (log, Self::End)))
    }

    pub(super) const fn patience(self) -> Duration {
        match self {
            Self::Birth => PATIENCE,
            Self::End => LAST_PATIENCE,
        }
    }
}
