//! The ESP packet (RFC 4303, 2), sealed and opened where it lies.
//!
//! ```text
//! … 4 bytes | SPI 4 | sequence number 4 | IV 8 | payload | padding 0–3 … | pad length 1 | next header 1 | ICV 16
//! ```
//!
//! What is in front of the SPI (the end of an IP or UDP header) is borrowed for a moment where the
//! upper half of an extended sequence number is authenticated and not sent, and nothing else is
//! (GMAC): it lies between SPI and the lower half then.

use std::ops::Range;

use arrayvec::ArrayVec;

use crate::aead::{Aad, Aead, Job};
use crate::replay::{Refused, Window};
use crate::transform::{ICV, IV, NONCE, SALT, Transform};

/// Bytes in front of the payload: SPI, sequence number, IV.
pub const HEADER: usize = 8 + IV;

/// Bytes in front of the SPI that have to be there.
pub const IN_FRONT: usize = 4;

/// Packets that are sealed or opened at once.
pub const BATCH: usize = 64;

/// Pad length and next header.
const TRAILER: usize = 2;

/// Bytes behind a payload: padding to a multiple of four, its length, the next header (RFC 4303,
/// 2.4), and the ICV.
pub const fn behind(payload: usize) -> usize {
    padding(payload) + TRAILER + ICV
}

const fn padding(payload: usize) -> usize {
    (4 - (payload + TRAILER) % 4) % 4
}

/// A key with what belongs to it: what seals and opens the packets of an SA.
pub struct Protection {
    aead: Box<dyn Aead>,
    transform: Transform,
    salt: [u8; SALT],
    spi: u32,
    extended: bool,
    /// Whether what is authenticated is not all in a row in the packet.
    borrows: bool,
}

/// A packet that is to be sealed.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// [`IN_FRONT`] bytes, [`HEADER`] bytes to be written, the payload, and [`behind`] bytes to be
    /// written.
    pub bytes: &'a mut [u8],
    /// Bytes of the payload.
    pub payload: usize,
    /// What the payload is: an IP protocol number.
    pub next_header: u8,
    /// Its sequence number.
    pub number: u64,
    /// Its IV, which no other packet has under the key.
    pub iv: u64,
}

/// A packet that is to be opened.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// [`IN_FRONT`] bytes, and the ESP packet, to the end of its ICV.
    pub bytes: &'a mut [u8],
    /// What came of it.
    pub outcome: Result<Opened, Unopened>,
}

/// What was in a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Where the payload is in the bytes. It may have traffic-flow-confidentiality padding behind
    /// it: what it is says how long it is.
    pub payload: Range<usize>,
    /// What it is: an IP protocol number; 59 is a dummy packet, to be thrown away.
    pub next_header: u8,
    /// The whole sequence number.
    pub number: u64,
}

/// Why a packet was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// It is too short, or no multiple of four bytes.
    #[error("bad length")]
    BadLength,
    /// It was received before.
    #[error("replay")]
    Replay,
    /// It is behind the anti-replay window.
    #[error("late")]
    Late,
    /// Its ICV is wrong.
    #[error("bad tag")]
    BadTag,
    /// Its padding is longer than it, or not 1, 2, 3, …
    #[error("bad padding")]
    BadPadding,
}

impl From<Refused> for Unopened {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Replay => Self::Replay,
            Refused::Late => Self::Late,
        }
    }
}

impl<'a> Incoming<'a> {
    /// One that nothing is known of yet.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, outcome: Err(Unopened::BadLength) }
    }
}

/// What is in front of the SPI, and what is put there while a tag is computed.
type InFront = [u8; IN_FRONT];

impl Protection {
    /// With `extended`, sequence numbers have 64 bits.
    pub fn new(
        aead: Box<dyn Aead>,
        transform: Transform,
        salt: [u8; SALT],
        spi: u32,
        extended: bool,
    ) -> Self {
        Self { aead, transform, salt, spi, extended, borrows: extended && !transform.encrypts() }
    }

    /// Writes header and trailer of each, and seals it. Those that have no room for it are left as
    /// they are. Returns how many were sealed: all, as long as each has its room.
    pub fn seal_batch(&self, packets: &mut [Outgoing<'_>]) -> usize {
        let mut sealed = 0;
        for packets in packets.chunks_mut(BATCH) {
            // Of those whose front is borrowed.
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
                self.give_back(packets[index].bytes, front);
            }
        }
        sealed
    }

    /// Opens each: the window says whether it may be taken before, and is moved on after.
    pub fn open_batch(&self, window: &mut Window, packets: &mut [Incoming<'_>]) {
        for packets in packets.chunks_mut(BATCH) {
            let mut begun: ArrayVec<(usize, u64, InFront), BATCH> = ArrayVec::new();
            let mut jobs: ArrayVec<Job<'_>, BATCH> = ArrayVec::new();
            for (index, packet) in packets.iter_mut().enumerate() {
                let Some((carried, iv)) = read(packet.bytes) else {
                    packet.outcome = Err(Unopened::BadLength);
                    continue;
                };
                let number = match window.check(carried) {
                    Ok(number) => number,
                    Err(refused) => {
                        packet.outcome = Err(refused.into());
                        continue;
                    }
                };
                let front = self.borrow_front(packet.bytes, number);
                // It has all its parts. Each that has begun has its job: the two go side by side.
                let Some(job) = self.job(packet.bytes, number, iv) else { continue };
                jobs.push(job);
                begun.push((index, number, front));
            }
            self.aead.open_batch(&mut jobs);
            let good: ArrayVec<bool, BATCH> = jobs.iter().map(|job| job.is_good).collect();
            drop(jobs);
            for ((index, number, front), is_good) in begun.into_iter().zip(good) {
                let packet = &mut packets[index];
                self.give_back(packet.bytes, front);
                packet.outcome = if is_good {
                    // Whatever is in it, it was from who has the key: its number is used.
                    window
                        .take(number)
                        .map_err(Unopened::from)
                        .and_then(|()| unpad(packet.bytes, number))
                } else {
                    Err(Unopened::BadTag)
                };
            }
        }
    }

    /// What is to be done to a packet whose front is borrowed.
    fn job<'a>(&self, bytes: &'a mut [u8], number: u64, iv: [u8; IV]) -> Option<Job<'a>> {
        let mut nonce = [0; NONCE];
        nonce[..SALT].copy_from_slice(&self.salt);
        nonce[SALT..].copy_from_slice(&iv);
        let from = if self.transform.encrypts() {
            IN_FRONT + HEADER
        } else if self.extended {
            0
        } else {
            IN_FRONT
        };
        let text_and_tag = bytes.get_mut(from..)?;
        Some(Job {
            nonce,
            aad: Aad::new(self.spi, number, self.extended),
            text_and_tag,
            is_good: false,
        })
    }

    /// Puts SPI and the upper half of the number in front of the lower half, where that is what is
    /// authenticated.
    fn borrow_front(&self, bytes: &mut [u8], number: u64) -> InFront {
        let mut front = InFront::default();
        if self.borrows {
            front.copy_from_slice(&bytes[..IN_FRONT]);
            bytes[..IN_FRONT].copy_from_slice(&self.spi.to_be_bytes());
            bytes[IN_FRONT..IN_FRONT + 8].copy_from_slice(&number.to_be_bytes());
        }
        front
    }

    /// Puts back what was there.
    fn give_back(&self, bytes: &mut [u8], front: InFront) {
        if self.borrows {
            bytes[..IN_FRONT].copy_from_slice(&front);
            bytes[IN_FRONT..2 * IN_FRONT].copy_from_slice(&self.spi.to_be_bytes());
        }
    }
}

/// Writes what is around the payload. False: there is not the room for it, or more.
fn write(packet: &mut Outgoing<'_>, spi: u32) -> bool {
    let (start, payload) = (IN_FRONT + HEADER, packet.payload);
    let Some(end) = start.checked_add(payload) else { return false };
    if packet.bytes.len().checked_sub(end) != Some(behind(payload)) {
        return false;
    }
    let (head, trailer) = packet.bytes.split_at_mut(end);
    head[IN_FRONT..IN_FRONT + 4].copy_from_slice(&spi.to_be_bytes());
    head[IN_FRONT + 4..IN_FRONT + 8].copy_from_slice(&(packet.number as u32).to_be_bytes());
    head[IN_FRONT + 8..start].copy_from_slice(&packet.iv.to_be_bytes());
    let padding = padding(payload);
    // What of it is no padding is written over: by the two fields, and by the ICV.
    trailer[..4].copy_from_slice(&[1, 2, 3, 0]);
    trailer[padding] = padding as u8;
    trailer[padding + 1] = packet.next_header;
    true
}

/// Sequence number and IV of a packet that has all its parts.
fn read(bytes: &[u8]) -> Option<(u32, [u8; IV])> {
    let text = bytes.len().checked_sub(IN_FRONT + HEADER + ICV)?;
    if text < 4 || !text.is_multiple_of(4) {
        return None;
    }
    let number = bytes.get(IN_FRONT + 4..)?.first_chunk::<4>()?;
    let iv = bytes.get(IN_FRONT + 8..)?.first_chunk::<IV>()?;
    Some((u32::from_be_bytes(*number), *iv))
}

/// Takes the trailer off what was decrypted.
fn unpad(bytes: &[u8], number: u64) -> Result<Opened, Unopened> {
    let end = bytes.len() - ICV;
    let text = &bytes[IN_FRONT + HEADER..end];
    let [rest @ .., pad_len, next_header] = text else { return Err(Unopened::BadPadding) };
    let payload = rest.len().checked_sub(usize::from(*pad_len)).ok_or(Unopened::BadPadding)?;
    // RFC 4303, 2.4: what pads is 1, 2, 3, …, and a receiver should look.
    let as_it_should_be = match rest.last_chunk::<4>() {
        // All that a sender needs, and all that ours ever writes.
        Some(last) if *pad_len <= 4 => {
            let missing = 8 * (4 - u32::from(*pad_len));
            let expected = u64::from(0x0102_0304_u32) >> missing;
            u64::from(u32::from_be_bytes(*last)) & (u64::from(u32::MAX) >> missing) == expected
        }
        _ => rest[payload..].iter().zip(1..=u8::MAX).all(|(byte, expected)| *byte == expected),
    };
    if !as_it_should_be {
        return Err(Unopened::BadPadding);
    }
    let start = IN_FRONT + HEADER;
    Ok(Opened { payload: start..start + payload, next_header: *next_header, number })
}

#[cfg(test)]
mod tests;
