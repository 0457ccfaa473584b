//! The media plane's heart: rooms, the packets in them and the secure paths to their peers.
//!
//! It is told the time and what arrived, and answers with what to send and when to wake it; it never asks a clock,
//! a socket, a thread or a random source. The shell around it is `asamblea-sfu-io`.
//!
//! # A packet's journey
//!
//! 1. [`shard::Shard::handle_datagram`] takes a datagram from a path and asks [`demux`] what it is.
//! 2. [`transport`] authenticates and decrypts it in place ([`transport::srtp`]), once ICE ([`transport::ice`]) and
//!    DTLS ([`transport::dtls`]) have made the path and the keys.
//! 3. [`room`] looks up the publisher's layer ([`up`]), which keeps the packet once, and notes it for every
//!    subscriber whose slot carries the layer ([`down`]).
//! 4. When the batch is in, [`shard::Shard::poll_output`] flushes each subscriber once: [`down`] writes headers and
//!    rewrites descriptors ([`rtp`]), [`egress`] is where [`shard`] seals them and cuts runs of equal size.
//!
//! How much of it goes to whom is decided beside that path, at ticks: [`bwe`] measures each subscriber's line and shares
//! it out.
//!
//! A meeting that outgrows a shard goes on in others: [`relay`] carries its packets there, where they join the journey at its
//! third step.
//!
//! [`turn`] is the relay for those who reach us in no other way: what comes through it joins the journey at its first
//! step.
//!
//! [`negotiate`] stands beside: it turns a browser's offer into an answer and into what the packet path needs to
//! know, away from the packet path.
#![forbid(unsafe_code)]

pub mod bwe;
pub mod demux;
pub mod down;
pub mod egress;
pub mod negotiate;
pub mod relay;
pub mod room;
pub mod rtp;
pub mod shard;
pub mod stats;
pub mod transport;
pub mod turn;
pub mod up;
