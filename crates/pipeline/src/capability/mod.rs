//! Optional capabilities of stage plans, one trait each. The `as_…` methods of
//! [`StagePlan`](crate::StagePlan) return them.

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
