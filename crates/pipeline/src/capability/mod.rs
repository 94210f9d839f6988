//! Optional capabilities of stages, a trait each. A plan returns those that it has: see
//! [`StagePlan`](crate::StagePlan).

mod inspect;
mod maintained;
mod offload;
mod queues;
mod resources;

pub use inspect::{Cell, Column, Inspectable, IntoRow, Table, Unit};
pub use maintained::Maintained;
pub use offload::{XdpArray, XdpImage, XdpOffload, XdpTables};
pub use queues::{QueueBinding, QueueBound};
pub use resources::{ExclusiveResource, ResourceError, ResourceOwner};
