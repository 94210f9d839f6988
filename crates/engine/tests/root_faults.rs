//! Reports keep the fault of a resource whose release on reload failed. Needs root.

mod support;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::{chain, cross_connect, stop};
use xdpfwd_engine::{Control, DataPlane};
use xdpfwd_lab::Chain;
use xdpfwd_pipeline::{BuildCx, Cx, ResourceError, ResourceOwner, Stage, StagePlan, View};

/// A stage whose release fails.
#[derive(Debug)]
struct FailingRelease {
    name: &'static str,
    was_released: AtomicBool,
}

impl FailingRelease {
    fn stage(name: &'static str) -> Option<Arc<dyn StagePlan>> {
        Some(Arc::new(Self { name, was_released: AtomicBool::new(false) }))
    }
}

impl StagePlan for FailingRelease {
    fn build(&self, _: &BuildCx<'_>) -> Box<dyn Stage> {
        Box::new(Unchanged)
    }

    fn summary(&self) -> String {
        self.name.to_owned()
    }

    fn as_resource_owner(&self) -> Option<&dyn ResourceOwner> {
        Some(self)
    }
}

impl ResourceOwner for FailingRelease {
    fn acquire(&self, _: &[&dyn Any]) -> Result<(), ResourceError> {
        Ok(())
    }

    fn release(&self) {
        self.was_released.store(true, Ordering::Relaxed);
    }

    fn fault(&self) -> Option<String> {
        let was_released = self.was_released.load(Ordering::Relaxed);
        was_released.then(|| format!("the last write of {} has failed", self.name))
    }
}

struct Unchanged;

impl Stage for Unchanged {
    fn process(&mut self, _: &mut View<'_>, _: &mut Cx<'_>) {}
}

#[test]
fn fault_of_stage_that_reload_removes_stays_in_reports() {
    let lab = chain(Chain::builder());
    let run = || {
        let control = Control::new().unwrap();
        let plan = cross_connect(1, FailingRelease::stage("first"));
        let mut data_plane = DataPlane::start(plan, &control).unwrap();
        assert_eq!(data_plane.report().faults, [""; 0]);
        data_plane.reload(cross_connect(1, FailingRelease::stage("second"))).unwrap();
        let of_first = "the last write of first has failed";
        assert_eq!(data_plane.report().faults, [of_first]);
        data_plane.reload(cross_connect(1, None)).unwrap();
        let of_second = "the last write of second has failed";
        assert_eq!(data_plane.report().faults, [of_first, of_second]);
        data_plane.reload(cross_connect(1, FailingRelease::stage("third"))).unwrap();
        let of_third = "the last write of third has failed";
        // The report lists faults of the current stages before those of removed stages.
        assert_eq!(stop(data_plane).faults, [of_third, of_first, of_second]);
    };
    lab.fwd().run(run).unwrap();
}
