//! Where a peer is told to find the port.
//!
//! Reads the interfaces anew for every peer: a laptop changes networks. Says nothing about itself to anyone who is
//! not joining, and never names the loopback interface to someone who did not come over it.

use crate::port::LocalPort;
use std::net::{IpAddr, SocketAddr};

/// The addresses to offer, the preferred first.
pub(crate) fn of(port: &LocalPort, public: &[IpAddr], loopback: bool) -> Vec<SocketAddr> {
    let interfaces = match if_addrs::get_if_addrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            tracing::error!(%error, "the interfaces cannot be read; only configured addresses are offered");
            Vec::new()
        }
    };
    let own = interfaces.into_iter().filter(if_addrs::Interface::is_oper_up).map(|interface| interface.ip());
    choose(port, public, own.collect(), loopback)
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
