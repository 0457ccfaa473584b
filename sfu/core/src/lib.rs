//! The media plane's heart.
#![forbid(unsafe_code)]

pub mod down;
pub mod egress;
pub mod negotiate;
pub mod room;
pub mod rtp;
pub mod stats;
pub mod transport;
pub mod up;
