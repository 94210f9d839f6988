//! `filter`: accepts or drops packets by rules.

mod config;
mod exception;
mod kernel;
mod key;
mod limit;
mod log;
pub(crate) mod modifiers;
mod plan;
mod program;
pub(crate) mod rules;
pub(crate) mod source;
mod stage;

pub use config::FilterConfig;
pub use exception::PacketException;
pub use kernel::{IMAGE_PROGRAM, map_contents};
pub use key::{Inspection, inspect, inspect_gtpu};
pub use plan::FilterPlan;
pub use program::Program;
pub use stage::{Filter, Outcome};
