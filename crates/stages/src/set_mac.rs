//! `set-mac`: sets the source MAC address, the destination MAC address, or both.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use xdpfwd_pipeline::{
    BuildCx, Cx, PlanCx, PlanError, Stage, StageConfig, StagePlan, Verdicts, View,
};
use xdpfwd_wire::{MacAddr, ethernet};

/// Sets MAC addresses, for example the destination to that of the next hop.
#[derive(Clone, Copy, Debug)]
pub struct SetMac {
    /// `None` leaves the source unchanged.
    pub source: Option<MacAddr>,
    /// `None` leaves the destination unchanged.
    pub destination: Option<MacAddr>,
}

/// `source`, `destination`, or both, with values like `"02:00:00:00:00:01"`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetMacConfig {
    #[serde(default, deserialize_with = "unicast_address")]
    source: Option<MacAddr>,
    #[serde(default, deserialize_with = "any_address")]
    destination: Option<MacAddr>,
}

fn any_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MacAddr>, D::Error> {
    deserializer.deserialize_str(AddressVisitor { allows_multicast: true }).map(Some)
}

fn unicast_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<MacAddr>, D::Error> {
    deserializer.deserialize_str(AddressVisitor { allows_multicast: false }).map(Some)
}

/// Parses an address. It is a visitor, because deserializers add the location in the file to the
/// errors of a visitor.
struct AddressVisitor {
    allows_multicast: bool,
}

impl Visitor<'_> for AddressVisitor {
    type Value = MacAddr;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.allows_multicast { "MAC address" } else { "unicast MAC address" };
        write!(f, "a {kind} in quotes, like \"02:00:00:00:00:01\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<MacAddr, E> {
        let address: MacAddr =
            text.parse().map_err(|error| E::custom(format!("not a MAC address: {error}")))?;
        if address.is_multicast() && !self.allows_multicast {
            return Err(E::custom(
                "a multicast address cannot be a source: expected a unicast address, whose first \
                 octet is even, like 02:00:00:00:00:01",
            ));
        }
        Ok(address)
    }
}

impl StageConfig for SetMacConfig {
    const KIND: &'static str = "set-mac";

    fn plan(self, _: &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, PlanError> {
        let Self { source, destination } = self;
        if source.is_none() && destination.is_none() {
            return Err(PlanError::new(
                "missing address: expected `source`, `destination`, or both",
            ));
        }
        Ok(Arc::new(SetMac { source, destination }))
    }
}

impl StagePlan for SetMac {
    fn build(&self, _: &BuildCx<'_>) -> Box<dyn Stage> {
        Box::new(*self)
    }

    fn verdicts(&self) -> Verdicts {
        Verdicts::AlwaysPass
    }

    fn summary(&self) -> String {
        let part = |name: &str, address: Option<MacAddr>| {
            address.map(|address| format!("{name} {address}"))
        };
        let parts = [part("source", self.source), part("destination", self.destination)];
        format!("sets MAC {}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl Stage for SetMac {
    #[inline]
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for packet in view.packets() {
            let Ok(mut frame) = ethernet::Frame::new_checked(&mut packet.frame[..]) else {
                continue;
            };
            if let Some(source) = self.source {
                frame.set_source(source);
            }
            if let Some(destination) = self.destination {
                frame.set_destination(destination);
            }
        }
    }

    fn needs_headers(&self) -> bool {
        false
    }
}
