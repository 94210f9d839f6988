//! Optional capabilities of stages, one trait each, which a plan returns: see
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
