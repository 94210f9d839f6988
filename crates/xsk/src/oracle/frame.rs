//! The model of a frame: a byte vector with the same edits.

use crate::frame::Frame;

/// An edit of a frame.
#[derive(Clone, Copy, Debug)]
pub enum Edit {
    /// Adds bytes at the front.
    Prepend(usize),
    /// Removes bytes at the front.
    TrimFront(usize),
    /// Adds bytes at the end.
    Append(usize),
    /// Shortens the packet to at most this many bytes.
    Truncate(usize),
}

impl Edit {
    /// Decodes an edit from random numbers.
    pub fn decode(kind: u8, n: usize) -> Self {
        match kind % 4 {
            0 => Self::Prepend(n),
            1 => Self::TrimFront(n),
            2 => Self::Append(n),
            _ => Self::Truncate(n),
        }
    }
}

/// The expected bytes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow(Vec<u8>);

impl Shadow {
    /// Copies the current bytes of a frame.
    pub fn copy_of(frame: &Frame) -> Self {
        Self(frame.to_vec())
    }

    /// Returns the bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Edits the frame and the expected bytes. Added bytes have the value `fill`.
    ///
    /// # Panics
    /// If the frame differs from the expected bytes afterwards.
    pub fn edit(&mut self, frame: &mut Frame, edit: Edit, fill: u8) {
        let (headroom, tailroom) = (frame.headroom(), frame.tailroom());
        let size = headroom + frame.len() + tailroom;
        match edit {
            Edit::Prepend(n) => match frame.prepend(n) {
                Ok(new) => {
                    assert_eq!(new.len(), n);
                    new.fill(fill);
                    self.0.splice(0..0, vec![fill; n]);
                }
                Err(error) => assert!(n > headroom && error.available == headroom, "{error}"),
            },
            Edit::TrimFront(n) => {
                frame.trim_front(n);
                self.0.drain(..n.min(self.0.len()));
            }
            Edit::Append(n) => match frame.append(n) {
                Ok(new) => {
                    assert_eq!(new.len(), n);
                    new.fill(fill);
                    self.0.resize(self.0.len() + n, fill);
                }
                Err(error) => assert!(n > tailroom && error.available == tailroom, "{error}"),
            },
            Edit::Truncate(n) => {
                frame.truncate(n);
                self.0.truncate(n);
            }
        }
        assert_eq!(
            frame.headroom() + frame.len() + frame.tailroom(),
            size,
            "headroom, packet and tailroom do not add up to the chunk size"
        );
        self.check(frame);
    }

    /// Overwrites the first bytes of the frame and of the expected bytes with `bytes`.
    ///
    /// # Panics
    /// If the frame is shorter than `bytes`.
    pub fn stamp(&mut self, frame: &mut Frame, bytes: &[u8]) {
        frame[..bytes.len()].copy_from_slice(bytes);
        self.0[..bytes.len()].copy_from_slice(bytes);
    }

    /// Asserts that the frame contains the expected bytes.
    ///
    /// # Panics
    /// If they differ.
    pub fn check(&self, frame: &Frame) {
        assert!(self.0 == frame[..], "{frame:?} does not contain the expected bytes");
    }
}
