//! Figures that others published, for paths that cannot be measured here.

use xdpfwd_bench::results::Published;

/// Returns all published figures.
pub(crate) fn published() -> Vec<Published> {
    vec![]
}
