//! Measures a backend: its AEAD alone, and ESP with this AEAD.

use std::hint::black_box;
use std::time::Instant;

use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use anyhow::{Result, anyhow, ensure};
use arrayvec::ArrayVec;
use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use chacha20poly1305::ChaCha20Poly1305;
use xdpfwd_ipsec::{
    Aad, Aead, AwsLc, BATCH, HEADER_LEN, ICV_LEN, Incoming, Job, NONCE_LEN, Outgoing, PREFIX_LEN,
    Protection, RustCrypto, SALT_LEN, Transform, Window, trailer_len,
};

use super::options::{Backend, Cipher, Timing};

/// Distance between frame starts in bytes. A power of two would map all packets to few cache sets.
/// DPDK also avoids this.
const STRIDE: usize = 2048 + 192;

/// Offset of the bytes that ESP processes: after 256 bytes of headroom and the Ethernet and IPv4
/// headers, but including the last `PREFIX_LEN` bytes of these headers, which ESP overwrites for a
/// short time.
const OFFSET: usize = 256 + 14 + 20 - PREFIX_LEN;

/// Enough bytes for padding, trailer and ICV of every payload.
const TRAILER_ROOM: usize = 32;

/// Maximum payload of a frame, in bytes.
pub(super) const MAX_PAYLOAD: usize = STRIDE - OFFSET - PREFIX_LEN - HEADER_LEN - TRAILER_ROOM;

// Values of the parameter `new_numbers` of `seal_alone`.
const NEW_NUMBERS: bool = true;
const SAME_NUMBERS: bool = false;

/// Use extended sequence numbers.
const ESN: bool = true;
const SPI: u32 = 0x1234_5678;
const SALT_BYTES: [u8; SALT_LEN] = [1, 2, 3, 4];

/// Returns the number of bytes that the AEAD encrypts: payload and trailer without the ICV.
pub(super) fn text_len(payload: usize) -> usize {
    payload + trailer_len(payload) - ICV_LEN
}

/// Packets with payloads of one length.
pub(super) struct Frames {
    memory: Vec<u8>,
    payload: usize,
    last_sequence: u64,
}

impl Frames {
    pub(super) fn new(count: usize, payload: usize) -> Self {
        Self { memory: vec![0x5a; count * STRIDE], payload, last_sequence: 0 }
    }

    fn count(&self) -> usize {
        self.memory.len() / STRIDE
    }

    fn len(&self) -> usize {
        PREFIX_LEN + HEADER_LEN + self.payload + trailer_len(self.payload)
    }

    /// Yields the part of each frame that ESP processes.
    fn packets(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let len = self.len();
        self.memory.chunks_exact_mut(STRIDE).map(move |frame| &mut frame[OFFSET..OFFSET + len])
    }

    fn batches(&mut self) -> impl Iterator<Item = ArrayVec<&mut [u8], BATCH>> {
        let len = self.len();
        self.memory.chunks_exact_mut(STRIDE * BATCH).map(move |frames| {
            frames.chunks_exact_mut(STRIDE).map(|frame| &mut frame[OFFSET..OFFSET + len]).collect()
        })
    }
}

/// The AEAD alone, through the fastest function of its library.
#[expect(clippy::large_enum_variant, reason = "few values, which every pass reads")]
enum Alone {
    AwsLc(LessSafeKey),
    Aes128(Aes128Gcm),
    Aes256(Aes256Gcm),
    ChaCha20(ChaCha20Poly1305),
    /// libipsec-mb, called through xdpfwd-ipsec, because it has no crate of its own. The jobs are
    /// prepared before the measurement.
    Jobs(Box<dyn Aead>),
}

/// One backend with a key.
pub(super) struct BackendBench {
    pub(super) backend: Backend,
    protection: Protection,
    alone: Alone,
}

impl BackendBench {
    pub(super) fn new(backend: Backend, cipher: Cipher) -> Result<Self> {
        let transform = cipher.transform();
        let key = vec![7; transform.key_len()];
        let (aead, alone): (Box<dyn Aead>, _) = match backend {
            Backend::AwsLc => {
                let algorithm = match cipher {
                    Cipher::Aes128Gcm => &AES_128_GCM,
                    Cipher::Aes256Gcm => &AES_256_GCM,
                    Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
                };
                let unbound = UnboundKey::new(algorithm, &key)?;
                (Box::new(AwsLc::new(transform, &key)?), Alone::AwsLc(LessSafeKey::new(unbound)))
            }
            Backend::Rustcrypto => {
                let length_error =
                    anyhow!("invalid key length of {} bytes for this crate", key.len());
                let alone = match cipher {
                    Cipher::Aes128Gcm => {
                        Alone::Aes128(Aes128Gcm::new_from_slice(&key).map_err(|_| length_error)?)
                    }
                    Cipher::Aes256Gcm => {
                        Alone::Aes256(Aes256Gcm::new_from_slice(&key).map_err(|_| length_error)?)
                    }
                    Cipher::ChaCha20Poly1305 => Alone::ChaCha20(
                        ChaCha20Poly1305::new_from_slice(&key).map_err(|_| length_error)?,
                    ),
                };
                (Box::new(RustCrypto::new(transform, &key)?), alone)
            }
            Backend::IpsecMb => {
                (ipsec_mb(transform, &key)?, Alone::Jobs(ipsec_mb(transform, &key)?))
            }
        };
        let protection = Protection::new(aead, transform, SALT_BYTES, SPI, ESN);
        let bench = Self { backend, protection, alone };
        bench.check()?;
        Ok(bench)
    }

    /// Checks that the AEAD alone opens packets that ESP sealed, and vice versa.
    fn check(&self) -> Result<()> {
        let mut frames = Frames::new(2 * BATCH, 100);
        let mut window = window();
        self.seal(&mut frames);
        ensure!(
            self.open_alone(&mut frames).1 == frames.count(),
            "the AEAD alone cannot decrypt packets that ESP encrypted"
        );
        self.seal_alone(&mut frames, SAME_NUMBERS);
        ensure!(
            self.open(&mut frames, &mut window).1 == frames.count(),
            "ESP cannot decrypt packets that the AEAD alone encrypted"
        );
        Ok(())
    }

    /// Runs the passes. Returns the median times per packet, for sealing and opening.
    pub(super) fn round(&self, frames: &mut Frames, passes: usize) -> [Timing; 2] {
        let mut window = window();
        let mut samples: [Vec<f64>; 4] = Default::default();
        frames.last_sequence = 0;
        // The first pass warms up.
        for pass in 0..=passes {
            let sealed_alone = self.seal_alone(frames, NEW_NUMBERS);
            let sealed = self.seal(frames);
            let (opened, opened_count) = self.open(frames, &mut window);
            assert_eq!(opened_count, frames.count(), "not all sealed packets were opened");
            self.seal(frames);
            let (opened_alone, opened_count) = self.open_alone(frames);
            assert_eq!(opened_count, frames.count(), "not all sealed packets were opened");
            if pass > 0 {
                for (samples, sample) in
                    samples.iter_mut().zip([sealed_alone, sealed, opened_alone, opened])
                {
                    samples.push(sample);
                }
            }
        }
        let [sealed_alone, sealed, opened_alone, opened] = samples.map(|mut samples| {
            samples.sort_by(f64::total_cmp);
            samples[samples.len() / 2] / frames.count() as f64
        });
        [Timing { alone: sealed_alone, esp: sealed }, Timing { alone: opened_alone, esp: opened }]
    }

    fn seal(&self, frames: &mut Frames) -> f64 {
        let (payload, mut number) = (frames.payload, frames.last_sequence);
        let start = Instant::now();
        for batch in frames.batches() {
            let mut packets: ArrayVec<Outgoing<'_>, BATCH> = ArrayVec::new();
            for bytes in batch {
                number += 1;
                packets.push(Outgoing { bytes, payload, next_header: 4, number, iv: number });
            }
            black_box(self.protection.seal_batch(black_box(&mut packets)));
        }
        let elapsed = nanoseconds(start);
        frames.last_sequence = number;
        elapsed
    }

    /// Returns the time in nanoseconds, and the number of packets opened.
    fn open(&self, frames: &mut Frames, window: &mut Window) -> (f64, usize) {
        let mut opened = 0;
        let start = Instant::now();
        for batch in frames.batches() {
            let mut packets: ArrayVec<Incoming<'_>, BATCH> =
                batch.into_iter().map(Incoming::new).collect();
            self.protection.open_batch(window, black_box(&mut packets));
            opened += packets.iter().filter(|packet| packet.outcome.is_ok()).count();
        }
        (nanoseconds(start), opened)
    }

    /// Returns the time in nanoseconds. Uses the last sequence numbers again, or new ones if
    /// `new_numbers`.
    fn seal_alone(&self, frames: &mut Frames, new_numbers: bool) -> f64 {
        let count = frames.count() as u64;
        if new_numbers {
            frames.last_sequence += count;
        }
        let mut number = frames.last_sequence - count;
        match &self.alone {
            Alone::AwsLc(key) => {
                let start = Instant::now();
                for bytes in frames.packets() {
                    number += 1;
                    let (text, tag) = parts(bytes);
                    let aad = aws_lc_rs::aead::Aad::from(aad(number));
                    if let Ok(nonce) = Nonce::try_assume_unique_for_key(&nonce(number)) {
                        let _ = black_box(key.seal_in_place_scatter(nonce, aad, text, &[], tag));
                    }
                }
                nanoseconds(start)
            }
            Alone::Aes128(cipher) => seal_each(cipher, frames, number),
            Alone::Aes256(cipher) => seal_each(cipher, frames, number),
            Alone::ChaCha20(cipher) => seal_each(cipher, frames, number),
            Alone::Jobs(aead) => {
                let mut jobs = jobs(frames, number);
                let start = Instant::now();
                jobs.chunks_mut(BATCH).for_each(|batch| aead.seal_batch(black_box(batch)));
                nanoseconds(start)
            }
        }
    }

    fn open_alone(&self, frames: &mut Frames) -> (f64, usize) {
        let mut number = frames.last_sequence - frames.count() as u64;
        let mut opened = 0;
        match &self.alone {
            Alone::AwsLc(key) => {
                let start = Instant::now();
                for bytes in frames.packets() {
                    number += 1;
                    let (text, tag) = parts(bytes);
                    let aad = aws_lc_rs::aead::Aad::from(aad(number));
                    if let Ok(nonce) = Nonce::try_assume_unique_for_key(&nonce(number)) {
                        opened += usize::from(
                            key.open_in_place_separate_tag(nonce, aad, tag, text).is_ok(),
                        );
                    }
                }
                (nanoseconds(start), opened)
            }
            Alone::Aes128(cipher) => open_each(cipher, frames, number),
            Alone::Aes256(cipher) => open_each(cipher, frames, number),
            Alone::ChaCha20(cipher) => open_each(cipher, frames, number),
            Alone::Jobs(aead) => {
                let mut jobs = jobs(frames, number);
                let start = Instant::now();
                jobs.chunks_mut(BATCH).for_each(|batch| aead.open_batch(black_box(batch)));
                let elapsed = nanoseconds(start);
                (elapsed, jobs.iter().filter(|job| job.is_ok).count())
            }
        }
    }
}

#[cfg(feature = "ipsec-mb")]
fn ipsec_mb(transform: Transform, key: &[u8]) -> Result<Box<dyn Aead>> {
    Ok(Box::new(xdpfwd_ipsec::IpsecMb::new(transform, key)?))
}

#[cfg(not(feature = "ipsec-mb"))]
fn ipsec_mb(_transform: Transform, _key: &[u8]) -> Result<Box<dyn Aead>> {
    anyhow::bail!(
        "built without ipsec-mb; run: cargo build --release -p xdpfwd-bench --features ipsec-mb"
    )
}

fn window() -> Window {
    Window::new(1024, ESN).unwrap_or_else(|error| unreachable!("{error}"))
}

fn nanoseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e9
}

fn nonce(number: u64) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[..SALT_LEN].copy_from_slice(&SALT_BYTES);
    nonce[SALT_LEN..].copy_from_slice(&number.to_be_bytes());
    nonce
}

fn aad(number: u64) -> [u8; 12] {
    let mut aad = [0; 12];
    aad[..4].copy_from_slice(&SPI.to_be_bytes());
    aad[4..].copy_from_slice(&number.to_be_bytes());
    aad
}

fn parts(bytes: &mut [u8]) -> (&mut [u8], &mut [u8]) {
    let end = bytes.len() - ICV_LEN;
    bytes[PREFIX_LEN + HEADER_LEN..].split_at_mut(end - PREFIX_LEN - HEADER_LEN)
}

/// Returns jobs with sequence numbers after `number`.
fn jobs(frames: &mut Frames, number: u64) -> Vec<Job<'_>> {
    let numbers = number + 1..;
    numbers
        .zip(frames.packets())
        .map(|(number, bytes)| Job {
            nonce: nonce(number),
            aad: Aad::new(SPI, number, ESN),
            text_and_tag: &mut bytes[PREFIX_LEN + HEADER_LEN..],
            is_ok: false,
        })
        .collect()
}

fn seal_each<C>(cipher: &C, frames: &mut Frames, mut number: u64) -> f64
where
    C: AeadInPlace<NonceSize = U12, TagSize = U16>,
{
    let start = Instant::now();
    for bytes in frames.packets() {
        number += 1;
        let (text, tag) = parts(bytes);
        let nonce = nonce(number);
        let nonce = aes_gcm::Nonce::from_slice(&nonce);
        if let Ok(computed) = cipher.encrypt_in_place_detached(nonce, &aad(number), text) {
            tag.copy_from_slice(&computed);
        }
    }
    nanoseconds(start)
}

fn open_each<C>(cipher: &C, frames: &mut Frames, mut number: u64) -> (f64, usize)
where
    C: AeadInPlace<NonceSize = U12, TagSize = U16>,
{
    let mut opened = 0;
    let start = Instant::now();
    for bytes in frames.packets() {
        number += 1;
        let (text, tag) = parts(bytes);
        let tag = aes_gcm::Tag::from_slice(tag);
        let nonce = nonce(number);
        let nonce = aes_gcm::Nonce::from_slice(&nonce);
        opened +=
            usize::from(cipher.decrypt_in_place_detached(nonce, &aad(number), text, tag).is_ok());
    }
    (nanoseconds(start), opened)
}
