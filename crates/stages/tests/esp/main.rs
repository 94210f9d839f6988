//! Tests of `esp-seal` and `esp-open`, as docs/esp.md documents them. `esp_against_scapy.rs`
//! compares their packets with those of scapy.

#[path = "../support/esp.rs"]
mod support;

mod bypass;
mod classification;
mod configuration;
mod decapsulation;
mod encapsulation;
mod limits;
mod round_trip;
mod state;
mod state_failure;
mod too_big;
