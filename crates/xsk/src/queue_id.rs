//! Identification of queues.

/// A queue of an interface, by the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueId {
    /// Index of the interface.
    pub ifindex: u32,
    /// Number of the queue.
    pub queue: u32,
}
