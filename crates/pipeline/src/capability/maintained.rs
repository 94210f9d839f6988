//! Periodic work of stages outside the data path.

/// A stage plan with periodic work outside the data path.
pub trait Maintained {
    /// Runs about once per second on the control thread, for work such as logging.
    fn maintain(&self);
}
