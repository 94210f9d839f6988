//! A test bench, which shows what stages do with packets, without root and interfaces.
//!
//! The module requires the feature `testing`. Enable it in your dev-dependencies only:
//!
//! ```toml
//! [dev-dependencies]
//! xdpfwd-pipeline = { version = "0.1", features = ["testing"] }
//! ```
//!
//! A [`TestBench`] runs stages on a real [`Worker`](crate::Worker), between ports on the [fake
//! kernel](xdpfwd_xsk::fake_kernel). For each sent packet, it returns a [`Disposition`]: sent on a
//! port with these bytes, dropped for a reason, or held by a stage.
//!
//! ```
//! use xdpfwd_pipeline::testing::{Disposition, TestBench};
//! use xdpfwd_pipeline::{Cx, DropReason, Stage, View};
//!
//! static TOO_LONG: DropReason = DropReason::new("too_long", "The packet is longer than allowed.");
//!
//! /// Drops packets that are longer than a limit in bytes.
//! struct MaxLength(usize);
//!
//! impl Stage for MaxLength {
//!     fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
//!         for mut packet in view.packets() {
//!             if packet.frame.len() > self.0 {
//!                 packet.drop(&TOO_LONG);
//!             }
//!         }
//!     }
//! }
//!
//! TOO_LONG.register()?; // in a program, the stage's plan registers the reason
//! let mut bench = TestBench::new(MaxLength(100));
//! assert_eq!(bench.send("lan", &[0; 60]), Disposition::sent("wan", [0; 60]));
//! assert_eq!(bench.send("lan", &[0; 101]), Disposition::dropped(&TOO_LONG));
//!
//! // A whole batch: a stage may treat a packet differently because of other packets in its batch.
//! let batch = (40..140).map(|length| vec![0; length]);
//! let dispositions = bench.send_all("lan", batch);
//! assert_eq!(dispositions.iter().filter(|it| it.drop_reason() == Some("too_long")).count(), 39);
//! assert_eq!(bench.drops(), [("too_long", 40)]);
//! # Ok::<(), xdpfwd_pipeline::ReasonError>(())
//! ```
//!
//! # Ports and paths
//!
//! [`TestBench::new`] creates the ports `lan` and `wan`, a path with stages from `lan` to `wan`,
//! and a path without stages back. [`TestBench::builder`] takes other ports and paths:
//!
//! ```
//! # use xdpfwd_pipeline::testing::{Disposition, TestBench};
//! # use xdpfwd_pipeline::{Cx, PortId, Stage, View};
//! # struct ToN6;
//! # impl Stage for ToN6 {
//! #     fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
//! #         view.packets().for_each(|mut packet| packet.send_to(PortId(1)));
//! #     }
//! # }
//! // The stage `ToN6` sends every packet to the port `n6`, which is not the path's egress port.
//! let builder = TestBench::builder().port("n3").port("n6").port("n9");
//! let mut bench = builder.path("n3", "n9", ToN6).path("n6", "n3", ()).build()?;
//! assert_eq!(bench.send("n3", &[1; 60]), Disposition::sent("n6", [1; 60]));
//! assert_eq!(bench.send("n6", &[2; 60]), Disposition::sent("n3", [2; 60]));
//! # Ok::<(), xdpfwd_pipeline::testing::TestBenchError>(())
//! ```
//!
//! [`TestBenchBuilder::plans`] builds stages from [`StagePlan`](crate::StagePlan)s, which can read
//! the ports' properties. To test a whole configuration file, use `App::test_bench` of the crate
//! `xdpfwd`, with its feature `testing`.
//!
//! # Time
//!
//! The clock that stages see is stopped. [`TestBench::advance`] advances it and runs
//! [`tick`](crate::Stage::tick):
//!
//! ```
//! use std::time::Duration;
//!
//! use xdpfwd_pipeline::testing::{Disposition, TestBench};
//! use xdpfwd_pipeline::{Cx, Stage, View};
//! use xdpfwd_xsk::Frame;
//!
//! /// Delays each packet until the next tick.
//! #[derive(Default)]
//! struct Delay(Vec<Frame>);
//!
//! impl Stage for Delay {
//!     fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
//!         self.0.extend((0..view.len()).filter_map(|index| view.hold(index, cx)));
//!     }
//!
//!     fn tick(&mut self, cx: &mut Cx<'_>) {
//!         self.0.drain(..).for_each(|frame| cx.emit(frame, cx.to()));
//!     }
//!
//!     fn retire(&mut self, cx: &mut Cx<'_>) {
//!         self.tick(cx);
//!     }
//! }
//!
//! let mut bench = TestBench::new(Delay::default());
//! assert_eq!(bench.send("lan", &[1; 60]), Disposition::Held);
//! bench.advance(Duration::from_millis(1));
//! assert_eq!(bench.take_sent("wan"), [[1; 60]]);
//! ```
//!
//! # Frames
//!
//! After each call the bench asserts that every frame is in exactly one place, so a stage that
//! loses a `Frame` value fails the test.
//!
//! # Random packets
//!
//! A packet takes a few microseconds: fast enough for property tests and fuzzing. `proptest` or
//! `cargo-fuzz` can replace this loop:
//!
//! ```
//! # use xdpfwd_pipeline::testing::TestBench;
//! # use xdpfwd_pipeline::{Cx, Reason, Stage, View};
//! # struct OnlyIp;
//! # impl Stage for OnlyIp {
//! #     fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
//! #         for mut packet in view.packets() {
//! #             if packet.meta.headers.ip_version.is_none() { packet.drop(Reason::NOT_IP); }
//! #         }
//! #     }
//! # }
//! let mut bench = TestBench::new(OnlyIp);
//! let mut state = 1_u64; // seed of the random numbers
//! let mut random = move || {
//!     state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
//!     (state >> 33) as usize
//! };
//! for _ in 0..200 {
//!     let batch: Vec<Vec<u8>> = (0..1 + random() % 64)
//!         .map(|_| (0..14 + random() % 200).map(|_| random() as u8).collect())
//!         .collect();
//!     for (packet, disposition) in batch.iter().zip(bench.send_all("lan", &batch)) {
//!         // The bench checks that no frame is lost; check here that the stage changes no packet.
//!         match disposition.sent_frame() {
//!             Some(frame) => assert_eq!(frame, packet),
//!             None => assert_eq!(disposition.drop_reason(), Some("not_ip")),
//!         }
//!     }
//! }
//! ```

#[cfg(feature = "count-allocations")]
mod allocations;
mod bench;
mod builder;
mod conserved;
mod disposition;
mod error;
mod plans;
mod stages;
mod tracked;

#[cfg(feature = "count-allocations")]
pub use allocations::assert_no_allocation;
pub use bench::TestBench;
pub use builder::TestBenchBuilder;
pub use conserved::assert_conserved;
pub use disposition::Disposition;
pub use error::TestBenchError;
pub use stages::IntoStages;
