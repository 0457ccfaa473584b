//! Where a peer is told to find the port.
//!
//! Reads the interfaces anew for whoever comes a second later: a laptop changes networks. Says nothing about itself to anyone who is
//! not joining, and never names the loopback interface to someone who did not come over it.

use crate::port::LocalPort;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For how long the interfaces' addresses are taken for known: many who come at once need not read them each.
const KNOWN: Duration = Duration::from_secs(1);

/// The addresses to offer.
#[derive(Debug)]
pub(crate) struct Candidates {
    port: LocalPort,
    public: Vec<IpAddr>,
    /// Those of the interfaces that are up, and when they were read.
    own: Mutex<Option<(Instant, Vec<IpAddr>)>>,
}

impl Candidates {
    /// Of a port, with these before those of the interfaces.
    pub(crate) fn new(port: LocalPort, public: Vec<IpAddr>) -> Self {
        Self { port, public, own: Mutex::default() }
    }

    /// The addresses to offer now, the preferred first.
    pub(crate) fn at(&self, now: Instant, loopback: bool) -> Vec<SocketAddr> {
        choose(&self.port, &self.public, self.own(now, read), loopback)
    }

    fn own(&self, now: Instant, read: impl FnOnce() -> Vec<IpAddr>) -> Vec<IpAddr> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        match &*own {
            Some((at, addresses)) if now.saturating_duration_since(*at) < KNOWN => addresses.clone(),
            _ => own.insert((now, read())).1.clone(),
        }
    }
}

fn read() -> Vec<IpAddr> {
    let interfaces = match if_addrs::get_if_addrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            tracing::error!(%error, "the interfaces cannot be read; only configured addresses are offered");
            Vec::new()
        }
    };
    let own = interfaces.into_iter().filter(if_addrs::Interface::is_oper_up).map(|interface| interface.ip());
    own.collect()
}

fn choose(port: &LocalPort, public: &[IpAddr], mut own: Vec<IpAddr>, loopback: bool) -> Vec<SocketAddr> {
    own.retain(|ip| is_bound(port, *ip) && (loopback || !ip.is_loopback()));
    // On one machine the loopback interface is the surest way; IPv4 is elsewhere.
    own.sort_by_key(|ip| (!ip.is_loopback(), ip.is_ipv6()));
    let mut addresses: Vec<IpAddr> = Vec::new();
    for &ip in public.iter().chain(&own) {
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    addresses.into_iter().map(|ip| SocketAddr::new(ip, port.port)).collect()
}

fn is_bound(port: &LocalPort, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => port.ipv4.is_some_and(|bound| bound.is_unspecified() || bound == ip),
        IpAddr::V6(ip) => {
            let is_link_local = ip.segments()[0] & 0xffc0 == 0xfe80; // means nothing without an interface
            !is_link_local && port.ipv6.is_some_and(|bound| bound.is_unspecified() || bound == ip)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const ANY: LocalPort =
        LocalPort { port: 7, ipv4: Some(Ipv4Addr::UNSPECIFIED), ipv6: Some(Ipv6Addr::UNSPECIFIED) };

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn chosen(port: &LocalPort, public: &[&str], loopback: bool) -> Vec<String> {
        let own = ips(&["::1", "127.0.0.1", "fe80::1", "2001:db8::1", "192.0.2.1"]);
        choose(port, &ips(public), own, loopback).iter().map(|address| address.ip().to_string()).collect()
    }

    #[test]
    fn the_interfaces_are_read_once_for_all_who_come_within_a_second() {
        let (candidates, begun) = (Candidates::new(ANY, Vec::new()), Instant::now());
        let at = |ms, address: &str| {
            candidates.own(begun + Duration::from_millis(ms), || ips(&[address]))[0].to_string()
        };
        assert_eq!(
            [at(0, "192.0.2.1"), at(999, "192.0.2.2"), at(1_000, "192.0.2.3")],
            ["192.0.2.1", "192.0.2.1", "192.0.2.3"]
        );
    }

    #[test]
    fn loopback_is_offered_to_those_who_came_over_it() {
        assert_eq!(chosen(&ANY, &[], false), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(chosen(&ANY, &[], true), ["127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"]);
    }

    #[test]
    fn configured_addresses_come_first_and_once() {
        assert_eq!(
            chosen(&ANY, &["203.0.113.9", "192.0.2.1"], false),
            ["203.0.113.9", "192.0.2.1", "2001:db8::1"]
        );
    }

    #[test]
    fn only_what_is_bound_is_offered() {
        let one = LocalPort { port: 7, ipv4: Some(Ipv4Addr::new(192, 0, 2, 1)), ipv6: None };
        assert_eq!(chosen(&one, &[], true), ["192.0.2.1"]);
    }
}
