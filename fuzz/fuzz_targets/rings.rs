//! Runs arbitrary steps on the producer and the consumer of a ring. Compares the results with a
//! model.
#![no_main]

use xdpfwd_xsk::oracle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::ring::run(oracle::steps(bytes)));
