//! The one thing signaling reads of an offer: the names of its m-lines, so that a reference to a line that does
//! not exist is refused here. Never interprets anything else; the media plane negotiates.

use asamblea_seam::Mid;
use std::collections::BTreeSet;

/// Most m-lines of one offer: three to send on and 64 slots of each kind, with room to spare.
pub const OFFER_LINES_MAX: usize = 160;

/// The mids of an offer (RFC 5888: `a=mid:<token>`).
pub(super) fn mids(sdp: &str) -> Result<BTreeSet<Mid>, &'static str> {
    let mut mids = BTreeSet::new();
    for line in sdp.lines() {
        let Some(tag) = line.strip_prefix("a=mid:") else { continue };
        let mid = Mid::new(tag.trim_end()).map_err(|_| "a mid of the offer is no token or too long")?;
        if !mids.insert(mid) {
            return Err("a mid of the offer stands on two lines");
        }
        if mids.len() > OFFER_LINES_MAX {
            return Err("the offer has more m-lines than the server takes");
        }
    }
    Ok(mids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_lines_are_read_whatever_ends_them() {
        let mids = mids("v=0\r\nm=audio 9\r\na=mid:0\r\nm=video 9\na=mid:cam\n").expect("fine");
        assert_eq!(mids.iter().map(Mid::as_str).collect::<Vec<_>>(), ["0", "cam"]);
    }

    #[test]
    fn five_hundred_lines_are_refused() {
        let sdp: String = (0..500).map(|n| format!("a=mid:{n}\r\n")).collect();
        assert!(mids(&sdp).is_err());
    }

    #[test]
    fn a_mid_on_two_lines_is_refused() {
        assert!(mids("a=mid:1\r\na=mid:1\r\n").is_err());
    }
}
