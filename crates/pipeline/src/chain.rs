//! Chains of stages: tuples of types known at compile time, or vectors built from a configuration
//! file.

use std::any::TypeId;

use crate::plan::{BuildCx, StagePlan};
use crate::stage::Stage;

/// A sequence of stages.
///
/// A tuple of stages, such as `(Count::default(), MacSwap)`, is compiled as one piece of code. A
/// vector of [`NamedStage`]s, known only at run time, costs one virtual call per stage and batch.
/// The empty tuple forwards every packet unchanged.
pub trait Chain {
    /// Visits each stage in order, until the visitor returns false.
    fn walk(&mut self, visitor: &mut impl Visitor);

    /// Returns the names of the stages, in order.
    fn names(&self) -> Vec<String>;
}

/// A visitor of the stages in a [`Chain`].
pub trait Visitor {
    /// Visits the stage at an index. Returns whether to visit the next stage.
    fn visit(&mut self, index: usize, stage: &mut impl Stage) -> bool;
}

pub(crate) struct EachStage<F>(pub(crate) F);

impl<F: FnMut(usize, &mut dyn Stage)> Visitor for EachStage<F> {
    fn visit(&mut self, index: usize, stage: &mut impl Stage) -> bool {
        self.0(index, stage);
        true
    }
}

/// A stage with its name in the configuration.
pub struct NamedStage {
    /// The name.
    pub name: String,
    /// The stage.
    pub stage: Box<dyn Stage>,
    /// The type of the stage ([`new`](Self::new)) or of its plan ([`build`](Self::build)). On a
    /// reload, a stage takes over counters and state only from an old stage of the same type.
    kind: TypeId,
}

impl NamedStage {
    /// Creates a named stage.
    pub fn new<S: Stage>(name: impl Into<String>, stage: S) -> Self {
        Self { name: name.into(), stage: Box::new(stage), kind: TypeId::of::<S>() }
    }

    /// Builds a stage from its plan.
    pub fn build(name: impl Into<String>, plan: &dyn StagePlan, cx: &BuildCx<'_>) -> Self {
        Self { name: name.into(), stage: plan.build(cx), kind: plan.type_id() }
    }

    pub(crate) fn kind(&self) -> TypeId {
        self.kind
    }
}

impl Chain for Vec<NamedStage> {
    #[inline]
    fn walk(&mut self, visitor: &mut impl Visitor) {
        for (index, named) in self.iter_mut().enumerate() {
            if !visitor.visit(index, &mut named.stage) {
                return;
            }
        }
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|named| named.name.clone()).collect()
    }
}

/// Returns the name of a type, without its module and its generic arguments.
pub(crate) fn short_name<T>() -> String {
    let path = std::any::type_name::<T>();
    path.split('<').next().and_then(|path| path.rsplit("::").next()).unwrap_or(path).to_owned()
}

macro_rules! tuple_chain {
    ($($stage:ident $index:tt),*) => {
        impl<$($stage: Stage),*> Chain for ($($stage,)*) {
            #[inline]
            fn walk(&mut self, visitor: &mut impl Visitor) {
                $(if !visitor.visit($index, &mut self.$index) { return; })*
                let _ = visitor; // unused in the empty tuple
            }

            fn names(&self) -> Vec<String> {
                vec![$(short_name::<$stage>()),*]
            }
        }
    };
}

tuple_chain!();
tuple_chain!(A 0);
tuple_chain!(A 0, B 1);
tuple_chain!(A 0, B 1, C 2);
tuple_chain!(A 0, B 1, C 2, D 3);
tuple_chain!(A 0, B 1, C 2, D 3, E 4);
tuple_chain!(A 0, B 1, C 2, D 3, E 4, F 5);
tuple_chain!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple_chain!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
