//! Packets that must arrive on a certain queue.

/// A stage with packets that must arrive on a certain queue, because their state belongs to that
/// queue's worker.
pub trait QueueBound {
    /// Returns the bindings. The configuration is rejected if the path's port does not use one of
    /// the queues; `xdpfwd doctor` prints the command that steers each flow.
    fn queue_bindings(&self) -> Vec<QueueBinding>;
}

/// A flow that must arrive on a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueBinding {
    /// The queue, from 0.
    pub queue: u16,
    /// The owner of the flow, for error messages: `"SA 0x2001"`.
    pub owner: String,
    /// The flow in the syntax of `ethtool -N`: `"flow-type esp4 spi 0x2001"`.
    pub flow: String,
}
