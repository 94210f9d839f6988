//! The kernel's bridge.

use xdpfwd_bench::results;

use super::{kernel, nftables};
use crate::{
    forwarders::{Environment, ForwarderKind},
    matrix::{
        columns::Column,
        rows::row::{ConfiguredPath, Row},
    },
    obstacle::Obstacle,
};

pub(super) struct Bridge;

impl Row for Bridge {
    fn describe(&self) -> results::Row {
        results::Row {
            name: "bridge".into(),
            title: "kernel bridge".into(),
            place: "kernel".into(),
            remark: format!(
                "In softirqs on the forwarding core, by RPS; the generator's core allocates \
                 socket buffers. Changes no MAC address. {}",
                nftables::REMARK
            ),
            copies: vec![],
        }
    }

    fn prepare(
        &self,
        column: &'static Column,
        environment: &Environment,
    ) -> Result<Box<dyn ConfiguredPath>, Obstacle> {
        if column.transform().is_some() {
            let reason = "a bridge does not encapsulate IP packets";
            return Err(Obstacle::CannotExist(reason.into()));
        }
        kernel::check_stages(column, nftables::NO_SEARCH)?;
        let kind = ForwarderKind::Bridge;
        let forwarder = kind.prepare(environment, 1).map_err(Obstacle::NotInstalled)?;
        let filter =
            column.filter().map(|(rules, _)| nftables::filter(environment, "bridge", rules));
        let stages = filter.transpose()?.into_iter().collect();
        Ok(Box::new(kernel::PreparedKernel { kind, forwarder, stages, encapsulates: false }))
    }
}
