//! Two ports on one UMEM and the kernel behind them, beside their oracle.
#![no_main]

use xdpfwd_xsk::oracle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::port::run(oracle::steps(bytes)));
