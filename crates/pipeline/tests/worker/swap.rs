//! Replacing the stages of a running worker.

use xdpfwd_pipeline::{BuildError, Cx, NamedStage, PortId, SnapshotError, Stage, View, Worker};
use xdpfwd_testkit::wires::{LAN, assert_conserved, cross_connect, numbers, packet};

use crate::DelayByOne;

/// Counts packets. Its state is the number of its predecessors, passed on by each swap.
#[derive(Default)]
struct CountPackets {
    packets: u64,
    predecessors: u64,
}

impl Stage for CountPackets {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        self.packets += view.len() as u64;
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("count", self.packets)]
    }

    fn row_counters(&self) -> Vec<u64> {
        vec![self.packets, self.predecessors]
    }

    fn snapshot(&self) -> Option<Vec<u8>> {
        Some((self.predecessors + 1).to_le_bytes().to_vec())
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        let bytes = snapshot.try_into().map_err(|_| SnapshotError("not eight bytes".into()))?;
        self.predecessors = u64::from_le_bytes(bytes);
        Ok(())
    }
}

/// Counts packets, but cannot restore a state.
#[derive(Default)]
struct FailingRestore(CountPackets);

impl Stage for FailingRestore {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        self.0.process(view, cx);
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.0.counters()
    }

    fn snapshot(&self) -> Option<Vec<u8>> {
        Some(b"anything".to_vec())
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), SnapshotError> {
        Err(SnapshotError("unreadable".into()))
    }
}

fn named(name: &str, stage: impl Stage + 'static) -> NamedStage {
    NamedStage::new(name, stage)
}

#[test]
fn swap_named_keeps_packets_counters_and_state() {
    let chain =
        || vec![named("count", CountPackets::default()), named("delay", DelayByOne::default())];
    let (mut worker, wires) = cross_connect(chain(), vec![]);
    for n in 0..10 {
        wires.lan.deliver(&packet(n)).unwrap();
        worker.poll_once();
    }
    assert_eq!(worker.frames().in_flight, 1);
    let result = worker.swap_named(
        LAN,
        vec![named("other", CountPackets::default()), named("count", CountPackets::default())],
    );
    let result = result.unwrap();
    // `afresh` names the new stages that do not continue the state of an old stage.
    assert_eq!(result.afresh, Vec::<String>::new());
    assert_eq!(result.row_counters, [vec![10, 0], vec![]], "wrong row counters of the old stages");
    for n in 10..20 {
        wires.lan.deliver(&packet(n)).unwrap();
        worker.poll_once();
    }
    assert_eq!(numbers(&wires.wan.take_sent()), (0..20).collect::<Vec<_>>());
    let report = worker.report();
    let stages: Vec<_> = report.paths[0]
        .stages
        .iter()
        .map(|stage| (stage.name.as_str(), stage.counters[0].1, stage.account.packets))
        .collect();
    assert_eq!(stages, [("other", 10, 10), ("count", 20, 20)]);
    // These are only the counters of the new stages: the engine, not the worker, adds those of the
    // old ones.
    assert_eq!(worker.row_counters(), [vec![vec![10, 0], vec![10, 1]], vec![]]);
    assert_eq!(assert_conserved(&mut worker).in_flight, 0);

    // A stage of another type starts its counters at zero.
    let count =
        |worker: &mut Worker<Vec<NamedStage>>| worker.report().paths[0].stages[0].counters.clone();
    let result = worker.swap_named(LAN, vec![named("count", FailingRestore::default())]).unwrap();
    assert_eq!(result.afresh, ["count"]);
    assert_eq!(count(&mut worker), [("count", 0)]);
    // A stage of the same type continues the counters, even if `restore` fails.
    wires.lan.deliver(&packet(20)).unwrap();
    worker.poll_once();
    let result = worker.swap_named(LAN, vec![named("count", FailingRestore::default())]).unwrap();
    assert_eq!(result.afresh, ["count"]);
    assert_eq!(count(&mut worker), [("count", 1)]);
    assert_eq!(worker.swap_named(PortId(7), vec![]).unwrap_err(), BuildError::NoSuchPort(7));
}

#[test]
fn swap_matches_counters_of_same_named_stages_in_order() {
    let chain =
        || vec![named("count", CountPackets::default()), named("count", CountPackets::default())];
    let (mut worker, wires) = cross_connect(chain(), vec![]);
    wires.lan.deliver(&packet(0)).unwrap();
    worker.poll_once();
    worker.swap_named(LAN, chain()).unwrap();
    let report = worker.report();
    let stages: Vec<_> = report.paths[0]
        .stages
        .iter()
        .map(|stage| (stage.counters[0].1, stage.account.packets))
        .collect();
    assert_eq!(stages, [(1, 1), (1, 1)]);
}
