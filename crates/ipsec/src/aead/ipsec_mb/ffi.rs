//! Bindings for libipsec-mb: functions of its direct API, by the pointers that it selected for this
//! processor, and `shim.c`.

use std::ffi::{c_char, c_int};

/// `IMB_MGR`, whose layout only the shim knows.
#[repr(C)]
pub(super) struct Manager {
    _opaque: [u8; 0],
}

/// `struct gcm_key_data`: round keys, and powers of the hash key. The shim checks that it fits.
#[repr(C, align(64))]
pub(super) struct GcmKey(pub(super) [u8; 1024]);

/// `struct gcm_context_data`, used during one call.
#[repr(C, align(64))]
pub(super) struct GcmContext(pub(super) [u8; 128]);

/// Expands a key.
pub(super) type Expand = unsafe extern "C" fn(key: *const u8, expanded: *mut GcmKey);

/// Seals or opens a whole packet, and writes the tag.
pub(super) type Gcm = unsafe extern "C" fn(
    key: *const GcmKey,
    context: *mut GcmContext,
    to: *mut u8,
    from: *const u8,
    len: u64,
    nonce: *const u8,
    aad: *const u8,
    aad_len: u64,
    tag: *mut u8,
    tag_len: u64,
);

/// AES-GCM with a key of one length.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct GcmFunctions {
    pub(super) expand: Expand,
    pub(super) seal: Gcm,
    pub(super) open: Gcm,
}

/// The functions of the direct API in use.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Functions {
    pub(super) aes_128: GcmFunctions,
    pub(super) aes_256: GcmFunctions,
}

unsafe extern "C" {
    pub(super) fn xdpfwd_imb_new(reason: *mut *const c_char) -> *mut Manager;
    pub(super) fn xdpfwd_imb_free(manager: *mut Manager);
    pub(super) fn xdpfwd_imb_functions(manager: *const Manager, functions: *mut Functions);
    pub(super) fn xdpfwd_imb_chacha20_poly1305(
        manager: *mut Manager,
        opens: c_int,
        key: *const u8,
        nonce: *const u8,
        aad: *const u8,
        aad_len: u64,
        text: *mut u8,
        len: u64,
        tag: *mut u8,
    ) -> c_int;
}
