//! Runs arbitrary steps on two ports of one UMEM and on the kernel side of their rings. Compares
//! the results with a model.
#![no_main]

use xdpfwd_xsk::oracle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::port::run(oracle::steps(bytes)));
