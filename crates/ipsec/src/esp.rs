//! The ESP packet (RFC 4303, section 2): encapsulation and decapsulation in place.
//!
//! ```text
//! | prefix 4 | SPI 4 | sequence number 4 | IV 8 | payload |
//! | padding 0 to 3 | pad length 1 | next header 1 | ICV 16 |
//! ```
//!
//! Lengths are in bytes. The *prefix* is the end of an IP or UDP header, before the ESP packet.
//! Other senders may add up to 255 bytes of padding.
//!
//! GMAC needs the authenticated bytes to be contiguous. With extended sequence numbers, they
//! contain the upper half of the sequence number, which is not sent, between the SPI and the lower
//! half. So for GMAC with extended sequence numbers, sealing and opening write the SPI over the
//! prefix, and all 8 bytes of the sequence number after it; afterwards they restore the prefix and
//! the SPI.

use std::ops::Range;

use arrayvec::ArrayVec;

use crate::aead::{Aad, Aead, Job};
use crate::replay::{ReplayError, Window};
use crate::transform::{ICV_LEN, IV_LEN, NONCE_LEN, SALT_LEN, Transform};

/// Length of the ESP header: SPI, sequence number, IV.
pub const HEADER_LEN: usize = 8 + IV_LEN;

/// Length of the prefix, which a packet's buffer must contain before the SPI.
pub const PREFIX_LEN: usize = 4;

/// Maximum packets per call of the AEAD. Longer batches are split.
pub const BATCH: usize = 64;

/// Length of pad length and next header.
const TRAILER_FIELDS_LEN: usize = 2;

/// Returns the length of the trailer: padding, pad length, next header, ICV.
pub const fn trailer_len(payload_len: usize) -> usize {
    padding_len(payload_len) + TRAILER_FIELDS_LEN + ICV_LEN
}

/// Returns the padding that makes payload, padding, pad length and next header a multiple of four.
const fn padding_len(payload_len: usize) -> usize {
    (4 - (payload_len + TRAILER_FIELDS_LEN) % 4) % 4
}

/// The key and parameters that protect the packets of an SA.
pub struct Protection {
    aead: Box<dyn Aead>,
    transform: Transform,
    salt: [u8; SALT_LEN],
    spi: u32,
    extended: bool,
    /// Whether the AEAD needs the SPI in place of the prefix (GMAC with extended sequence numbers).
    overwrites_prefix: bool,
}

/// A packet to seal.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// [`PREFIX_LEN`] bytes, which sealing leaves unchanged; [`HEADER_LEN`] bytes for the header;
    /// the payload; [`trailer_len`] bytes for the trailer.
    pub bytes: &'a mut [u8],
    /// Length of the payload.
    pub payload: usize,
    /// IP protocol number of the payload.
    pub next_header: u8,
    /// The sequence number; the packet contains its lower 32 bits.
    pub number: u64,
    /// The IV, unique for the key.
    pub iv: u64,
}

/// A packet to open.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// [`PREFIX_LEN`] bytes, then the ESP packet up to the end of its ICV.
    pub bytes: &'a mut [u8],
    /// The result, set by [`Protection::open_batch`].
    pub outcome: Result<Opened, OpenError>,
}

/// The content of an opened packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Range of the payload in [`Incoming::bytes`]. It includes any traffic-flow-confidentiality
    /// padding; the inner IP header contains the length without it.
    pub payload: Range<usize>,
    /// IP protocol number of the payload. The caller must discard dummy packets (59).
    pub next_header: u8,
    /// The full sequence number.
    pub number: u64,
}

/// Why a packet was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The packet is too short, or its encrypted part is not a multiple of four bytes.
    #[error("invalid length")]
    BadLength,
    /// The sequence number was received before.
    #[error("sequence number was received before")]
    Replay,
    /// The sequence number is 0, or below the anti-replay window.
    #[error("sequence number is below the anti-replay window")]
    Late,
    /// The ICV does not match the packet.
    #[error("invalid ICV")]
    BadTag,
    /// The padding is longer than the packet, or its bytes are not 1, 2, 3, …
    #[error("invalid padding")]
    BadPadding,
}

impl From<ReplayError> for OpenError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Replay => Self::Replay,
            ReplayError::Late => Self::Late,
        }
    }
}

impl<'a> Incoming<'a> {
    /// Creates a packet to open. Its outcome is an error until [`Protection::open_batch`] sets it.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, outcome: Err(OpenError::BadLength) }
    }
}

type Prefix = [u8; PREFIX_LEN];

impl Protection {
    /// Creates the protection of an SA. Sequence numbers have 64 bits if `extended`, otherwise 32.
    pub fn new(
        aead: Box<dyn Aead>,
        transform: Transform,
        salt: [u8; SALT_LEN],
        spi: u32,
        extended: bool,
    ) -> Self {
        Self {
            aead,
            transform,
            salt,
            spi,
            extended,
            overwrites_prefix: extended && !transform.encrypts(),
        }
    }

    /// Seals packets, with header and trailer, and returns how many. Leaves a packet unchanged if
    /// its `bytes` are not as long as [`Outgoing::bytes`] requires.
    pub fn seal_batch(&self, packets: &mut [Outgoing<'_>]) -> usize {
        let mut sealed = 0;
        for packets in packets.chunks_mut(BATCH) {
            let mut prefixes: ArrayVec<(usize, Prefix), BATCH> = ArrayVec::new();
            let mut jobs: ArrayVec<Job<'_>, BATCH> = ArrayVec::new();
            for (index, packet) in packets.iter_mut().enumerate() {
                if !write_header_and_trailer(packet, self.spi) {
                    continue;
                }
                if self.overwrites_prefix {
                    prefixes.push((index, self.overwrite_prefix(packet.bytes, packet.number)));
                }
                if let Some(job) = self.job(packet.bytes, packet.number, packet.iv.to_be_bytes()) {
                    jobs.push(job);
                }
            }
            self.aead.seal_batch(&mut jobs);
            sealed += jobs.iter().filter(|job| job.is_ok).count();
            drop(jobs);
            for (index, prefix) in prefixes {
                self.restore_prefix(packets[index].bytes, prefix);
            }
        }
        sealed
    }

    /// Opens packets. Checks the sequence number against the window, verifies the ICV, decrypts,
    /// marks the number as received, and checks the padding, in this order; the first failure is
    /// the outcome.
    pub fn open_batch(&self, window: &mut Window, packets: &mut [Incoming<'_>]) {
        for packets in packets.chunks_mut(BATCH) {
            let mut started: ArrayVec<(usize, u64, Prefix), BATCH> = ArrayVec::new();
            let mut jobs: ArrayVec<Job<'_>, BATCH> = ArrayVec::new();
            for (index, packet) in packets.iter_mut().enumerate() {
                let Some((low, iv)) = read_header(packet.bytes) else {
                    packet.outcome = Err(OpenError::BadLength);
                    continue;
                };
                let number = match window.check(low) {
                    Ok(number) => number,
                    Err(error) => {
                        packet.outcome = Err(error.into());
                        continue;
                    }
                };
                let prefix = self.overwrite_prefix(packet.bytes, number);
                // Never fails: `read_header` checked the length. So `jobs` and `started` have the
                // same packets.
                let Some(job) = self.job(packet.bytes, number, iv) else { continue };
                jobs.push(job);
                started.push((index, number, prefix));
            }
            self.aead.open_batch(&mut jobs);
            let results: ArrayVec<bool, BATCH> = jobs.iter().map(|job| job.is_ok).collect();
            drop(jobs);
            for ((index, number, prefix), is_ok) in started.into_iter().zip(results) {
                let packet = &mut packets[index];
                self.restore_prefix(packet.bytes, prefix);
                packet.outcome = if is_ok {
                    // A valid tag proves that the sender has the key: mark the number even if the
                    // padding is invalid.
                    window
                        .mark_received(number)
                        .map_err(OpenError::from)
                        .and_then(|()| unpad(packet.bytes, number))
                } else {
                    Err(OpenError::BadTag)
                };
            }
        }
    }

    /// Creates the AEAD job of a packet. Call `overwrite_prefix` first. Returns `None` if the
    /// packet is too short.
    fn job<'a>(&self, bytes: &'a mut [u8], number: u64, iv: [u8; IV_LEN]) -> Option<Job<'a>> {
        let mut nonce = [0; NONCE_LEN];
        nonce[..SALT_LEN].copy_from_slice(&self.salt);
        nonce[SALT_LEN..].copy_from_slice(&iv);
        // The AEAD's text: the encrypted bytes or, for GMAC, all authenticated bytes, SPI first.
        let text_start = if self.transform.encrypts() {
            PREFIX_LEN + HEADER_LEN
        } else if self.extended {
            0
        } else {
            PREFIX_LEN
        };
        let text_and_tag = bytes.get_mut(text_start..)?;
        Some(Job {
            nonce,
            aad: Aad::new(self.spi, number, self.extended),
            text_and_tag,
            is_ok: false,
        })
    }

    /// If `overwrites_prefix`, writes the SPI over the prefix and the 64-bit sequence number after
    /// it. Returns the original prefix.
    fn overwrite_prefix(&self, bytes: &mut [u8], number: u64) -> Prefix {
        let mut prefix = Prefix::default();
        if self.overwrites_prefix {
            prefix.copy_from_slice(&bytes[..PREFIX_LEN]);
            bytes[..PREFIX_LEN].copy_from_slice(&self.spi.to_be_bytes());
            bytes[PREFIX_LEN..PREFIX_LEN + 8].copy_from_slice(&number.to_be_bytes());
        }
        prefix
    }

    /// Undoes `overwrite_prefix`.
    fn restore_prefix(&self, bytes: &mut [u8], prefix: Prefix) {
        if self.overwrites_prefix {
            bytes[..PREFIX_LEN].copy_from_slice(&prefix);
            bytes[PREFIX_LEN..2 * PREFIX_LEN].copy_from_slice(&self.spi.to_be_bytes());
        }
    }
}

/// Writes header and trailer. Returns `false`, without writing, if `bytes` are not as long as
/// [`Outgoing::bytes`] requires.
fn write_header_and_trailer(packet: &mut Outgoing<'_>, spi: u32) -> bool {
    let (start, payload) = (PREFIX_LEN + HEADER_LEN, packet.payload);
    let Some(end) = start.checked_add(payload) else { return false };
    if packet.bytes.len().checked_sub(end) != Some(trailer_len(payload)) {
        return false;
    }
    let (head, trailer) = packet.bytes.split_at_mut(end);
    head[PREFIX_LEN..PREFIX_LEN + 4].copy_from_slice(&spi.to_be_bytes());
    head[PREFIX_LEN + 4..PREFIX_LEN + 8].copy_from_slice(&(packet.number as u32).to_be_bytes());
    head[PREFIX_LEN + 8..start].copy_from_slice(&packet.iv.to_be_bytes());
    let padding = padding_len(payload);
    // Always write 4 bytes. Pad length, next header and, later, the ICV overwrite the excess.
    trailer[..4].copy_from_slice(&[1, 2, 3, 0]);
    trailer[padding] = padding as u8;
    trailer[padding + 1] = packet.next_header;
    true
}

/// Returns the lower half of the sequence number, and the IV; `None` for an invalid length.
fn read_header(bytes: &[u8]) -> Option<(u32, [u8; IV_LEN])> {
    let text_len = bytes.len().checked_sub(PREFIX_LEN + HEADER_LEN + ICV_LEN)?;
    if text_len < 4 || !text_len.is_multiple_of(4) {
        return None;
    }
    let number = bytes.get(PREFIX_LEN + 4..)?.first_chunk::<4>()?;
    let iv = bytes.get(PREFIX_LEN + 8..)?.first_chunk::<IV_LEN>()?;
    Some((u32::from_be_bytes(*number), *iv))
}

/// Checks the padding of a decrypted packet, and returns the content without it.
fn unpad(bytes: &[u8], number: u64) -> Result<Opened, OpenError> {
    let end = bytes.len() - ICV_LEN;
    let text = &bytes[PREFIX_LEN + HEADER_LEN..end];
    let [payload_and_padding @ .., pad_len, next_header] = text else {
        return Err(OpenError::BadPadding);
    };
    let payload_len = payload_and_padding
        .len()
        .checked_sub(usize::from(*pad_len))
        .ok_or(OpenError::BadPadding)?;
    // RFC 4303, section 2.4: the padding bytes are 1, 2, 3, …, and receivers should check them.
    let is_padding_valid = match payload_and_padding.last_chunk::<4>() {
        // Fast path, because this crate writes at most 3 bytes of padding: compare the last
        // `pad_len` of 4 bytes with the first `pad_len` of 1, 2, 3, 4.
        Some(last) if *pad_len <= 4 => {
            let shift = 8 * (4 - u32::from(*pad_len));
            let expected = u64::from(0x0102_0304_u32) >> shift;
            u64::from(u32::from_be_bytes(*last)) & (u64::from(u32::MAX) >> shift) == expected
        }
        _ => payload_and_padding[payload_len..]
            .iter()
            .zip(1..=u8::MAX)
            .all(|(byte, expected)| *byte == expected),
    };
    if !is_padding_valid {
        return Err(OpenError::BadPadding);
    }
    let start = PREFIX_LEN + HEADER_LEN;
    Ok(Opened { payload: start..start + payload_len, next_header: *next_header, number })
}

#[cfg(test)]
mod tests;
