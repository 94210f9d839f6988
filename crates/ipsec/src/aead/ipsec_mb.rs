//! The backend on Intel's libipsec-mb. It has the lowest overhead per packet, so it is the fastest
//! for short packets.
//!
//! AES-GCM uses the direct API, with one call per packet. A call writes only the packet and a
//! context on the stack, so workers can share a key. A manager (`IMB_MGR`) selects the functions
//! for this CPU model, and is freed before the first packet.
//!
//! ChaCha20-Poly1305 uses the library's job API, which keeps the current job in a manager, so each
//! batch needs a manager for itself. The first ChaCha20-Poly1305 key creates one manager per
//! logical CPU.

mod ffi;

use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread;

use zeroize::{Zeroize, Zeroizing};

use self::ffi::{Functions, GcmContext, GcmFunction, GcmFunctions, GcmKey};
use super::job::{Aead, Job, KeyLengthError, split_tag};
use crate::transform::{ICV_LEN, Transform};

/// An expanded key for libipsec-mb.
pub struct IpsecMb {
    key: Key,
    encrypts: bool,
}

enum Key {
    AesGcm { key: Box<GcmKey>, functions: GcmFunctions },
    ChaCha20 { key: Box<Zeroizing<[u8; 32]>>, managers: &'static Managers },
}

/// Why libipsec-mb cannot use a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpsecMbError {
    /// The key has the wrong length.
    #[error(transparent)]
    KeyLengthError(#[from] KeyLengthError),
    /// The library does not work on this machine.
    #[error("cannot use libipsec-mb: {0}; use backend = \"aws-lc\"")]
    Unusable(String),
}

impl IpsecMb {
    /// Expands a key of [`Transform::key_len`] bytes. Fails for another length, or if the library
    /// does not work on this machine.
    pub fn new(transform: Transform, key: &[u8]) -> Result<Self, IpsecMbError> {
        KeyLengthError::check(transform, key)?;
        let key = match transform {
            Transform::Aes128Gcm | Transform::NullAes128Gmac => {
                Key::aes_gcm(key, functions()?.aes_128)
            }
            Transform::Aes256Gcm | Transform::NullAes256Gmac => {
                Key::aes_gcm(key, functions()?.aes_256)
            }
            Transform::ChaCha20Poly1305 => {
                let mut copy = Box::new(Zeroizing::new([0; 32]));
                copy.copy_from_slice(key);
                Key::ChaCha20 { key: copy, managers: managers()? }
            }
        };
        Ok(Self { key, encrypts: transform.encrypts() })
    }
}

impl Key {
    /// `functions` must be those for the length of `key`.
    fn aes_gcm(key: &[u8], functions: GcmFunctions) -> Self {
        let mut expanded = Box::new(GcmKey([0; _]));
        // SAFETY: reads the key, whose length `KeyLengthError::check` verified. Writes a
        // `gcm_key_data`, which is not larger than `GcmKey`: shim.c asserts this.
        unsafe { (functions.expand)(key.as_ptr(), &raw mut *expanded) };
        Self::AesGcm { key: expanded, functions }
    }
}

impl Drop for GcmKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Aead for IpsecMb {
    fn seal_batch(&self, jobs: &mut [Job<'_>]) {
        match &self.key {
            Key::AesGcm { key, functions } => {
                self.gcm(functions.seal, key, jobs, |tag, computed| {
                    *tag = *computed;
                    true
                })
            }
            Key::ChaCha20 { key, managers } => {
                let decrypt = false;
                managers.chacha20(decrypt, key, jobs, |tag, computed| {
                    *tag = *computed;
                    true
                })
            }
        }
    }

    fn open_batch(&self, jobs: &mut [Job<'_>]) {
        match &self.key {
            Key::AesGcm { key, functions } => {
                self.gcm(functions.open, key, jobs, |tag, computed| tags_equal(tag, computed))
            }
            Key::ChaCha20 { key, managers } => {
                let decrypt = true;
                managers.chacha20(decrypt, key, jobs, |tag, computed| tags_equal(tag, computed))
            }
        }
    }
}

/// Compares two tags in constant time: `black_box` keeps the compiler from adding an early exit.
#[inline]
fn tags_equal(one: &[u8; ICV_LEN], other: &[u8; ICV_LEN]) -> bool {
    let halves = |tag: &[u8; ICV_LEN]| {
        let value = u128::from_ne_bytes(*tag);
        [value as u64, (value >> 64) as u64]
    };
    let ([a, b], [c, d]) = (halves(one), halves(other));
    black_box((a ^ c) | (b ^ d)) == 0
}

/// Maximum length of a text in bytes: more than any packet, less than GCM's limit of 2^36-32,
/// beyond which the library only sets its error number, which is not read here.
const MAX_TEXT_LEN: usize = 1 << 31;

impl IpsecMb {
    /// Calls `process` for each job, then `finish_tag` with the packet's tag and the computed one.
    /// To seal, `finish_tag` writes the packet's tag; to open, it compares both.
    #[inline]
    fn gcm(
        &self,
        process: GcmFunction,
        key: &GcmKey,
        jobs: &mut [Job<'_>],
        finish_tag: impl Fn(&mut [u8; ICV_LEN], &[u8; ICV_LEN]) -> bool,
    ) {
        let mut context = GcmContext([0; _]);
        let mut computed = [0; ICV_LEN];
        for job in jobs {
            let Job { nonce, aad, text_and_tag, is_ok } = job;
            let Some((text, tag)) =
                split_tag(text_and_tag).filter(|(text, _)| text.len() <= MAX_TEXT_LEN)
            else {
                *is_ok = false;
                continue;
            };
            let (start, len) = (text.as_mut_ptr(), text.len() as u64);
            let (len, aad, aad_len) = if self.encrypts {
                (len, aad.bytes().as_ptr(), aad.bytes().len() as u64)
            } else {
                // For GMAC, the text contains all authenticated bytes, from the SPI on. Nothing is
                // encrypted, and `aad` is not used.
                (0, start.cast_const(), len)
            };
            // SAFETY: reads the key, 12 bytes of nonce, and the authenticated data; reads and
            // writes `len` bytes of text, in place, and the context; writes 16 bytes of tag. All
            // this memory is live, the written memory is borrowed exclusively, and the library
            // keeps no pointer.
            unsafe {
                process(
                    key,
                    &raw mut context,
                    start,
                    start,
                    len,
                    nonce.as_ptr(),
                    aad,
                    aad_len,
                    computed.as_mut_ptr(),
                    ICV_LEN as u64,
                );
            }
            *is_ok = finish_tag(tag, &computed);
        }
        context.0.zeroize();
    }
}

/// Returns the AES-GCM functions for this CPU model.
fn functions() -> Result<Functions, IpsecMbError> {
    static FUNCTIONS: OnceLock<Result<Functions, String>> = OnceLock::new();
    let functions = FUNCTIONS.get_or_init(|| {
        let manager = Manager::new()?;
        let mut functions = MaybeUninit::uninit();
        // SAFETY: reads an initialized manager, and writes all function pointers. They stay valid,
        // because the library is never unloaded.
        let functions = unsafe {
            ffi::xdpfwd_imb_functions(manager.0.as_ptr(), functions.as_mut_ptr());
            functions.assume_init()
        };
        Ok(functions)
    });
    functions.clone().map_err(IpsecMbError::Unusable)
}

struct Manager(NonNull<ffi::Manager>);

// SAFETY: a manager is not tied to a thread. `Manager` is not `Sync`, so only one thread at a time
// uses it.
unsafe impl Send for Manager {}

impl Manager {
    fn new() -> Result<Self, String> {
        let mut reason = ptr::null();
        // SAFETY: writes only `reason`. Sets `reason` whenever the result is NULL.
        let manager = unsafe { ffi::xdpfwd_imb_new(&raw mut reason) };
        NonNull::new(manager).map(Self).ok_or_else(|| {
            // SAFETY: the call returned NULL, so `reason` is a static string.
            let reason = unsafe { CStr::from_ptr(reason) };
            reason.to_string_lossy().into_owned()
        })
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // SAFETY: `xdpfwd_imb_new` returned this manager, and `self` owns it.
        unsafe { ffi::xdpfwd_imb_free(self.0.as_ptr()) };
    }
}

/// The managers of the process, one per logical CPU, shared by all ChaCha20-Poly1305 keys.
///
/// Workers only call `try_lock`, so they never wait, and unlocking wakes no thread. There are at
/// least as many managers as pinned workers, so one is always free for them.
struct Managers(Box<[Mutex<Manager>]>);

/// Returns the managers. The first call creates them.
fn managers() -> Result<&'static Managers, IpsecMbError> {
    static MANAGERS: OnceLock<Result<Managers, String>> = OnceLock::new();
    let managers = MANAGERS.get_or_init(|| {
        let processors = thread::available_parallelism().map_or(1, Into::into);
        (0..processors)
            .map(|_| Manager::new().map(Mutex::new))
            .collect::<Result<_, _>>()
            .map(Managers)
    });
    managers.as_ref().map_err(|reason| IpsecMbError::Unusable(reason.clone()))
}

/// The manager that processes a batch: one of [`Managers`], or one for this batch only.
enum BatchManager<'a> {
    Shared(MutexGuard<'a, Manager>),
    Owned(Manager),
}

impl BatchManager<'_> {
    fn get(&self) -> &Manager {
        match self {
            Self::Shared(manager) => manager,
            Self::Owned(manager) => manager,
        }
    }
}

impl Managers {
    /// Locks a free manager, if possible the same one in every call by a thread. If all are in use,
    /// which requires more threads than CPUs, creates another one. Returns `None` if that fails.
    fn acquire(&self) -> Option<BatchManager<'_>> {
        static NEXT_THREAD: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static THREAD_NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
        }
        let number =
            THREAD_NUMBER.get().unwrap_or_else(|| NEXT_THREAD.fetch_add(1, Ordering::Relaxed));
        THREAD_NUMBER.set(Some(number));
        let first = number % self.0.len();
        let managers = self.0[first..].iter().chain(&self.0[..first]);
        let free = managers.map(Mutex::try_lock).find_map(|attempt| match attempt {
            Ok(manager) => Some(manager),
            // Use a poisoned manager too: a panic cannot leave a job in it.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        free.map(BatchManager::Shared).or_else(|| Manager::new().ok().map(BatchManager::Owned))
    }

    #[inline]
    fn chacha20(
        &self,
        decrypt: bool,
        key: &[u8; 32],
        jobs: &mut [Job<'_>],
        finish_tag: impl Fn(&mut [u8; ICV_LEN], &[u8; ICV_LEN]) -> bool,
    ) {
        let Some(manager) = self.acquire() else {
            jobs.iter_mut().for_each(|job| job.is_ok = false);
            return;
        };
        let manager = manager.get();
        let mut computed = [0; ICV_LEN];
        for job in jobs {
            let Job { nonce, aad, text_and_tag, is_ok } = job;
            let Some((text, tag)) =
                split_tag(text_and_tag).filter(|(text, _)| text.len() <= MAX_TEXT_LEN)
            else {
                *is_ok = false;
                continue;
            };
            // SAFETY: the manager is used exclusively. Reads 32 bytes of key, 12 of nonce, and the
            // AAD; reads and writes the text, in place; writes 16 bytes of tag. All this memory is
            // live, the written memory is borrowed exclusively, and no job with these pointers
            // remains in the manager after the call.
            let error = unsafe {
                ffi::xdpfwd_imb_chacha20_poly1305(
                    manager.0.as_ptr(),
                    c_int::from(decrypt),
                    key.as_ptr(),
                    nonce.as_ptr(),
                    aad.bytes().as_ptr(),
                    aad.bytes().len() as u64,
                    text.as_mut_ptr(),
                    text.len() as u64,
                    computed.as_mut_ptr(),
                )
            };
            *is_ok = error == 0 && finish_tag(tag, &computed);
        }
    }
}

#[cfg(test)]
mod tests;
