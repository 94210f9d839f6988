//! [AF_XDP](https://docs.kernel.org/networking/af_xdp.html) for xdpfwd: packet memory shared with
//! the kernel, in frames that each have exactly one *owner*.
//!
//! A [`Frame`] owns one chunk of a [`Umem`]: only code that holds the frame can access it. Frames
//! are moved, never copied, from the [`Pool`] to the kernel's fill ring, back as received packets,
//! through a [`Batch`] into an [`EgressQueue`], to the kernel for transmission, and back into the
//! pool. [`Port::frame_counts`], [`Pool::len`] and [`Umem::lost`] count the frames.
//!
//! A [`Builder`] opens the AF_XDP ports of one worker: 1 to 126 (interface, queue) pairs on one
//! UMEM, in zero-copy mode if all of them support it. With the feature `fake-kernel`, a fake kernel
//! needs no interface and no privileges:
//!
//! ```
//! # #[cfg(feature = "fake-kernel")] {
//! use xdpfwd_xsk::fake_kernel::FakeKernel;
//! use xdpfwd_xsk::{Batch, EgressQueue, Port, Umem, UmemConfig};
//!
//! // Two ports share one UMEM: a packet received on `lan` leaves on `wan` without being copied.
//! let (umem, mut pool) = Umem::new(&UmemConfig::default()).unwrap();
//! let (lan_index, wan_index) = (0, 1); // a different number for each port of the UMEM
//! let (mut lan, lan_kernel) = FakeKernel::port(&umem, &mut pool, lan_index);
//! let (mut wan, wan_kernel) = FakeKernel::port(&umem, &mut pool, wan_index);
//! lan_kernel.deliver(b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0payload").unwrap();
//!
//! let mut batch = Batch::new();
//! let mut to_wan = EgressQueue::new(&umem, 512); // holds up to 512 frames
//! lan.receive(&mut batch, &mut pool);
//! for slot in batch.slots_mut() {
//!     let mut frame = slot.take().unwrap();
//!     frame[0] |= 1;
//!     to_wan.push(frame).unwrap(); // moves the frame: it cannot be used after this line
//! }
//! batch.clear_taken();
//! wan.transmit(&mut to_wan);
//! assert!(wan_kernel.take_sent()[0].starts_with(b"\x03\0\0\0\0\x01"));
//!
//! wan.reclaim(&mut pool);
//! let in_rings = lan.frame_counts().total() + wan.frame_counts().total();
//! assert_eq!(pool.len() as u64 + in_rings, u64::from(umem.frames()));
//! # }
//! ```

mod abi;
mod attach;
mod backoff;
#[cfg(feature = "fake-kernel")]
mod bare_rings;
mod batch;
pub mod clock;
mod completions;
mod config;
mod counters;
#[cfg(feature = "fake-kernel")]
pub mod fake_kernel;
mod frame;
mod free_list;
mod grant;
mod kernel;
mod lease;
mod mapping;
#[cfg(any(doc, doctest))]
mod misuse;
mod open;
#[cfg(feature = "fake-kernel")]
pub mod oracle;
mod owner;
mod pool;
mod port;
mod prefetch;
mod quarantine;
mod queue;
mod queue_id;
mod region;
mod ring;
mod slots;
mod socket;
mod sync;
mod umem;
mod wait;
mod xsk_port;
#[cfg(feature = "xsk-rs")]
mod xsk_rs_port;

pub use attach::{AttachMode, XdpLink, attach_xdp};
#[cfg(feature = "fake-kernel")]
pub use bare_rings::BareRings;
pub use batch::Batch;
pub use completions::Completions;
pub use config::{HugePages, UmemConfig, UmemError};
pub use counters::{Counters, KernelCounters, PortFrameCounts};
pub use frame::{Frame, NoRoom};
pub use grant::{CAPABILITIES, grant_command};
pub use open::{BindMode, Binding, Bound, Builder, Fallback, OpenError, OpenPorts, PreparedPort};
pub use owner::Ownership;
pub use pool::{ForeignFrame, Pool};
pub use port::Port;
pub use prefetch::prefetch_for_write;
pub use quarantine::{Quarantine, Released};
pub use queue::{EgressQueue, PushError};
pub use queue_id::QueueId;

pub use umem::Umem;
pub use wait::{WaitSet, Waker};
pub use xsk_port::XskPort;
#[cfg(feature = "xsk-rs")]
pub use xsk_rs_port::XskRsPort;

/// The example in README.md, compiled as a doctest.
#[cfg(all(doctest, feature = "fake-kernel"))]
#[doc = include_str!("../README.md")]
struct Readme;
