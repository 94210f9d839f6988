//! Optional capabilities of stage plans, one trait each, which an `as_…` method of
//! [`StagePlan`](crate::StagePlan) returns.

mod inspect;
mod maintained;
mod offload;
mod queues;
mod resources;

pub use inspect::{Cell, Column, Inspectable, IntoRow, LongTable, Table, Unit};
pub use maintained::Maintained;
pub use offload::{XdpArray, XdpImage, XdpOffload, XdpTables};
pub use queues::{QueueBinding, QueueBound};
pub use resources::{ExclusiveResource, ResourceError, ResourceOwner};
