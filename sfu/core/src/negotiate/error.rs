//! Why an offer is refused.

/// Why an offer cannot be answered. The texts are for developers, stay the same for the same cause and quote
/// nothing of the offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiateError {
    /// More than [`OFFER_BYTES_MAX`](super::OFFER_BYTES_MAX).
    #[error("the offer is longer than {} bytes", super::OFFER_BYTES_MAX)]
    TooLong,
    /// More than [`LINES_MAX`](super::LINES_MAX).
    #[error("the offer has more than {} m-lines", super::LINES_MAX)]
    TooManyLines,
    /// The text does not follow the grammar of RFC 8866 and the attributes' own.
    #[error("the offer is no session description")]
    Syntax,
    /// A mid is missing, used twice or no token of at most 16 bytes.
    #[error("every m-line needs a mid of its own")]
    Mid,
    /// A simulcast layer's name is not 1 to 16 letters or digits, or is used twice.
    #[error("a rid is not 1 to 16 letters or digits, or is used twice")]
    Rid,
    /// A line is outside of the bundle, or there is none, or several.
    #[error("all lines have to be in one BUNDLE group")]
    NotBundled,
    /// RTCP on a port of its own is not supported.
    #[error("rtcp-mux is missing")]
    NoRtcpMux,
    /// No audio or video line over UDP/TLS/RTP/SAVPF.
    #[error("there is no line that could carry audio or video")]
    NoMedia,
    /// No valid ICE user name fragment and password (RFC 8839 section 5.4).
    #[error("the ICE credentials are missing or malformed")]
    Ice,
    /// Both sides cannot be ICE-lite: nobody would check.
    #[error("the client has to be a full ICE agent")]
    RemoteIceLite,
    /// No valid SHA-256 fingerprint (RFC 8122).
    #[error("a SHA-256 certificate fingerprint is missing or malformed")]
    Fingerprint,
    /// The server takes the passive role only (RFC 4145, RFC 8842).
    #[error("the client has to offer a=setup:actpass or active")]
    Setup,
    /// Bundled lines, or session and line, say different things about what they share.
    #[error("a value that may be given once is given in different ways")]
    Inconsistent,
    /// One bundle, one numbering (RFC 8843 section 9); it stays while the transport stays (RFC 8285 section 6).
    #[error("the numbers of the header extensions differ between lines or offers")]
    Extensions,
    /// An up names no line, a line that does not send, or a line of the other medium; or a line or kind twice.
    #[error("the declared ups do not fit the lines of the offer")]
    Ups,
    /// A line of the description in force is missing, has moved or has become something else.
    #[error("a line that was negotiated is gone or changed")]
    LineChanged,
    /// The offer restarts ICE and the caller brought no new credentials: a bug of the caller, not of the offer.
    #[error("an ICE restart needs new local credentials")]
    NoNewCredentials,
}
