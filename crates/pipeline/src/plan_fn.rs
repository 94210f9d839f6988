//! Stages and stage plans made of closures.

use std::any::Any;
use std::fmt;

use crate::capability::{Inspectable, ResourceError, ResourceOwner, Table};
use crate::cx::Cx;
use crate::plan::{BuildCx, StagePlan};
use crate::stage::Stage;
use crate::view::View;

/// A closure can be a stage: it is called with each batch.
impl<F: FnMut(&mut View<'_>, &mut Cx<'_>) + 'static> Stage for F {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        self(view, cx);
    }
}

type BuildFn = Box<dyn Fn(&BuildCx<'_>) -> Box<dyn Stage> + Send + Sync>;
type AcquireFn = Box<dyn Fn() -> Result<(), ResourceError> + Send + Sync>;

/// A stage plan made of closures. It can also have inspection tables and acquire resources; for
/// other capabilities, such as [`XdpOffload`](crate::XdpOffload), implement [`StagePlan`].
///
/// The stage may also be a closure:
///
/// ```
/// use xdpfwd_pipeline::{Cx, PlanError, PlanFn, Reason, View};
///
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct LongestConfig { bytes: usize }
///
/// # let bytes = 100;
/// # fn registered<F: Fn(LongestConfig) -> Result<PlanFn, PlanError>>(_: F) {}
/// # registered(
/// |LongestConfig { bytes }| {
///     let plan = PlanFn::new(move |_| {
///         move |view: &mut View<'_>, _: &mut Cx<'_>| {
///             view.each(|packet| match packet.frame.len() > bytes {
///                 true => Err(Reason::POLICY),
///                 false => Ok(()),
///             });
///         }
///     });
///     Ok(plan.with_summary(format!("at most {bytes} bytes")))
/// }
/// # );
/// ```
///
/// [`SharedTable::stage`](crate::SharedTable::stage) creates a stage that looks packets up in a
/// table.
pub struct PlanFn {
    build: BuildFn,
    summary: String,
    tables: Vec<Box<dyn Fn() -> Table + Send + Sync>>,
    acquire: Option<AcquireFn>,
}

impl PlanFn {
    /// Creates a plan from a closure that builds the stage of one worker; see [`StagePlan::build`].
    pub fn new<S: Stage>(build: impl Fn(&BuildCx<'_>) -> S + Send + Sync + 'static) -> Self {
        let build = move |cx: &BuildCx<'_>| Box::new(build(cx)) as Box<dyn Stage>;
        Self { build: Box::new(build), summary: String::new(), tables: Vec::new(), acquire: None }
    }

    /// Sets the description of the stage; see [`StagePlan::summary`].
    pub fn with_summary(mut self, summary: impl Into<String>) -> Self {
        self.summary = summary.into();
        self
    }

    /// Adds an inspection table. The closure creates the table on the control thread, for
    /// `xdpfwd ctl inspect` and the final report.
    pub fn with_table(mut self, table: impl Fn() -> Table + Send + Sync + 'static) -> Self {
        self.tables.push(Box::new(table));
        self
    }

    /// Sets a closure that applies the configuration to state outside the plan, such as a shared
    /// table. The closure runs on the control thread at the start and at each reload, but not for
    /// `--check` or a reload of an invalid file; see [`ResourceOwner::acquire`]. A reload that
    /// fails later does not undo its effect.
    pub fn with_acquire(
        mut self,
        acquire: impl Fn() -> Result<(), ResourceError> + Send + Sync + 'static,
    ) -> Self {
        self.acquire = Some(Box::new(acquire));
        self
    }
}

impl StagePlan for PlanFn {
    fn build(&self, cx: &BuildCx<'_>) -> Box<dyn Stage> {
        (self.build)(cx)
    }

    fn summary(&self) -> String {
        self.summary.clone()
    }

    fn as_inspectable(&self) -> Option<&dyn Inspectable> {
        (!self.tables.is_empty()).then_some(self)
    }

    fn as_resource_owner(&self) -> Option<&dyn ResourceOwner> {
        self.acquire.is_some().then_some(self)
    }
}

impl ResourceOwner for PlanFn {
    fn acquire(&self, _: &[&dyn Any]) -> Result<(), ResourceError> {
        self.acquire.as_ref().map_or(Ok(()), |acquire| acquire())
    }
}

impl Inspectable for PlanFn {
    fn tables(&self, _: &[u64]) -> Vec<Table> {
        self.tables.iter().map(|table| table()).collect()
    }
}

impl fmt::Debug for PlanFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanFn").field("summary", &self.summary).finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::capability::Cell;
    use crate::reason::Reason;
    use crate::shared_table::SharedTable;
    use crate::testing::{Disposition, TestBench};

    #[test]
    fn plan_of_closures_builds_stage_and_table() {
        let longest = SharedTable::new(vec![60_u64]);
        let stage_limit = longest.clone();
        let plan = PlanFn::new(move |cx| {
            assert_eq!(cx.workers, 2);
            stage_limit.stage(|longest, packet, _| match packet.frame.len() as u64 <= longest[0] {
                true => Ok(()),
                false => Err(Reason::POLICY),
            })
        });
        let table_limit = longest.clone();
        let plan = plan.with_summary("at most 60 bytes").with_table(move || {
            let mut table = Table::new("longest", &[("bytes", None)]);
            table.rows.push(table_limit.load().iter().copied().map(Cell::Number).collect());
            table
        });
        assert_eq!(plan.summary(), "at most 60 bytes");
        assert_eq!(format!("{plan:?}"), "PlanFn { summary: \"at most 60 bytes\", .. }");
        let plans: [(&str, Arc<dyn StagePlan>); 1] = [("longest", Arc::new(plan))];
        let mut bench = TestBench::builder().workers(2).plans("lan", "wan", plans).build().unwrap();
        let frames = [60, 61, 60].map(|len| vec![7; len]);
        let dropped = Disposition::dropped(Reason::POLICY);
        let sent = Disposition::sent("wan", frames[0].clone());
        assert_eq!(bench.send_all("lan", &frames), [sent.clone(), dropped, sent]);
        assert_eq!(bench.table("longest").rows, [[Cell::Number(60)]]);
        longest.update(|longest| longest[0] = 61);
        assert_eq!(bench.send("lan", &frames[1]), Disposition::sent("wan", frames[1].clone()));
        assert_eq!(bench.table("longest").rows, [[Cell::Number(61)]]);
    }

    /// Runs on a new thread, because only the first load of a table on a thread could allocate.
    #[cfg(feature = "count-allocations")]
    #[test]
    fn first_load_on_worker_does_not_allocate() {
        let table = SharedTable::new(60_u64);
        let run = move || {
            let plan = PlanFn::new(move |_| {
                table.stage(|longest, packet, _| match packet.frame.len() as u64 <= *longest {
                    true => Ok(()),
                    false => Err(Reason::POLICY),
                })
            });
            let plans: [(&str, Arc<dyn StagePlan>); 1] = [("limit", Arc::new(plan))];
            let mut bench = TestBench::builder().plans("lan", "wan", plans).build().unwrap();
            let frames = [60, 61, 60].map(|len| vec![7; len]);
            assert_eq!(bench.assert_no_allocation("lan", &frames), 2);
        };
        std::thread::spawn(run).join().unwrap();
    }

    #[test]
    fn acquire_runs_before_first_packet_and_its_error_prevents_start() {
        let longest = SharedTable::new(0_u64);
        let plan = |bytes: u64| {
            let [stage_limit, acquire_limit] = [longest.clone(), longest.clone()];
            PlanFn::new(move |_| {
                stage_limit.stage(|longest, packet, _| {
                    match packet.frame.len() as u64 <= *longest {
                        true => Ok(()),
                        false => Err(Reason::POLICY),
                    }
                })
            })
            .with_acquire(move || match bytes {
                0 => Err(ResourceError("0 bytes are too few".to_owned())),
                _ => {
                    acquire_limit.replace(bytes);
                    Ok(())
                }
            })
        };
        let build = |bytes| {
            let plans: [(&str, Arc<dyn StagePlan>); 1] = [("limit", Arc::new(plan(bytes)))];
            TestBench::builder().plans("lan", "wan", plans).build()
        };
        let error = build(0).err().unwrap().to_string();
        assert!(error.contains("0 bytes are too few"), "{error}");
        let sent = build(60).unwrap().send("lan", &[7; 60]);
        assert_eq!(sent, Disposition::sent("wan", vec![7; 60]));
    }

    #[test]
    #[should_panic(expected = "no table is called \"rules\"; the tables are: sessions")]
    fn table_with_unknown_name_panics_and_lists_tables() {
        let plan = PlanFn::new(|_| |_: &mut View<'_>, _: &mut Cx<'_>| ());
        let plan = plan.with_table(|| Table::new("sessions", &[]));
        let plans: [(&str, Arc<dyn StagePlan>); 1] = [("limit", Arc::new(plan))];
        TestBench::builder().plans("lan", "wan", plans).build().unwrap().table("rules");
    }
}
