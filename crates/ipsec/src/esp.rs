//! The ESP packet (RFC 4303, 2): encapsulation and decapsulation in place.
//!
//! ```text
//! … 4 bytes | SPI 4 | sequence number 4 | IV 8 | payload | padding 0–3 … | pad length 1 | next header 1 | ICV 16
//! ```
//!
//! For GMAC with extended sequence numbers, the authenticated bytes must be contiguous: the upper
//! half of the number, which is not sent, goes between SPI and lower half. Sealing and opening
//! therefore borrow the 4 bytes in front of the SPI (the end of an IP or UDP header) and restore
//! them.

use std::ops::Range;

use arrayvec::ArrayVec;

use crate::aead::{Aad, Aead, Job};
use crate::replay::{ReplayError, Window};
use crate::transform::{ICV, IV, NONCE, SALT, Transform};

/// Bytes in front of the payload: SPI, sequence number, IV.
pub const HEADER_LEN: usize = 8 + IV;

/// Bytes required in front of the SPI.
pub const PREFIX_LEN: usize = 4;

/// Packets per call of the AEAD.
pub const BATCH: usize = 64;

/// Pad length and next header.
const TRAILER_FIELDS_LEN: usize = 2;

/// Returns the bytes that follow a payload: padding to a multiple of four, pad length, next header
/// (RFC 4303, 2.4), and the ICV.
pub const fn trailer_len(payload: usize) -> usize {
    padding(payload) + TRAILER_FIELDS_LEN + ICV
}

const fn padding(payload: usize) -> usize {
    (4 - (payload + TRAILER_FIELDS_LEN) % 4) % 4
}

/// The key and parameters that protect the packets of an SA.
pub struct Protection {
    aead: Box<dyn Aead>,
    transform: Transform,
    salt: [u8; SALT],
    spi: u32,
    extended: bool,
    /// Whether the bytes in front of the SPI are borrowed: GMAC with extended numbers.
    borrows: bool,
}

/// A packet to seal.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// [`PREFIX_LEN`] bytes, [`HEADER_LEN`] bytes to write, the payload, and [`behind`] bytes to
    /// write.
    pub bytes: &'a mut [u8],
    /// Length of the payload in bytes.
    pub payload: usize,
    /// IP protocol number of the payload.
    pub next_header: u8,
    /// The sequence number.
    pub number: u64,
    /// The IV, unique under the key.
    pub iv: u64,
}

/// A packet to open.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// [`PREFIX_LEN`] bytes, then the ESP packet up to the end of its ICV.
    pub bytes: &'a mut [u8],
    /// The result.
    pub outcome: Result<Opened, OpenError>,
}

/// The content of an opened packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Range of the payload in the bytes. Traffic-flow-confidentiality padding may follow; the
    /// payload's own header has its length.
    pub payload: Range<usize>,
    /// IP protocol number of the payload; 59 marks a dummy packet, to be discarded.
    pub next_header: u8,
    /// The full sequence number.
    pub number: u64,
}

/// The reason why a packet was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The packet is too short, or not a multiple of four bytes.
    #[error("invalid length")]
    BadLength,
    /// The sequence number was received before.
    #[error("sequence number was received before")]
    Replay,
    /// The sequence number is below the anti-replay window.
    #[error("sequence number is below the anti-replay window")]
    Late,
    /// The ICV is wrong.
    #[error("invalid ICV")]
    BadTag,
    /// The padding exceeds the packet, or is not 1, 2, 3, …
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
    /// Creates a packet without a result.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, outcome: Err(OpenError::BadLength) }
    }
}

/// The borrowed bytes in front of the SPI.
type InFront = [u8; PREFIX_LEN];

impl Protection {
    /// Creates the protection of an SA; with `extended`, sequence numbers have 64 bits.
    pub fn new(
        aead: Box<dyn Aead>,
        transform: Transform,
        salt: [u8; SALT],
        spi: u32,
        extended: bool,
    ) -> Self {
        Self { aead, transform, salt, spi, extended, borrows: extended && !transform.encrypts() }
    }

    /// Writes header and trailer of each packet, and seals it. Leaves packets without enough room
    /// unchanged. Returns the number of sealed packets.
    pub fn seal_batch(&self, packets: &mut [Outgoing<'_>]) -> usize {
        let mut sealed = 0;
        for packets in packets.chunks_mut(BATCH) {
            // Saved bytes in front of the SPI.
            let mut fronts: ArrayVec<(usize, InFront), BATCH> = ArrayVec::new();
            let mut jobs: ArrayVec<Job<'_>, BATCH> = ArrayVec::new();
            for (index, packet) in packets.iter_mut().enumerate() {
                if !write(packet, self.spi) {
                    continue;
                }
                if self.borrows {
                    fronts.push((index, self.borrow_front(packet.bytes, packet.number)));
                }
                if let Some(job) = self.job(packet.bytes, packet.number, packet.iv.to_be_bytes()) {
                    jobs.push(job);
                }
            }
            self.aead.seal_batch(&mut jobs);
            sealed += jobs.iter().filter(|job| job.is_good).count();
            drop(jobs);
            for (index, front) in fronts {
                self.restore_front(packets[index].bytes, front);
            }
        }
        sealed
    }

    /// Opens packets: checks each against the window, and moves the window after verification.
    pub fn open_batch(&self, window: &mut Window, packets: &mut [Incoming<'_>]) {
        for packets in packets.chunks_mut(BATCH) {
            let mut started: ArrayVec<(usize, u64, InFront), BATCH> = ArrayVec::new();
            let mut jobs: ArrayVec<Job<'_>, BATCH> = ArrayVec::new();
            for (index, packet) in packets.iter_mut().enumerate() {
                let Some((low, iv)) = read(packet.bytes) else {
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
                let front = self.borrow_front(packet.bytes, number);
                // Cannot fail: the packet is complete. `jobs` and `started` stay parallel.
                let Some(job) = self.job(packet.bytes, number, iv) else { continue };
                jobs.push(job);
                started.push((index, number, front));
            }
            self.aead.open_batch(&mut jobs);
            let results: ArrayVec<bool, BATCH> = jobs.iter().map(|job| job.is_good).collect();
            drop(jobs);
            for ((index, number, front), is_good) in started.into_iter().zip(results) {
                let packet = &mut packets[index];
                self.restore_front(packet.bytes, front);
                packet.outcome = if is_good {
                    // The tag proves the sender has the key: mark the number even if the content is
                    // invalid.
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

    /// Creates the job of a packet whose front is borrowed.
    fn job<'a>(&self, bytes: &'a mut [u8], number: u64, iv: [u8; IV]) -> Option<Job<'a>> {
        let mut nonce = [0; NONCE];
        nonce[..SALT].copy_from_slice(&self.salt);
        nonce[SALT..].copy_from_slice(&iv);
        let from = if self.transform.encrypts() {
            PREFIX_LEN + HEADER_LEN
        } else if self.extended {
            0
        } else {
            PREFIX_LEN
        };
        let text_and_tag = bytes.get_mut(from..)?;
        Some(Job {
            nonce,
            aad: Aad::new(self.spi, number, self.extended),
            text_and_tag,
            is_good: false,
        })
    }

    /// If the front is borrowed, writes SPI and the upper half of the number in front of the lower
    /// half.
    fn borrow_front(&self, bytes: &mut [u8], number: u64) -> InFront {
        let mut front = InFront::default();
        if self.borrows {
            front.copy_from_slice(&bytes[..PREFIX_LEN]);
            bytes[..PREFIX_LEN].copy_from_slice(&self.spi.to_be_bytes());
            bytes[PREFIX_LEN..PREFIX_LEN + 8].copy_from_slice(&number.to_be_bytes());
        }
        front
    }

    /// Restores the bytes in front of the SPI.
    fn restore_front(&self, bytes: &mut [u8], front: InFront) {
        if self.borrows {
            bytes[..PREFIX_LEN].copy_from_slice(&front);
            bytes[PREFIX_LEN..2 * PREFIX_LEN].copy_from_slice(&self.spi.to_be_bytes());
        }
    }
}

/// Writes header and trailer. Returns false if the room does not match exactly.
fn write(packet: &mut Outgoing<'_>, spi: u32) -> bool {
    let (start, payload) = (PREFIX_LEN + HEADER_LEN, packet.payload);
    let Some(end) = start.checked_add(payload) else { return false };
    if packet.bytes.len().checked_sub(end) != Some(trailer_len(payload)) {
        return false;
    }
    let (head, trailer) = packet.bytes.split_at_mut(end);
    head[PREFIX_LEN..PREFIX_LEN + 4].copy_from_slice(&spi.to_be_bytes());
    head[PREFIX_LEN + 4..PREFIX_LEN + 8].copy_from_slice(&(packet.number as u32).to_be_bytes());
    head[PREFIX_LEN + 8..start].copy_from_slice(&packet.iv.to_be_bytes());
    let padding = padding(payload);
    // The two fields and the ICV overwrite the bytes after the padding.
    trailer[..4].copy_from_slice(&[1, 2, 3, 0]);
    trailer[padding] = padding as u8;
    trailer[padding + 1] = packet.next_header;
    true
}

/// Returns sequence number and IV of a complete packet.
fn read(bytes: &[u8]) -> Option<(u32, [u8; IV])> {
    let text = bytes.len().checked_sub(PREFIX_LEN + HEADER_LEN + ICV)?;
    if text < 4 || !text.is_multiple_of(4) {
        return None;
    }
    let number = bytes.get(PREFIX_LEN + 4..)?.first_chunk::<4>()?;
    let iv = bytes.get(PREFIX_LEN + 8..)?.first_chunk::<IV>()?;
    Some((u32::from_be_bytes(*number), *iv))
}

/// Removes the trailer of a decrypted packet.
fn unpad(bytes: &[u8], number: u64) -> Result<Opened, OpenError> {
    let end = bytes.len() - ICV;
    let text = &bytes[PREFIX_LEN + HEADER_LEN..end];
    let [rest @ .., pad_len, next_header] = text else { return Err(OpenError::BadPadding) };
    let payload = rest.len().checked_sub(usize::from(*pad_len)).ok_or(OpenError::BadPadding)?;
    // RFC 4303, 2.4: padding is 1, 2, 3, …, and receivers should check it.
    let is_padding_valid = match rest.last_chunk::<4>() {
        // Fast path for minimal padding, which this crate writes.
        Some(last) if *pad_len <= 4 => {
            let missing = 8 * (4 - u32::from(*pad_len));
            let expected = u64::from(0x0102_0304_u32) >> missing;
            u64::from(u32::from_be_bytes(*last)) & (u64::from(u32::MAX) >> missing) == expected
        }
        _ => rest[payload..].iter().zip(1..=u8::MAX).all(|(byte, expected)| *byte == expected),
    };
    if !is_padding_valid {
        return Err(OpenError::BadPadding);
    }
    let start = PREFIX_LEN + HEADER_LEN;
    Ok(Opened { payload: start..start + payload, next_header: *next_header, number })
}

#[cfg(test)]
mod tests;
