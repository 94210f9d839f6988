//! `esp-seal` and `esp-open`: ESP, as docs/esp.md says.

#![allow(dead_code, reason = "the stages that use it are to come")]

#[cfg(test)]
mod against_scapy;
mod mss;
mod too_big;
