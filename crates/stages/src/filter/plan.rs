//! The plan of a filter, shared by all workers.

use std::path::PathBuf;
use std::sync::Arc;

use xdpfwd_filter::Verdict;
use xdpfwd_pipeline::{
    BuildCx, Cell, Inspectable, LongTable, PlanDiagnostic, Stage, StagePlan, Table, Verdicts,
    XdpOffload,
};

use super::exception::{self, ExceptionAction, PacketException};
use super::kernel::{Offload, PassThrough};
use super::program::Program;
use super::rules;
use super::stage::Filter;

/// The compiled filter, and its image for the XDP program.
#[derive(Debug)]
pub struct FilterPlan {
    pub(super) program: Arc<Program>,
    /// The rule file, if there is one.
    pub(super) file: Option<PathBuf>,
    pub(super) warnings: Vec<PlanDiagnostic>,
    /// `None` if the filter runs only in user space.
    pub(super) offload: Option<Offload>,
    /// With `place = "auto"`: why the XDP program cannot run this filter.
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
        // One hash table lookup searches the rules of a tuple.
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

    fn files(&self) -> Vec<PathBuf> {
        self.file.iter().cloned().collect()
    }

    fn verdicts(&self) -> Verdicts {
        Verdicts::Key(self.program.verdict_key())
    }

    fn settings(&self) -> Vec<(&'static str, &'static str)> {
        let actions = self.program.exceptions.0.map(ExceptionAction::name);
        let configuration_keys = PacketException::WITH_KEY.map(PacketException::key);
        configuration_keys.into_iter().zip(actions).collect()
    }

    fn needs_vlan_tags(&self) -> bool {
        self.program.rules.iter().any(|rule| rule.matches.compares_vlans())
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
        let mut keys = rules::counter_keys(&self.program.rules);
        keys.extend(exception::counter_keys());
        keys
    }

    fn tables(&self, counters: &[u64]) -> Vec<Table> {
        let rules = &self.program.rules;
        let after_default = counters.get(rules.len() + 1..).unwrap_or_default();
        vec![rules::table(rules, counters), exception::table(after_default)]
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

    fn other_counter_keys(&self) -> Vec<String> {
        exception::counter_keys().collect()
    }

    fn other_tables(&self, counters: &[u64]) -> Vec<Table> {
        vec![exception::table(counters)]
    }
}

impl FilterPlan {
    /// Returns the compiled filter.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }
}
