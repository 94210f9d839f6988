//! The stage kinds that a configuration can use.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserializer;
use serde::de::DeserializeOwned;

use crate::plan::{PlanCx, PlanError, StageConfig, StagePlan};

/// A file format of stage configurations, such as TOML. A [`Registry`] returns the deserializer's
/// errors unchanged, so they keep their location in the file.
pub trait TableFormat: 'static {
    /// The error of the format's deserializer.
    type Error: serde::de::Error;
    /// The deserializer of one table.
    type Deserializer<'de>: Deserializer<'de, Error = Self::Error>;
}

/// Why a stage could not be planned. `E` is the error of the configuration's [`TableFormat`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StagePlanError<E: std::error::Error + 'static> {
    /// The kind does not exist.
    #[error("unknown stage kind `{kind}`, expected one of {known}")]
    Unknown {
        /// The kind in the configuration.
        kind: String,
        /// The accepted kinds.
        known: String,
    },
    /// The table does not match the configuration type of the kind.
    #[error(transparent)]
    Parse(E),
    /// The values in the table are invalid.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// The result of planning a stage.
pub type PlanResult<E> = Result<Arc<dyn StagePlan>, StagePlanError<E>>;

/// A function that plans a stage of one kind from its table in the configuration file.
type KindPlanner<F> = dyn for<'de> Fn(
        <F as TableFormat>::Deserializer<'de>,
        &PlanCx<'_>,
    ) -> PlanResult<<F as TableFormat>::Error>
    + Send
    + Sync;

/// The stage kinds that a configuration can use, by name, with tables of the format `F`.
pub struct Registry<F: TableFormat>(BTreeMap<&'static str, Arc<KindPlanner<F>>>);

impl<F: TableFormat> Clone for Registry<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F: TableFormat> Default for Registry<F> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<F: TableFormat> Registry<F> {
    /// Adds or replaces the kind [`StageConfig::KIND`].
    pub fn with<C: StageConfig>(mut self) -> Self {
        let plan = |table: F::Deserializer<'_>, cx: &PlanCx<'_>| -> PlanResult<F::Error> {
            Ok(C::deserialize(table).map_err(StagePlanError::Parse)?.plan(cx)?)
        };
        self.0.insert(C::KIND, Arc::new(plan));
        self
    }

    /// Adds or replaces a kind of stages with a closure that creates their plans. The stages can
    /// share values that the closure captures, such as a session table. `C` is the stage's table in
    /// the configuration file, without `kind`. The closure runs on the control thread, once per
    /// stage at the start and at each reload.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::AtomicU64;
    /// # use xdpfwd_pipeline::{BuildCx, Cx, PlanCx, Registry, Stage, StagePlan, TableFormat, View};
    ///
    /// #[derive(serde::Deserialize)]
    /// #[serde(deny_unknown_fields)]
    /// struct CountConfig {}
    ///
    /// #[derive(Debug)]
    /// struct CountPlan(Arc<AtomicU64>);
    ///
    /// # impl Stage for CountPlan { fn process(&mut self, _: &mut View<'_>, _: &mut Cx<'_>) {} }
    /// impl StagePlan for CountPlan {
    ///     fn build(&self, _: &BuildCx<'_>) -> Box<dyn Stage> {
    ///         /* … */
    /// #       Box::new(Self(self.0.clone()))
    ///     }
    ///     fn summary(&self) -> String { "counts".into() }
    /// }
    ///
    /// fn register<F: TableFormat>(registry: Registry<F>, total: Arc<AtomicU64>) -> Registry<F> {
    ///     registry.with_fn("count", move |_: CountConfig, _| Ok(CountPlan(total.clone())))
    /// }
    /// ```
    pub fn with_fn<C, P>(
        mut self,
        kind: &'static str,
        plan: impl Fn(C, &PlanCx<'_>) -> Result<P, PlanError> + Send + Sync + 'static,
    ) -> Self
    where
        C: DeserializeOwned,
        P: StagePlan,
    {
        let plan = move |table: F::Deserializer<'_>, cx: &PlanCx<'_>| -> PlanResult<F::Error> {
            Ok(Arc::new(plan(C::deserialize(table).map_err(StagePlanError::Parse)?, cx)?))
        };
        self.0.insert(kind, Arc::new(plan));
        self
    }

    /// Adds or replaces all kinds of another registry.
    pub fn with_all(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Returns the kinds.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.keys().copied()
    }

    /// Plans a stage of this kind. `table` is the stage's table without the key `kind`.
    pub fn plan(
        &self,
        kind: &str,
        table: F::Deserializer<'_>,
        cx: &PlanCx<'_>,
    ) -> PlanResult<F::Error> {
        let Some(plan) = self.0.get(kind) else {
            let known = self.kinds().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(", ");
            return Err(StagePlanError::Unknown { kind: kind.to_owned(), known });
        };
        plan(table, cx)
    }
}
