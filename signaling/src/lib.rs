//! The control plane and the binary.

pub mod protocol;
