//! `mac-swap`: swaps source and destination MAC addresses.

use std::sync::Arc;

use serde::Deserialize;

use xdpfwd_pipeline::{
    BuildCx, Cx, PlanCx, PlanError, Stage, StageConfig, StagePlan, Verdicts, View,
};
use xdpfwd_wire::ethernet;

/// Swaps the MAC addresses. A frame that then leaves through its port of arrival returns to its
/// sender.
#[derive(Clone, Copy, Debug, Default)]
pub struct MacSwap;

/// `kind = "mac-swap"` has no further keys.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MacSwapConfig {}

impl StageConfig for MacSwapConfig {
    const KIND: &'static str = "mac-swap";

    fn plan(self, _: &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, PlanError> {
        Ok(Arc::new(MacSwap))
    }
}

impl StagePlan for MacSwap {
    fn build(&self, _: &BuildCx<'_>) -> Box<dyn Stage> {
        Box::new(*self)
    }

    fn verdicts(&self) -> Verdicts {
        Verdicts::AlwaysPass
    }

    fn summary(&self) -> String {
        "swaps source and destination MAC address".into()
    }
}

impl Stage for MacSwap {
    #[inline]
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for packet in view.packets() {
            // Only an earlier stage can have truncated the Ethernet header. The worker later drops
            // such a frame.
            if let Ok(mut frame) = ethernet::Frame::new_checked(&mut packet.frame[..]) {
                frame.swap_addresses();
            }
        }
    }

    fn needs_headers(&self) -> bool {
        false
    }
}
