//! Compares two ports on one UMEM, and the kernel's side of their rings, with a model.
#![no_main]

use xdpfwd_xsk::oracle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::port::run(oracle::steps(bytes)));
