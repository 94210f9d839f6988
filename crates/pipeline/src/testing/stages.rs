//! Stages for a path of a test bench.

use crate::chain::{NamedStage, short_name};
use crate::stage::Stage;

/// One stage, a tuple of up to eight stages, or a vector of [`NamedStage`]s.
///
/// A stage that is not a `NamedStage` is named after its type, such as `MaxLength`. The empty tuple
/// forwards every packet unchanged.
pub trait IntoStages {
    /// Returns the stages with their names.
    fn into_stages(self) -> Vec<NamedStage>;
}

impl IntoStages for Vec<NamedStage> {
    fn into_stages(self) -> Vec<NamedStage> {
        self
    }
}

impl IntoStages for NamedStage {
    fn into_stages(self) -> Vec<NamedStage> {
        vec![self]
    }
}

impl<S: Stage> IntoStages for S {
    fn into_stages(self) -> Vec<NamedStage> {
        vec![NamedStage::new(short_name::<S>(), self)]
    }
}

macro_rules! tuple_of_stages {
    ($($stage:ident $index:tt),*) => {
        impl<$($stage: Stage),*> IntoStages for ($($stage,)*) {
            fn into_stages(self) -> Vec<NamedStage> {
                vec![$(NamedStage::new(short_name::<$stage>(), self.$index)),*]
            }
        }
    };
}

tuple_of_stages!();
tuple_of_stages!(A 0);
tuple_of_stages!(A 0, B 1);
tuple_of_stages!(A 0, B 1, C 2);
tuple_of_stages!(A 0, B 1, C 2, D 3);
tuple_of_stages!(A 0, B 1, C 2, D 3, E 4);
tuple_of_stages!(A 0, B 1, C 2, D 3, E 4, F 5);
tuple_of_stages!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple_of_stages!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
