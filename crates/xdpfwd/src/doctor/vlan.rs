//! Checks that an interface delivers the VLAN tags that rules compare.

use xdpfwd_engine::VlanTagLoss;
use xdpfwd_pipeline::PortId;

use super::{Finding, Subject};

const CHECK: &str = "vlan-tags";

/// Returns `None` if no rule for the port compares VLAN tags.
pub(crate) fn examine(subject: &Subject, port: PortId, name: &str, index: u32) -> Option<Finding> {
    subject.plan.needs_vlan_tags(port).then(|| match VlanTagLoss::find(name, index) {
        Ok(None) => Finding::ok(CHECK, name, "received frames contain the tags that rules compare"),
        Ok(Some(VlanTagLoss { cause, fix, depends_on_sender })) => {
            let found = format!("rules compare VLAN tags, but {cause}");
            match depends_on_sender {
                true => Finding::warning(CHECK, name, found, fix),
                false => Finding::error(CHECK, name, found, fix),
            }
        }
        Err(error) => Finding::unknown(CHECK, name, error.to_string()),
    })
}
