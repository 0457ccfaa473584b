//! How many allocations there are, and whose: so that nobody takes them all.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// Most allocations at one time: a thousand people behind walls, each with a few. One costs a socket and about a
/// kilobyte.
pub const ALLOCATIONS_MAX: usize = 4_096;

/// Of these, under one user name: a browser has one for each way to the relay and each network that it is in, and
/// again while one peer connection takes the place of another.
pub const ALLOCATIONS_OF_ONE_MAX: usize = 24;

/// Of these, from one IPv4 address or IPv6 /64: a hall full of people behind one. Whoever has tokens without end has
/// addresses with one.
pub const ALLOCATIONS_OF_ADDRESS_MAX: usize = 1_024;

/// Why there is no allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The user has as many as one may have.
    #[error("the user's quota is reached")]
    OfOne,
    /// The client's address has.
    #[error("the address's quota is reached")]
    OfAddress,
    /// The relay has.
    #[error("the relay is full")]
    OfAll,
}

impl Full {
    /// The error's code (RFC 8656 section 18).
    pub(super) fn code(self) -> u16 {
        match self {
            Self::OfOne | Self::OfAddress => 486,
            Self::OfAll => 508,
        }
    }
}

/// Counts allocations by user name and by address.
#[derive(Debug, Default)]
pub struct Ledger {
    by_user: BTreeMap<String, usize>,
    by_address: BTreeMap<IpAddr, usize>,
    total: usize,
}

impl Ledger {
    /// Counts one more.
    ///
    /// # Errors
    /// When there are enough.
    pub fn take(&mut self, username: &str, client: IpAddr) -> Result<(), Full> {
        let line = line_of(client);
        if self.total >= ALLOCATIONS_MAX {
            return Err(Full::OfAll);
        }
        if self.by_address.get(&line).is_some_and(|count| *count >= ALLOCATIONS_OF_ADDRESS_MAX) {
            return Err(Full::OfAddress);
        }
        let count = self.by_user.entry(username.to_owned()).or_default();
        if *count >= ALLOCATIONS_OF_ONE_MAX {
            return Err(Full::OfOne);
        }
        *count += 1;
        *self.by_address.entry(line).or_default() += 1;
        self.total += 1;
        Ok(())
    }

    /// Counts one less.
    pub fn give_back(&mut self, username: &str, client: IpAddr) {
        let line = line_of(client);
        let (Some(of_user), Some(of_address)) =
            (self.by_user.get_mut(username), self.by_address.get_mut(&line))
        else {
            return;
        };
        *of_user -= 1;
        *of_address -= 1;
        self.total -= 1;
        let (is_users_last, is_lines_last) = (*of_user == 0, *of_address == 0);
        if is_users_last {
            self.by_user.remove(username);
        }
        if is_lines_last {
            self.by_address.remove(&line);
        }
    }

    /// Whether a user has any.
    pub fn holds(&self, username: &str) -> bool {
        self.by_user.contains_key(username)
    }

    /// How many there are.
    pub fn total(&self) -> usize {
        self.total
    }
}

/// What one line has: an IPv4 address or an IPv6 /64.
fn line_of(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn one_user_cannot_take_the_others_place() {
        let mut ledger = Ledger::default();
        let taken = (0..100).filter(|n| ledger.take("mallory", address(*n)).is_ok()).count();
        assert_eq!(taken, ALLOCATIONS_OF_ONE_MAX);
        assert_eq!(ledger.take("mallory", address(1)), Err(Full::OfOne));
        assert_eq!(ledger.take("ana", address(1)), Ok(()));
        ledger.give_back("mallory", address(0));
        assert_eq!(ledger.take("mallory", address(1)), Ok(()));
    }

    #[test]
    fn tokens_without_end_are_worth_no_more_than_one_line() {
        let mut ledger = Ledger::default();
        let host = |n: usize| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, n as u16));
        let taken = (0..2 * ALLOCATIONS_OF_ADDRESS_MAX)
            .filter(|n| ledger.take(&format!("token {n}"), host(*n)).is_ok())
            .count();
        assert_eq!(taken, ALLOCATIONS_OF_ADDRESS_MAX);
        assert_eq!(ledger.take("ana", host(7)), Err(Full::OfAddress));
        assert_eq!(ledger.take("ana", "2001:db8:0:2::7".parse().unwrap()), Ok(()));
    }

    #[test]
    fn the_relay_has_an_end_and_begins_again_when_all_are_given_back() {
        let mut ledger = Ledger::default();
        let name = |n: usize| format!("user {}", n / ALLOCATIONS_OF_ONE_MAX);
        let from = |n: usize| address(n as u32 / 100);
        let taken = (0..2 * ALLOCATIONS_MAX).filter(|n| ledger.take(&name(*n), from(*n)).is_ok()).count();
        assert_eq!((taken, ledger.take("late", address(99))), (ALLOCATIONS_MAX, Err(Full::OfAll)));
        (0..ALLOCATIONS_MAX).for_each(|n| ledger.give_back(&name(n), from(n)));
        assert_eq!((ledger.total(), ledger.by_user.len(), ledger.by_address.len()), (0, 0, 0));
        ledger.give_back("nobody", address(1));
        assert_eq!(ledger.take("late", address(99)), Ok(()));
    }
}
