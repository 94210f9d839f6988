//! `memcpy`: copies each packet's bytes a number of times, as a control for measurements.

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use xdpfwd_pipeline::{
    BuildCx, Cx, PlanCx, PlanError, Stage, StageConfig, StagePlan, Verdicts, View,
};

/// Copies each packet `copies` times from its frame to a buffer, with one `memcpy` per copy.
/// Packets do not change.
///
/// All copies write the same buffer. The first copy brings the packet into the L1 cache, so every
/// further copy reads and writes the L1 cache only. The cost per packet is therefore a line over
/// `copies`; its slope is the cost of a `memcpy` in the L1 cache, whatever the size of the packet
/// memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memcpy {
    copies: Copies,
}

/// `copies` is required.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemcpyConfig {
    copies: Copies,
}

/// A number of copies, 0 to [`Self::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Copies(u16);

impl Copies {
    /// A batch of 64 packets of 1514 bytes then takes about a millisecond. Larger values would only
    /// delay the other work of the worker.
    const MAX: u16 = 1024;
}

impl<'de> Deserialize<'de> for Copies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CopiesVisitor;

        impl Visitor<'_> for CopiesVisitor {
            type Value = Copies;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number of copies, 0 to {}", Copies::MAX)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Copies, E> {
                let copies = u16::try_from(number).ok().filter(|copies| *copies <= Copies::MAX);
                copies
                    .map(Copies)
                    .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Copies, E> {
                match i64::try_from(number) {
                    Ok(number) => self.visit_i64(number),
                    Err(_) => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
                }
            }
        }

        deserializer.deserialize_i64(CopiesVisitor)
    }
}

impl Memcpy {
    /// Returns the plan of a stage that makes this many copies of each packet, or `None` for more
    /// than 1024.
    pub fn new(copies: u16) -> Option<Self> {
        (copies <= Copies::MAX).then_some(Self { copies: Copies(copies) })
    }
}

impl StageConfig for MemcpyConfig {
    const KIND: &'static str = "memcpy";

    fn plan(self, _: &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, PlanError> {
        Ok(Arc::new(Memcpy { copies: self.copies }))
    }
}

impl StagePlan for Memcpy {
    fn build(&self, _: &BuildCx<'_>) -> Box<dyn Stage> {
        Box::new(Copier {
            copies: self.copies.0,
            buffer: Box::new(Buffer([0; OFFSET + MAX_FRAME])),
        })
    }

    fn verdicts(&self) -> Verdicts {
        Verdicts::AlwaysPass
    }

    fn summary(&self) -> String {
        format!("control for measurements, copies per packet: {}", self.copies.0)
    }
}

/// The largest frame size of a UMEM, in bytes.
const MAX_FRAME: usize = 4096;

/// Offset of the target in [`Buffer`]. A processor takes a load for one of the bytes just stored if
/// both addresses are equal modulo 4096, and waits (4K aliasing). Received packets start at a
/// multiple of 2048 plus 256. Of the offsets tried, this one was the fastest; the slowest took 1.8
/// times as long.
const OFFSET: usize = 2368;

/// The memory with the target of all copies.
#[repr(align(4096))]
struct Buffer([u8; OFFSET + MAX_FRAME]);

/// The stage of one worker.
struct Copier {
    copies: u16,
    buffer: Box<Buffer>,
}

impl Stage for Copier {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for packet in view.packets() {
            let source = &packet.frame[..];
            let Some(target) = self.buffer.0[OFFSET..].get_mut(..source.len()) else { continue };
            for _ in 0..self.copies {
                target.copy_from_slice(black_box(source));
                // The compiler must assume that the copy is read here, and then overwritten: it can
                // neither remove the copy nor combine it with the next.
                black_box(&mut *target);
            }
        }
    }

    fn needs_headers(&self) -> bool {
        false
    }
}
