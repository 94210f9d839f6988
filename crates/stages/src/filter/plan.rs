//! The plan of a filter, shared by all workers.

use std::sync::Arc;

use xdpfwd_filter::Verdict;
use xdpfwd_pipeline::{
    BuildCx, Cell, Inspectable, LongTable, PlanDiagnostic, Stage, StagePlan, Table, Verdicts,
    XdpOffload,
};

use super::kernel::{Offload, PassThrough};
use super::program::Program;
use super::rules;
use super::stage::Filter;

/// The compiled filter, and its image for the XDP program.
#[derive(Debug)]
pub struct FilterPlan {
    pub(super) program: Arc<Program>,
    pub(super) warnings: Vec<PlanDiagnostic>,
    /// `None` if the filter cannot run in the XDP program.
    pub(super) offload: Option<Offload>,
    /// Why the XDP program cannot run a filter with `place = "auto"`.
    pub(super) not_in_kernel: Option<String>,
}

impl StagePlan for FilterPlan {
    fn build(&self, cx: &BuildCx<'_>) -> Box<dyn Stage> {
        if cx.in_kernel {
            return Box::new(PassThrough);
        }
        Box::new(Filter::new(Arc::clone(&self.program)))
    }

    fn summary(&self) -> String {
        let Program { rules, default, classifier, .. } = &*self.program;
        let default = if *default == Verdict::Accept { "accept" } else { "drop" };
        let shape = classifier.shape();
        let tuples = shape.v4.len() + shape.v6.len();
        // A tuple is a hash table of the classifier.
        let lookup = if tuples == 0 {
            "compared one by one".to_owned()
        } else {
            format!("in {tuples} tuples")
        };
        let reason = self
            .not_in_kernel
            .as_ref()
            .map_or(String::new(), |reason| format!("; not in the kernel: {reason}"));
        format!(
            "{} rules {lookup}, {} KiB; default {default}{reason}",
            rules.len(),
            shape.memory.div_ceil(1024)
        )
    }

    fn warnings(&self) -> &[PlanDiagnostic] {
        &self.warnings
    }

    fn verdicts(&self) -> Verdicts {
        Verdicts::Key(self.program.verdict_key())
    }

    fn as_xdp_offload(&self) -> Option<&dyn XdpOffload> {
        self.offload.as_ref().map(|offload| offload as &dyn XdpOffload)
    }

    fn as_inspectable(&self) -> Option<&dyn Inspectable> {
        Some(self)
    }
}

impl Inspectable for FilterPlan {
    fn counter_keys(&self) -> Vec<String> {
        rules::counter_keys(&self.program.rules)
    }

    fn tables(&self, counters: &[u64]) -> Vec<Table> {
        vec![rules::table(&self.program.rules, counters)]
    }

    fn as_long_table(&self) -> Option<&dyn LongTable> {
        Some(self)
    }
}

impl LongTable for FilterPlan {
    fn head(&self) -> Table {
        rules::head()
    }

    fn row_count(&self) -> usize {
        self.program.rules.len() + 1
    }

    fn key(&self, row: usize) -> String {
        rules::key(&self.program.rules, row)
    }

    fn row(&self, row: usize, counter: u64) -> Vec<Cell> {
        rules::row(&self.program.rules, row, counter)
    }
}

impl FilterPlan {
    /// Returns the compiled filter.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }
}
