//! Work of a stage that is forbidden on the data path.

/// A stage that needs work off the data path.
pub trait Maintained {
    /// Runs about once per second on the control thread, for work that is forbidden on the data
    /// path, such as logging.
    fn maintain(&self);
}
