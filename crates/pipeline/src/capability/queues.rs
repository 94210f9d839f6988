//! Packets that must arrive on a certain queue.

/// A stage plan with flows that must arrive on certain queues, because the state of each flow
/// belongs to one worker.
pub trait QueueBound {
    /// Returns the flows with their queues. The configuration is rejected if the ingress port of
    /// the path lacks any of the queues. `xdpfwd doctor` prints a command that steers each flow to
    /// its queue.
    fn queue_bindings(&self) -> Vec<QueueBinding>;
}

/// A flow that must arrive on a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueBinding {
    /// The number of the queue, from 0.
    pub queue: u16,
    /// The owner of the flow, for error messages, for example `"SA 0x2001"`.
    pub owner: String,
    /// The flow in the syntax of `ethtool -N`, for example `"flow-type esp4 spi 0x2001"`.
    pub flow: String,
}
