//! The veth driver's drop counters along the chain.

use crate::{Chain, Error, VethDrops};

/// The veth driver's drop counters where frames can get lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VethDropCounts {
    /// Drops at gen0.
    pub generator: VethDrops,
    /// Drops at fwd0.
    pub ingress: VethDrops,
    /// Drops at sink0.
    pub sink: VethDrops,
}

impl VethDropCounts {
    /// Reads the counters of a chain.
    ///
    /// # Errors
    ///
    /// The error of `ethtool -S`.
    pub fn read(chain: &Chain) -> Result<Self, Error> {
        Ok(Self {
            generator: VethDrops::read(chain.gen_(), "gen0")?,
            ingress: VethDrops::read(chain.fwd(), "fwd0")?,
            sink: VethDrops::read(chain.sink(), "sink0")?,
        })
    }

    /// Returns the drops since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let minus = |now: VethDrops, before: VethDrops| VethDrops {
            receive: now.receive.saturating_sub(before.receive),
            redirect_out: now.redirect_out.saturating_sub(before.redirect_out),
            received: now.received.saturating_sub(before.received),
        };
        Self {
            generator: minus(self.generator, earlier.generator),
            ingress: minus(self.ingress, earlier.ingress),
            sink: minus(self.sink, earlier.sink),
        }
    }
}
