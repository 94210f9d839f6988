//! Optional capabilities of stage plans, one trait each. An `as_…` method of
//! [`StagePlan`](crate::StagePlan) returns the plan as such a trait.

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
