//! The media plane's heart.
#![forbid(unsafe_code)]

pub mod demux;
pub mod negotiate;
pub mod room;
pub mod rtp;
pub mod transport;
