//! The panels of the screen, as tables.

mod buffers;
mod drops;
mod kernel;
mod ports;
mod stages;
mod tasks;

pub(super) use buffers::{buffers, buffers_line};
pub(super) use drops::{Remedies, drops};
pub(super) use kernel::{Detail, kernel};
pub(super) use ports::ports;
pub(super) use stages::stages;
pub(super) use tasks::tasks;
