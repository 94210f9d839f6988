//! Kinds of stages: from what is written in a configuration to a stage at work.
//!
//! A stage's life is the same for ours and for a user's own: its table in the file is *parsed* ([`StageConfig`]), checked
//! and resolved into a *plan* once ([`StageConfig::plan`]), *built* from it for every worker ([`StagePlan::build`]), swapped
//! for a successor between two batches ([`Worker::swap_named`](crate::Worker::swap_named), with
//! [`snapshot`](crate::Stage::snapshot) and [`restore`](crate::Stage::restore) on the way), and
//! [`retired`](crate::Stage::retire).

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use toml::de::ValueDeserializer;

use crate::report::SaReport;
use crate::stage::Stage;
use crate::stages;
use crate::stages::filter::KernelFilter;

/// A stage's table as it is written, without the key `kind`. Derive `Deserialize` with `deny_unknown_fields`.
///
/// ```
/// use std::sync::Arc;
/// use pipeline::{BuildCx, Cx, PlanCx, PlanError, Reason, Registry, Stage, StageConfig, StagePlan, View};
///
/// /// `kind = "longest"`, `bytes = 1000`: drops what is longer.
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct LongestConfig { bytes: u16 }
///
/// #[derive(Clone, Debug)]
/// struct Longest(usize);
///
/// impl StageConfig for LongestConfig {
///     const KIND: &'static str = "longest";
///     fn plan(self, _: &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, PlanError> {
///         if self.bytes < 14 {
///             return Err(PlanError::new(format!("bytes = {}: must be at least 14, an Ethernet header", self.bytes)));
///         }
///         Ok(Arc::new(Longest(self.bytes.into())))
///     }
/// }
///
/// impl StagePlan for Longest {
///     fn build(&self, _: &BuildCx) -> Box<dyn Stage> { Box::new(self.clone()) }
///     fn summary(&self) -> String { format!("at most {} bytes", self.0) }
/// }
///
/// impl Stage for Longest {
///     fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
///         for mut packet in view.packets() {
///             if packet.frame.len() > self.0 { packet.drop(Reason::Policy); }
///         }
///     }
/// }
///
/// let registry = Registry::builtin().with::<LongestConfig>();
/// assert_eq!(registry.kinds().collect::<Vec<_>>(), ["esp-open", "esp-seal", "filter", "longest", "mac-swap", "payload", "set-mac", "ttl"]);
/// ```
pub trait StageConfig: DeserializeOwned {
    /// What `kind = "…"` says.
    const KIND: &'static str;

    /// Checks and resolves it. What takes long (reading rules, compiling them) is done here, once.
    fn plan(self, cx: &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, PlanError>;
}

/// What a stage may know when it is planned.
#[derive(Clone, Copy, Debug)]
pub struct PlanCx<'a> {
    /// The folder that relative file names in the configuration start from.
    pub directory: &'a Path,
    /// Workers that will have a copy of the stage. A limit in the configuration is a total over them.
    pub workers: usize,
}

/// A stage's configuration is no good: all that is wrong, and what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct PlanError(pub Vec<Remark>);

impl PlanError {
    /// One thing that is wrong with the stage as a whole.
    pub fn new(message: impl Into<String>) -> Self {
        Self(vec![Remark { place: Whereabouts::Stage, message: message.into() }])
    }
}

/// Something to be said about a stage's configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// What it is about.
    pub place: Whereabouts,
    /// What there is to say.
    pub message: String,
}

/// A place in what a stage is configured by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// The stage's table as a whole.
    Stage,
    /// Bytes of the configuration file.
    Configuration(Range<usize>),
    /// A place in a file that the configuration names.
    File {
        /// Its name.
        file: String,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
    },
}

impl fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage => f.write_str("the stage"),
            Self::Configuration(bytes) => write!(f, "byte {} of the configuration", bytes.start),
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
        }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Whereabouts::Stage => f.write_str(&self.message),
            place => write!(f, "{place}: {}", self.message),
        }
    }
}

/// A stage, checked and resolved, to be built for each worker.
pub trait StagePlan: Any + Send + Sync + fmt::Debug {
    /// Builds the stage for one worker, on its thread, between two batches: quickly.
    fn build(&self, cx: &BuildCx) -> Box<dyn Stage>;

    /// What it will do, for a person, in a few words.
    fn summary(&self) -> String;

    /// Its rules as they are written, if it has any: what [`Stage::matched`] counts.
    fn rules(&self) -> Option<Vec<String>> {
        None
    }

    /// What there is to warn of.
    fn remarks(&self) -> &[Remark] {
        &[]
    }

    /// What it goes by when it drops packets: two that say the same drop the same. `None`: it drops none. What a filter in the kernel
    /// lets pass relies on it when both change.
    fn judges_by(&self) -> Option<String> {
        let rules = self.rules().unwrap_or_default();
        Some(format!("{}\n{}", self.summary(), rules.join("\n")))
    }

    /// What the XDP program has to know to do its work, if that is possible and asked for.
    fn for_kernel(&self) -> Option<&ForKernel> {
        None
    }

    /// Gets ready what is outside of this process: files that are locked, and written before the first packet. Called once, before
    /// the first [`build`](Self::build), off the data path: it may take its time. `others` are the stages that are there already: of this
    /// configuration, and of the one that runs.
    fn prepare(&self, others: &[Arc<dyn StagePlan>]) -> Result<(), PrepareError> {
        let _ = others;
        Ok(())
    }

    /// Called about once a second, off the data path: for what that must not do, as logging.
    fn look_after(&self) {}

    /// Whether it may be on one path only, and there once: what it keeps cannot be in two places.
    fn is_single(&self) -> bool {
        false
    }

    /// What no two stages of a configuration may both have.
    fn claims(&self) -> Vec<Claim> {
        Vec::new()
    }

    /// Its security associations, as they are now.
    fn sas(&self) -> Vec<SaReport> {
        Vec::new()
    }
}

/// Why a stage cannot work here and now, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PrepareError(pub String);

/// Something that one place of a configuration may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What tells it apart.
    pub id: String,
    /// What it is, for a person.
    pub what: String,
    /// What to do if somebody else has it, too.
    pub instead: &'static str,
}

/// A stage that the XDP program can be, so that what it drops never comes to user space.
#[derive(Clone, Debug)]
pub struct ForKernel {
    /// What the program has to know.
    pub filter: Arc<KernelFilter>,
    /// Whether it has to be there, and nothing is to run if it cannot.
    pub must: bool,
}

/// What a stage may know when it is built.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuildCx {
    /// The number of its worker.
    pub worker: usize,
    /// Workers in all.
    pub workers: usize,
    /// Whether the XDP program does the stage's work, by [`StagePlan::for_kernel`].
    pub in_kernel: bool,
    /// An IPv4 address of the interface that packets come in on.
    pub ipv4: Option<Ipv4Addr>,
    /// An IPv6 address of it.
    pub ipv6: Option<Ipv6Addr>,
}

/// Why a stage could not be planned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KindError {
    /// There is no such kind.
    #[error("unknown stage kind `{kind}`, expected one of {known}")]
    Unknown {
        /// What was written.
        kind: String,
        /// What would be accepted.
        known: String,
    },
    /// The table is not as the kind wants it. The error has the place.
    #[error(transparent)]
    Parse(#[from] toml::de::Error),
    /// The values are no good.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

type PlanFn = fn(ValueDeserializer<'_>, &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, KindError>;

/// The kinds of stages that a configuration may name.
#[derive(Clone, Default)]
pub struct Registry(BTreeMap<&'static str, PlanFn>);

impl Registry {
    /// The kinds that come with this crate.
    pub fn builtin() -> Self {
        Self::default()
            .with::<stages::EspOpenConfig>()
            .with::<stages::EspSealConfig>()
            .with::<stages::FilterConfig>()
            .with::<stages::MacSwapConfig>()
            .with::<stages::PayloadConfig>()
            .with::<stages::SetMacConfig>()
            .with::<stages::TtlConfig>()
    }

    /// The same with one more.
    pub fn with<C: StageConfig>(mut self) -> Self {
        self.0.insert(C::KIND, |table, cx| Ok(C::deserialize(table)?.plan(cx)?));
        self
    }

    /// The names of the kinds.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.keys().copied()
    }

    /// Plans a stage of a kind from the rest of its table.
    pub fn plan(
        &self,
        kind: &str,
        table: ValueDeserializer<'_>,
        cx: &PlanCx<'_>,
    ) -> Result<Arc<dyn StagePlan>, KindError> {
        let Some(plan) = self.0.get(kind) else {
            let known = self.kinds().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(", ");
            return Err(KindError::Unknown { kind: kind.to_owned(), known });
        };
        plan(table, cx)
    }
}
