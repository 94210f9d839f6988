//! `esp-seal` and `esp-open`: ESP, as docs/esp.md says.

#![allow(dead_code, reason = "the stages that use it are to come")]

mod mss;
mod too_big;
