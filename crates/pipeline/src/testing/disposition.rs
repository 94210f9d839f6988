//! What happened to a packet on the test bench.

use std::fmt;

use crate::reason::Reason;

/// What happened to a packet of a test.
///
/// The bench follows the frame, not the bytes. If a stage sends a copy and drops the original, the
/// disposition is that of the original, and
/// [`TestBench::take_sent`](crate::testing::TestBench::take_sent) returns the copy.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disposition {
    /// A port sent the frame.
    Sent {
        /// The name of the port.
        port: String,
        /// The bytes on the wire.
        frame: Vec<u8>,
    },
    /// The packet was dropped.
    Dropped {
        /// The reason of the drop.
        reason: Reason,
    },
    /// A stage holds the frame. [`TestBench::take_sent`](crate::testing::TestBench::take_sent)
    /// returns it if it is emitted later.
    Held,
    /// A stage returned the frame to the pool with [`Cx::free`](crate::Cx::free), which counts no
    /// drop. Correct only if the stage has merged the packet into another one.
    Freed,
    /// The frame still waits for transmission, or the interface discarded it, because the test has
    /// made a port's [fake kernel](crate::testing::TestBench::kernel) fail.
    Unsent,
}

impl Disposition {
    /// Creates [`Disposition::Sent`].
    pub fn sent(port: impl Into<String>, frame: impl Into<Vec<u8>>) -> Self {
        Self::Sent { port: port.into(), frame: frame.into() }
    }

    /// Creates [`Disposition::Dropped`], with one of [`Reason`]'s constants or a
    /// [`DropReason`](crate::DropReason).
    pub fn dropped(reason: impl Into<Reason>) -> Self {
        Self::Dropped { reason: reason.into() }
    }

    /// Returns the name of the drop reason, if dropped.
    pub fn drop_reason(&self) -> Option<&'static str> {
        match self {
            Self::Dropped { reason } => Some(reason.name()),
            _ => None,
        }
    }

    /// Returns the bytes, if sent.
    pub fn sent_frame(&self) -> Option<&[u8]> {
        match self {
            Self::Sent { frame, .. } => Some(frame),
            _ => None,
        }
    }

    /// Returns the bytes sent on this port.
    ///
    /// # Panics
    ///
    /// If the packet was not sent, or another port sent it.
    #[track_caller]
    pub fn expect_sent(self, on: &str) -> Vec<u8> {
        match self {
            Self::Sent { port, frame } if port == on => frame,
            other => panic!("expected a packet sent on port {on:?}, found {other:?}"),
        }
    }
}

/// Prints frames in hexadecimal.
impl fmt::Debug for Disposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent { port, frame } => {
                write!(f, "Sent {{ port: {port:?}, frame: {} bytes", frame.len())?;
                for (index, byte) in frame.iter().enumerate() {
                    write!(f, "{}{byte:02x}", if index % 16 == 0 { "  " } else { " " })?;
                }
                f.write_str(" }")
            }
            Self::Dropped { reason } => write!(f, "Dropped {{ reason: {reason} }}"),
            Self::Held => f.write_str("Held"),
            Self::Freed => f.write_str("Freed"),
            Self::Unsent => f.write_str("Unsent"),
        }
    }
}
