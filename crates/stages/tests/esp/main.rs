//! The stages `esp-seal` and `esp-open`, as documented in docs/esp.md. `esp_against_scapy.rs`
//! checks the packets with scapy.

#[path = "../support/esp.rs"]
mod support;

mod classification;
mod configuration;
mod decapsulation;
mod encapsulation;
mod limits;
mod round_trip;
mod state;
mod too_big;
