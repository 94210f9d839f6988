//! Periodic work of stages outside the data path.

/// A stage plan with periodic work outside the data path.
pub trait Maintained {
    /// Runs about once per second on the control thread, for work that is forbidden on the data
    /// path, such as logging.
    fn maintain(&self);
}
