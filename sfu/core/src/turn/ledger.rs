//! How many allocations there are, and whose: so that nobody takes them all.

use std::collections::BTreeMap;

/// Most allocations at one time: a thousand people behind walls, each with a few. One costs a socket and about a
/// kilobyte.
pub const ALLOCATIONS_MAX: usize = 4_096;

/// Of these, under one user name: a browser has one for each way to the relay and each network that it is in, and
/// again while one peer connection takes the place of another.
pub const ALLOCATIONS_OF_ONE_MAX: usize = 24;

/// Why there is no allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The user has as many as one may have.
    #[error("the user's quota is reached")]
    OfOne,
    /// The relay has.
    #[error("the relay is full")]
    OfAll,
}

impl Full {
    /// The error's code (RFC 8656 section 18).
    pub(super) fn code(self) -> u16 {
        match self {
            Self::OfOne => 486,
            Self::OfAll => 508,
        }
    }
}

/// Counts allocations by user name.
#[derive(Debug, Default)]
pub struct Ledger {
    by_user: BTreeMap<String, usize>,
    total: usize,
}

impl Ledger {
    /// Counts one more.
    ///
    /// # Errors
    /// When there are enough.
    pub fn take(&mut self, username: &str) -> Result<(), Full> {
        if self.total >= ALLOCATIONS_MAX {
            return Err(Full::OfAll);
        }
        let count = self.by_user.entry(username.to_owned()).or_default();
        if *count >= ALLOCATIONS_OF_ONE_MAX {
            return Err(Full::OfOne);
        }
        *count += 1;
        self.total += 1;
        Ok(())
    }

    /// Counts one less.
    pub fn give_back(&mut self, username: &str) {
        let Some(count) = self.by_user.get_mut(username) else { return };
        *count -= 1;
        self.total -= 1;
        if *count == 0 {
            self.by_user.remove(username);
        }
    }

    /// How many there are.
    pub fn total(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_the_others_place() {
        let mut ledger = Ledger::default();
        let taken = (0..100).filter(|_| ledger.take("mallory").is_ok()).count();
        assert_eq!(taken, ALLOCATIONS_OF_ONE_MAX);
        assert_eq!(ledger.take("mallory"), Err(Full::OfOne));
        assert_eq!(ledger.take("ana"), Ok(()));
        ledger.give_back("mallory");
        assert_eq!(ledger.take("mallory"), Ok(()));
    }

    #[test]
    fn the_relay_has_an_end_and_begins_again_when_all_are_given_back() {
        let mut ledger = Ledger::default();
        let name = |n: usize| format!("user {}", n / ALLOCATIONS_OF_ONE_MAX);
        let taken = (0..2 * ALLOCATIONS_MAX).filter(|n| ledger.take(&name(*n)).is_ok()).count();
        assert_eq!((taken, ledger.take("late")), (ALLOCATIONS_MAX, Err(Full::OfAll)));
        (0..ALLOCATIONS_MAX).for_each(|n| ledger.give_back(&name(n)));
        assert_eq!((ledger.total(), ledger.by_user.len()), (0, 0));
        ledger.give_back("nobody");
        assert_eq!(ledger.take("late"), Ok(()));
    }
}
