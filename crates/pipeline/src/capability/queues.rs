//! Packets that must arrive on a certain queue.

/// A stage plan with flows that each belong to a worker, and must arrive on its queue.
pub trait QueueBound {
    /// Returns the flows with their queues. The configuration is rejected if the ingress port lacks
    /// one of these queues. `xdpfwd doctor` prints commands that steer the flows.
    fn queue_bindings(&self) -> Vec<QueueBinding>;
}

/// A flow that must arrive on a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueBinding {
    /// The number of the queue, from 0.
    pub queue: u16,
    /// The owner of the flow in messages, for example `"SA 0x2001"`.
    pub owner: String,
    /// The flow in the syntax of `ethtool -N`, for example `"flow-type esp4 spi 0x2001"`.
    pub flow: String,
}
