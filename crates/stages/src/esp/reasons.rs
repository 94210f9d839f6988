//! Drop reasons of the ESP stages.

use xdpfwd_pipeline::{DropReason, ReasonError};

macro_rules! reasons {
    ($($constant:ident $name:literal $description:literal)+) => {
        $(pub(super) static $constant: DropReason = DropReason::new($name, $description);)+

        static ALL: &[&DropReason] = &[$(&$constant),+];
    };
}

reasons! {
    NO_SA "no_sa" "ESP: no security association matches the packet."
    UNPROTECTED "unprotected" "The packet is not ESP, and the stage accepts only ESP."
    REPLAY "replay"
        "ESP: a packet with this sequence number was received before (RFC 4303, section \
         3.4.3)."
    LATE "late" "ESP: the sequence number is below the anti-replay window."
    BAD_TAG "bad_tag" "ESP: the integrity check value is invalid."
    BAD_LENGTH "bad_length" "ESP: the packet is too short, or its length is not a multiple of four."
    BAD_PADDING "bad_padding"
        "ESP: the padding is longer than the packet, or its bytes are not 1, 2, 3, … (RFC 4303, \
         section 2.4)."
    WRONG_QUEUE "wrong_queue"
        "ESP: the packet arrived on a queue of a worker that does not own its security \
         association."
    SA_LIMIT "sa_limit"
        "ESP: the security association has reached its hard limit, or used up its sequence \
         numbers."
    STATE_FILE "state_file"
        "ESP: no sequence number or IV was available: the state file does not reserve more of them \
         yet, or all of its IV ranges are in use. Or received numbers could not be written to the \
         state file for a second."
    TOO_BIG "too_big"
        "ESP: after encapsulation, the packet would exceed the MTU, and its sender could not be \
         notified by ICMP."
    ESP_FRAGMENT "esp_fragment"
        "ESP: the packet is a fragment, which can only be encapsulated in tunnel mode, and never \
         decapsulated."
    DUMMY "dummy"
        "ESP: a dummy packet (RFC 4303, section 2.6) or a NAT keepalive (RFC 3948, section \
         2.3)."
    ECN "ecn"
        "ESP: the outer header is marked \"congestion experienced\", but the inner header is not \
         ECN-capable (RFC 6040, section 4.2)."
}

pub(crate) fn register() -> Result<(), ReasonError> {
    ALL.iter().try_for_each(|reason| reason.register().map(drop))
}
