//! A bad line between one client and the bridge: in front of the real server, in user space, seeded.
//!
//! [`profile`] says what a line is like, [`link`] is the pure heart that decides the fate of every packet, [`control`]
//! reads orders from text, and [`proxy`] carries real datagrams through two links. The heart is shared with the
//! simulation in virtual time ([`crate::world`]). The proxy sends to the loopback interface only, whatever it is told.

pub mod control;
pub mod link;
pub mod profile;
pub mod proxy;
