//! What a client says to signaling: protocol messages and the offers in them.

use asamblea::protocol::{ClientMessage, ServerMessage};
use asamblea_seam::{Mid, UpKind, UpLine};
use asamblea_sfu_core::negotiate::{
    Fingerprint, IceCredentials, LINES_MAX, LocalDescriptionParams, Negotiator, Offer, RemoteChange,
};

/// Longest answer: what a section holds of the offer's is bounded, word by word.
const ANSWER_BYTES_MAX: usize = 1024 + 2048 * LINES_MAX;

/// An offer, answered with the three ups of the client, with none, and once more.
pub fn sdp(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(offer) = Offer::parse(text) else { return };
    let ups: Vec<UpLine> = ["0", "1", "2"]
        .into_iter()
        .zip(UpKind::ALL)
        .map(|(mid, kind)| UpLine { mid: Mid::new(mid).expect("one digit is a mid"), kind })
        .collect();
    for ups in [&ups[..], &ups[..1], &[]] {
        let mut negotiator = Negotiator::new(LocalDescriptionParams {
            ice: IceCredentials { ufrag: "server".into(), pwd: "aPasswordOfTheServer00".into() },
            fingerprint: Fingerprint([0xab; 32]),
            candidates: vec![([192, 0, 2, 1], 8443).into()],
            seed: 1,
            transport_cc: true,
        });
        assert_eq!(negotiator.change(&offer), RemoteChange::First);
        let Ok(first) = negotiator.answer(&offer, ups) else { continue };
        assert!(first.sdp.len() <= ANSWER_BYTES_MAX, "{} bytes", first.sdp.len());
        assert!(
            first.sdp.split("\r\n").all(|line| !line.contains(['\r', '\n', '\0'])),
            "no line is smuggled in"
        );
        let lines = |sdp: &str| sdp.split('\n').filter(|line| line.starts_with("m=")).count();
        assert_eq!(lines(&first.sdp), lines(text), "every line is answered");
        let mut ssrcs: Vec<u32> =
            first.description.slots.iter().flat_map(|s| [Some(s.ssrc), s.rtx_ssrc]).flatten().collect();
        let count = ssrcs.len();
        ssrcs.sort_unstable();
        ssrcs.dedup();
        assert_eq!(ssrcs.len(), count, "SSRCs are unique");

        let again = negotiator.handle_offer(text, ups).expect("what was accepted is accepted again");
        assert_eq!((again.change, &again.description), (RemoteChange::Same, &first.description));
    }
}

/// A frame of a WebSocket.
pub fn protocol(data: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<ClientMessage>(data) {
        let text = serde_json::to_string(&message).expect("it serialises");
        let again: ClientMessage = serde_json::from_str(&text).expect("what is written can be read");
        assert_eq!(serde_json::to_string(&again).expect("it serialises"), text);
        if let ClientMessage::Offer { sdp, ups, .. } = message {
            let _ = Offer::parse(&sdp);
            assert!(ups.iter().all(|up| (1..=16).contains(&up.mid.as_str().len())), "a mid is bounded");
        }
    }
    // Clients read these; that the server can as well is what its tests rely on.
    if let Ok(message) = serde_json::from_slice::<ServerMessage>(data) {
        let text = serde_json::to_string(&message).expect("it serialises");
        assert_eq!(
            serde_json::from_str::<ServerMessage>(&text).expect("what is written can be read"),
            message
        );
    }
}
