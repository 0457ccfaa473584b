//! The media plane's heart.
#![forbid(unsafe_code)]

pub mod negotiate;
pub mod room;
pub mod rtp;
pub mod transport;
