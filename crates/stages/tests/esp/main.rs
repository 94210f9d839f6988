//! The stages `esp-seal` and `esp-open`, as docs/esp.md describes them. scapy judges what is on the
//! wire in `esp_against_scapy.rs`.

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
