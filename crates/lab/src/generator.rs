//! A running generator of any kind.

use std::{fmt::Debug, time::Duration};

use crate::{Counters, Error};

/// What sends the frames of a [`crate::Traffic`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GeneratorKind {
    /// The lab's BPF program, which sends live frames.
    #[default]
    Live,
    /// The kernel's [`crate::Pktgen`]. Frames have no sequence number and no send time.
    Pktgen,
}

/// The totals of a generator.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SentTotals {
    /// Frames passed to the interface.
    pub packets: u64,
    /// Sum of the frames' lengths in memory, without FCS, in bytes.
    pub bytes: u64,
    /// Time from the first frame to the last, in seconds.
    pub seconds: f64,
}

impl SentTotals {
    /// Returns the rate in packets per second.
    #[must_use]
    pub fn pps(&self) -> f64 {
        if self.seconds > 0.0 { self.packets as f64 / self.seconds } else { 0.0 }
    }
}

/// The operations of each kind of generator. Dropping it stops it.
pub(crate) trait Source: Debug + Send + Sync {
    fn sent(&self) -> Result<Counters, Error>;
    fn grant(&self, packets: u64) -> Result<(), Error>;
    fn is_running(&self) -> bool;
    fn stop(self: Box<Self>) -> Result<SentTotals, Error>;
    fn finish(self: Box<Self>, deadline: Duration) -> Result<SentTotals, Error>;
}

/// A running generator. Dropping this value stops it.
#[derive(Debug)]
pub struct Generator(Box<dyn Source>);

impl Generator {
    pub(crate) fn new(source: impl Source + 'static) -> Self {
        Self(Box::new(source))
    }

    /// Returns the frames passed to the interface so far.
    ///
    /// # Errors
    ///
    /// The counters cannot be read.
    pub fn sent(&self) -> Result<Counters, Error> {
        self.0.sent()
    }

    /// Sets the total number of frames that may be sent, with [`crate::Traffic::on_grant`].
    ///
    /// # Errors
    ///
    /// The program's map cannot be written, or the generator is pktgen.
    pub fn grant(&self, packets: u64) -> Result<(), Error> {
        self.0.grant(packets)
    }

    /// Returns false after the end of the traffic or an error, which [`Self::stop`] returns.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.0.is_running()
    }

    /// Stops the generator. All frames are then on the wire or dropped by the interface.
    ///
    /// # Errors
    ///
    /// The error that stopped the generator.
    pub fn stop(self) -> Result<SentTotals, Error> {
        self.0.stop()
    }

    /// Waits until [`crate::Traffic::count`] frames are sent, and stops the generator.
    ///
    /// # Errors
    ///
    /// No count was set, the deadline passed, or the generator failed.
    pub fn finish(self, deadline: Duration) -> Result<SentTotals, Error> {
        self.0.finish(deadline)
    }
}
