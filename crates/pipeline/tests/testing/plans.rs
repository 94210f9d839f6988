//! Stages that are built from plans.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use xdpfwd_pipeline::testing::{TestBench, TestBenchError};
use xdpfwd_pipeline::{
    BuildCx, Cx, PortId, PortInfo, Ports, ResourceError, ResourceOwner, Stage, StagePlan, View,
};
use xdpfwd_wire::MacAddr;

/// A plan with one resource.
#[derive(Debug, Default)]
struct TestPlan {
    /// Calls of `acquire` that succeeded, minus calls of `release`.
    acquired: AtomicI32,
    acquire_fails: bool,
}

/// A stage that stores, as text, values of the `BuildCx` that it was built with.
struct ContextStage(String);

impl Stage for ContextStage {
    fn process(&mut self, _: &mut View<'_>, _: &mut Cx<'_>) {}
}

impl StagePlan for TestPlan {
    fn build(&self, cx: &BuildCx<'_>) -> Box<dyn Stage> {
        assert_eq!(
            self.acquired.load(Ordering::Relaxed),
            1,
            "`build` expects that the resource is acquired exactly once"
        );
        let (from, to) = (cx.from_port().unwrap(), cx.to_port().unwrap());
        let source = cx.ethernet_to(MacAddr([2; 6])).source;
        Box::new(ContextStage(format!(
            "{} {} {:?} {} {source}",
            from.name, to.name, to.mtu, cx.workers
        )))
    }

    fn summary(&self) -> String {
        String::new()
    }

    fn as_resource_owner(&self) -> Option<&dyn ResourceOwner> {
        Some(self)
    }
}

impl ResourceOwner for TestPlan {
    fn acquire(&self, _: &[&dyn Any]) -> Result<(), ResourceError> {
        if self.acquire_fails {
            return Err(ResourceError("another process has the lock".into()));
        }
        self.acquired.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn release(&self) {
        self.acquired.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn plan_of_two_paths_acquires_resource_once_and_releases_it_after_both() {
    // Both ports have `PortId(0)` here; `Ports::from_iter` sets the IDs.
    let lan = PortInfo::new(PortId(0), "lan", "eth0");
    let wan = PortInfo { mtu: Some(1400), ..PortInfo::new(PortId(0), "wan", "eth1") };
    let [first, second] = [(); 2].map(|()| Arc::new(TestPlan::default()));
    let named_plan = |plan: &Arc<TestPlan>| [("context", Arc::clone(plan) as Arc<dyn StagePlan>)];
    let acquired_counts = || [&first, &second].map(|plan| plan.acquired.load(Ordering::Relaxed));

    let builder = TestBench::builder().ports(Ports::from_iter([lan, wan])).workers(4);
    let builder =
        builder.plans("lan", "wan", named_plan(&first)).plans("wan", "lan", named_plan(&first));
    let mut bench = builder.build().unwrap();
    let contexts = bench.worker().stages_mut(|_, stage: &mut ContextStage| stage.0.clone());
    let expected = ["lan wan Some(1400) 4 02:00:00:00:00:02", "wan lan None 4 02:00:00:00:00:01"];
    assert_eq!(contexts, expected);
    assert_eq!(acquired_counts(), [1, 0]);

    bench.reload_plans("lan", named_plan(&second)).unwrap();
    assert_eq!(acquired_counts(), [1, 1], "the path from wan still uses the first plan");
    let failing_plan: Arc<dyn StagePlan> =
        Arc::new(TestPlan { acquire_fails: true, ..TestPlan::default() });
    let error = bench.reload_plans("wan", [("bad", failing_plan)]).unwrap_err();
    assert_eq!(error.to_string(), "stage \"bad\": another process has the lock");
    bench.reload_path("wan", ());
    assert_eq!(acquired_counts(), [0, 1]);
    drop(bench);
    assert_eq!(acquired_counts(), [0, 0]);
}

#[test]
fn error_of_failed_acquire_names_stage() {
    let failing_plan: Arc<dyn StagePlan> =
        Arc::new(TestPlan { acquire_fails: true, ..TestPlan::default() });
    let error =
        TestBench::builder().plans("lan", "wan", [("bad", failing_plan)]).build().unwrap_err();
    assert!(matches!(&error, TestBenchError::Resource { stage, .. } if stage == "bad"));
    assert_eq!(error.to_string(), "stage \"bad\": another process has the lock");
}
