//! Bindings for `shim.c`, and for the AES-GCM functions of the library's direct API. The latter are
//! function pointers, because the library selects the functions for the processor.

use std::ffi::{c_char, c_int};

/// An opaque `IMB_MGR`; only the shim knows its layout.
#[repr(C)]
pub(super) struct Manager {
    _opaque: [u8; 0],
}

/// Memory for `struct gcm_key_data`: round keys and powers of the hash key. `shim.c` asserts that
/// the size is sufficient.
#[repr(C, align(64))]
pub(super) struct GcmKey(pub(super) [u8; 1024]);

/// Memory for `struct gcm_context_data`, used only during a call.
#[repr(C, align(64))]
pub(super) struct GcmContext(pub(super) [u8; 128]);

pub(super) type ExpandFunction = unsafe extern "C" fn(key: *const u8, expanded: *mut GcmKey);

/// Encrypts or decrypts a text, and writes the computed tag. After decryption, the caller must
/// compare this tag with the tag in the packet.
pub(super) type GcmFunction = unsafe extern "C" fn(
    key: *const GcmKey,
    context: *mut GcmContext,
    output: *mut u8,
    input: *const u8,
    len: u64,
    nonce: *const u8,
    aad: *const u8,
    aad_len: u64,
    tag: *mut u8,
    tag_len: u64,
);

#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct GcmFunctions {
    pub(super) expand: ExpandFunction,
    pub(super) seal: GcmFunction,
    pub(super) open: GcmFunction,
}

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
        decrypt: c_int,
        key: *const u8,
        nonce: *const u8,
        aad: *const u8,
        aad_len: u64,
        text: *mut u8,
        len: u64,
        tag: *mut u8,
    ) -> c_int;
}
