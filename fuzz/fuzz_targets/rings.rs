//! Both ends of a ring, beside its oracle.
#![no_main]

use xdpfwd_xsk::oracle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::ring::run(oracle::steps(bytes)));
