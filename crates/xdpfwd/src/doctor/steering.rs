//! Which queue the packets of an inbound security association have to come to.

use std::net::IpAddr;

use engine::PortPlan;
use pipeline::{PortId, SaReport};

use super::{Finding, Subject};

const CHECK: &str = "esp-steering";

/// Says how packets of SAs get to the worker that each belongs to. With one worker they do.
pub(crate) fn examine(subject: &Subject, id: PortId, port: &PortPlan) -> Option<Finding> {
    let workers = subject.plan.workers.len();
    let path = subject.plan.paths.iter().find(|path| path.from == id)?;
    let sas = path.stages.iter().flat_map(|stage| stage.plan.sas()).filter(|sa| sa.queue.is_some());
    let rules: Vec<String> = sas.map(|sa| rule(&port.interface, &sa)).collect();
    if workers < 2 || rules.is_empty() {
        return None;
    }
    let message = format!(
        "each inbound SA belongs to the worker of its `queue`; whether its packets come there, the NIC's rules say (`ethtool -n {}`). \
         What comes to another worker is dropped as wrong_queue; these send it there:\n{}",
        port.interface,
        rules.join("\n")
    );
    Some(Finding::unknown(CHECK, &*port.interface, message))
}

/// The command that steers an SA's packets.
fn rule(interface: &str, sa: &SaReport) -> String {
    let queue = sa.queue.unwrap_or_default();
    let to = sa.destination.map_or(String::new(), |destination| format!(" dst-ip {destination}"));
    let version = if matches!(sa.destination, Some(IpAddr::V6(_))) { 6 } else { 4 };
    match sa.udp_ports.first() {
        // The SPI is behind what such rules look at.
        Some(port) => format!("ethtool -N {interface} flow-type udp{version}{to} dst-port {port} action {queue}"),
        None => format!("ethtool -N {interface} flow-type esp{version}{to} spi {:#x} action {queue}", sa.spi),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::StageOnPath;
    use pipeline::{BuildCx, Stage, StagePlan};

    use super::*;
    use crate::doctor::Level;

    /// A stage with SAs.
    #[derive(Debug)]
    struct Sas(Vec<SaReport>);

    impl StagePlan for Sas {
        fn build(&self, _: &BuildCx) -> Box<dyn Stage> {
            unreachable!()
        }

        fn summary(&self) -> String {
            String::new()
        }

        fn sas(&self) -> Vec<SaReport> {
            self.0.clone()
        }
    }

    fn sa(spi: u32, destination: Option<&str>, udp_port: Option<u16>, queue: u16) -> SaReport {
        SaReport {
            spi,
            destination: destination.map(|destination| destination.parse().unwrap()),
            udp_ports: udp_port.into_iter().collect(),
            queue: Some(queue),
            ..SaReport::default()
        }
    }

    fn found(workers: usize, sas: Vec<SaReport>) -> Option<Finding> {
        let mut subject = Subject::of_interfaces(&["eth1".to_owned()]);
        subject.plan.workers = vec![None; workers];
        subject.plan.paths[0].stages =
            vec![StageOnPath { name: "in".into(), plan: Arc::new(Sas(sas)), in_kernel: false }];
        let port = subject.plan.ports[0].clone();
        examine(&subject, PortId(0), &port)
    }

    #[test]
    fn each_sa_has_the_rule_that_steers_it() {
        let sas = || {
            vec![
                sa(0x2001, Some("192.0.2.1"), None, 1),
                sa(0x2002, Some("2001:db8::1"), None, 0),
                sa(0x2003, None, Some(4500), 3),
                SaReport { queue: None, ..sa(1, None, None, 0) },
            ]
        };
        let finding = found(2, sas()).unwrap();
        assert_eq!(finding.level, Level::Unknown);
        let rules: Vec<&str> = finding.finding.lines().skip(1).collect();
        assert_eq!(
            rules,
            [
                "ethtool -N eth1 flow-type esp4 dst-ip 192.0.2.1 spi 0x2001 action 1",
                "ethtool -N eth1 flow-type esp6 dst-ip 2001:db8::1 spi 0x2002 action 0",
                "ethtool -N eth1 flow-type udp4 dst-port 4500 action 3",
            ]
        );
        assert!(found(1, sas()).is_none(), "one worker has all queues");
        assert!(found(2, Vec::new()).is_none());
    }
}
