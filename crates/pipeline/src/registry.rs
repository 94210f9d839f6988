//! The kinds of stages that a configuration may name.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserializer;

use crate::plan::{PlanCx, PlanError, StageConfig, StagePlan};

/// A format that stage tables are read from, such as TOML. The registry is generic over it, so that errors keep their
/// type and their position in the file.
pub trait TableFormat: 'static {
    /// The format's own error.
    type Error: serde::de::Error;
    /// Deserializes one table.
    type Deserializer<'de>: Deserializer<'de, Error = Self::Error>;
}

/// Why a stage could not be planned. `E` is the error of the configuration's [`TableFormat`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KindError<E: std::error::Error + 'static> {
    /// There is no such kind.
    #[error("unknown stage kind `{kind}`, expected one of {known}")]
    Unknown {
        /// What was written.
        kind: String,
        /// What would be accepted.
        known: String,
    },
    /// The table does not have the shape that the kind expects.
    #[error(transparent)]
    Parse(E),
    /// The values are invalid.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// The result of planning a stage.
pub type Planned<E> = Result<Arc<dyn StagePlan>, KindError<E>>;

type PlanFn<F> = for<'de> fn(<F as TableFormat>::Deserializer<'de>, &PlanCx<'_>) -> Planned<<F as TableFormat>::Error>;

/// The kinds of stages that a configuration may name, read from tables of the format `F`.
pub struct Registry<F: TableFormat>(BTreeMap<&'static str, PlanFn<F>>);

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
    /// Adds a kind.
    pub fn with<C: StageConfig>(mut self) -> Self {
        self.0.insert(C::KIND, plan_table::<F, C>);
        self
    }

    /// Returns the names of the kinds.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.keys().copied()
    }

    /// Plans a stage of a kind from the rest of its table.
    pub fn plan(&self, kind: &str, table: F::Deserializer<'_>, cx: &PlanCx<'_>) -> Planned<F::Error> {
        let Some(plan) = self.0.get(kind) else {
            let known = self.kinds().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(", ");
            return Err(KindError::Unknown { kind: kind.to_owned(), known });
        };
        plan(table, cx)
    }
}

fn plan_table<F: TableFormat, C: StageConfig>(table: F::Deserializer<'_>, cx: &PlanCx<'_>) -> Planned<F::Error> {
    Ok(C::deserialize(table).map_err(KindError::Parse)?.plan(cx)?)
}
