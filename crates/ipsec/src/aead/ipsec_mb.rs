//! Intel's libipsec-mb, which has the lowest overhead per packet and is fastest for short packets.
//!
//! AES-GCM uses the direct API: one call per packet reads the key, and writes the packet and a
//! context on the stack. Workers share a key, because no manager is involved: the manager that
//! selected the functions for this processor is freed before the first packet.
//!
//! ChaCha20-Poly1305 uses jobs, which need a manager for each batch. There is one manager per
//! processor, created with the first such key.

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

use self::ffi::{Functions, Gcm, GcmContext, GcmFunctions, GcmKey};
use super::job::{Aead, Job, KeyLengthError, parts};
use crate::transform::{ICV, Transform};

/// A key of libipsec-mb.
pub struct IpsecMb {
    key: Key,
    encrypts: bool,
}

enum Key {
    AesGcm { key: Box<GcmKey>, functions: GcmFunctions },
    ChaCha20 { key: Box<Zeroizing<[u8; 32]>>, managers: &'static Managers },
}

/// The reason reason libipsec-mb cannot use a key.
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
    /// Creates a key, whose length must match the transform.
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
    /// Expands a key, which must have the functions' length: 16 or 32 bytes.
    fn aes_gcm(key: &[u8], functions: GcmFunctions) -> Self {
        let mut expanded = Box::new(GcmKey([0; _]));
        // SAFETY: reads the key, whose length `KeyLengthError::check` verified, and writes a
        // `gcm_key_data`, which is not larger.
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
                managers.chacha20(false, key, jobs, |tag, computed| {
                    *tag = *computed;
                    true
                })
            }
        }
    }

    fn open_batch(&self, jobs: &mut [Job<'_>]) {
        match &self.key {
            Key::AesGcm { key, functions } => {
                self.gcm(functions.open, key, jobs, |tag, computed| equal(tag, computed))
            }
            Key::ChaCha20 { key, managers } => {
                managers.chacha20(true, key, jobs, |tag, computed| equal(tag, computed))
            }
        }
    }
}

/// Compares tags in constant time: all bytes are compared, and `black_box` hides the comparison
/// from the compiler.
#[inline]
fn equal(one: &[u8; ICV], other: &[u8; ICV]) -> bool {
    let halves = |tag: &[u8; ICV]| {
        let whole = u128::from_ne_bytes(*tag);
        [whole as u64, (whole >> 64) as u64]
    };
    let ([a, b], [c, d]) = (halves(one), halves(other));
    black_box((a ^ c) | (b ^ d)) == 0
}

/// The longest text, above any packet and below GCM's limit (2^36 - 32). For longer texts the
/// library would do nothing and only set its error number.
const MAX_TEXT_LEN: usize = 1 << 31;

impl IpsecMb {
    #[inline]
    fn gcm(
        &self,
        run: Gcm,
        key: &GcmKey,
        jobs: &mut [Job<'_>],
        check_tag: impl Fn(&mut [u8; ICV], &[u8; ICV]) -> bool,
    ) {
        let mut context = GcmContext([0; _]);
        let mut computed = [0; ICV];
        for job in jobs {
            let Job { nonce, aad, text_and_tag, is_good: job_is_good } = job;
            let Some((text, tag)) =
                parts(text_and_tag).filter(|(text, _)| text.len() <= MAX_TEXT_LEN)
            else {
                *job_is_good = false;
                continue;
            };
            let (at, len) = (text.as_mut_ptr(), text.len() as u64);
            let (len, aad, aad_len) = if self.encrypts {
                (len, aad.bytes().as_ptr(), aad.bytes().len() as u64)
            } else {
                // GMAC: everything is authenticated, nothing encrypted.
                (0, at.cast_const(), len)
            };
            // SAFETY: reads the key, 12 bytes of nonce, and the authenticated data; reads and
            // writes `len` bytes of text, in place, and the context; writes 16 bytes of tag. All
            // are live, written ones are borrowed exclusively, and no pointer is kept.
            unsafe {
                run(
                    key,
                    &raw mut context,
                    at,
                    at,
                    len,
                    nonce.as_ptr(),
                    aad,
                    aad_len,
                    computed.as_mut_ptr(),
                    ICV as u64,
                );
            }
            *job_is_good = check_tag(tag, &computed);
        }
        context.0.zeroize();
    }
}

/// Returns the functions for this processor.
fn functions() -> Result<Functions, IpsecMbError> {
    static FUNCTIONS: OnceLock<Result<Functions, String>> = OnceLock::new();
    let functions = FUNCTIONS.get_or_init(|| {
        let manager = Manager::new()?;
        let mut functions = MaybeUninit::uninit();
        // SAFETY: reads an initialized manager, and writes all functions, which are code of the
        // library. The library is never unloaded.
        let functions = unsafe {
            ffi::xdpfwd_imb_functions(manager.0.as_ptr(), functions.as_mut_ptr());
            functions.assume_init()
        };
        Ok(functions)
    });
    functions.clone().map_err(IpsecMbError::Unusable)
}

/// An exclusively owned `IMB_MGR`.
struct Manager(NonNull<ffi::Manager>);

// SAFETY: not tied to a thread; `&mut` ensures that one thread uses it at a time.
unsafe impl Send for Manager {}

impl Manager {
    fn new() -> Result<Self, String> {
        let mut reason = ptr::null();
        // SAFETY: writes only `reason`, and only if it returns NULL.
        let manager = unsafe { ffi::xdpfwd_imb_new(&raw mut reason) };
        NonNull::new(manager).map(Self).ok_or_else(|| {
            // SAFETY: `reason` is then a static string.
            let reason = unsafe { CStr::from_ptr(reason) };
            reason.to_string_lossy().into_owned()
        })
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // SAFETY: from `xdpfwd_imb_new`, owned exclusively.
        unsafe { ffi::xdpfwd_imb_free(self.0.as_ptr()) };
    }
}

/// The managers of the process, one per processor, for all keys.
///
/// Workers never wait for a manager: they only try to lock, so unlocking wakes no thread. There are
/// at least as many managers as pinned workers, so a worker finds a free one.
struct Managers(Box<[Mutex<Manager>]>);

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

/// A manager that one thread uses for a batch.
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
    /// Takes a free manager: usually the one assigned to this thread, otherwise any other. Creates
    /// one if all are in use, which can happen only with more threads than processors. Returns
    /// `None` if that fails.
    fn take(&self) -> Option<BatchManager<'_>> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static THREAD: Cell<Option<usize>> = const { Cell::new(None) };
        }
        let thread = THREAD.get().unwrap_or_else(|| THREADS.fetch_add(1, Ordering::Relaxed));
        THREAD.set(Some(thread));
        let first = thread % self.0.len();
        let managers = self.0[first..].iter().chain(&self.0[..first]);
        let free = managers.map(Mutex::try_lock).find_map(|attempt| match attempt {
            Ok(manager) => Some(manager),
            // A panic cannot leave a job in a manager.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        free.map(BatchManager::Shared).or_else(|| Manager::new().ok().map(BatchManager::Owned))
    }

    #[inline]
    fn chacha20(
        &self,
        opens: bool,
        key: &[u8; 32],
        jobs: &mut [Job<'_>],
        check_tag: impl Fn(&mut [u8; ICV], &[u8; ICV]) -> bool,
    ) {
        let Some(manager) = self.take() else {
            jobs.iter_mut().for_each(|job| job.is_good = false);
            return;
        };
        let manager = manager.get();
        let mut computed = [0; ICV];
        for job in jobs {
            let Job { nonce, aad, text_and_tag, is_good: job_is_good } = job;
            let Some((text, tag)) =
                parts(text_and_tag).filter(|(text, _)| text.len() <= MAX_TEXT_LEN)
            else {
                *job_is_good = false;
                continue;
            };
            // SAFETY: the manager is used exclusively. Reads 32 bytes of key, 12 of nonce, and the
            // AAD; reads and writes the text, in place; writes 16 bytes of tag. All are live,
            // written ones are borrowed exclusively, and no job remains on return.
            let error = unsafe {
                ffi::xdpfwd_imb_chacha20_poly1305(
                    manager.0.as_ptr(),
                    c_int::from(opens),
                    key.as_ptr(),
                    nonce.as_ptr(),
                    aad.bytes().as_ptr(),
                    aad.bytes().len() as u64,
                    text.as_mut_ptr(),
                    text.len() as u64,
                    computed.as_mut_ptr(),
                )
            };
            *job_is_good = error == 0 && check_tag(tag, &computed);
        }
    }
}

#[cfg(test)]
mod tests;
