//! Packets that have to arrive on a certain queue.

/// A stage some of whose packets have to arrive on a certain queue, because their state belongs to
/// that queue's worker.
pub trait QueueBound {
    /// Returns the bindings. The configuration is refused if the path's port does not use a queue;
    /// `xdpfwd doctor` prints the command that steers each flow.
    fn queue_bindings(&self) -> Vec<QueueBinding>;
}

/// A flow that has to arrive on a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueBinding {
    /// The queue, from 0.
    pub queue: u16,
    /// What is bound to it, for error messages: `"SA 0x2001"`.
    pub owner: String,
    /// The flow in the syntax of `ethtool -N`: `"flow-type esp4 spi 0x2001"`.
    pub flow: String,
}
