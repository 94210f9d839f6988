//! `esp-seal` and `esp-open`: IPsec ESP (RFC 4303) between two ports. `docs/esp.md` has what they promise.
//!
//! A configuration becomes a plan (`config`), which has the SAs (`sa`) with their keys at work. Before it is built it is
//! prepared: its state file ([`state_file`]) is locked and written, and SAs that run already are found again. Each worker's stage
//! (`seal`, `open`) makes room around each packet of a batch first, has numbers assigned, and has the whole batch sealed
//! or opened by the crate `ipsec` then.

#[cfg(test)]
mod against_scapy;
mod bypass;
mod config;
pub mod key_file;
mod mss;
mod open;
mod outer;
mod reasons;
mod sa;
mod seal;
mod selector;
mod spi;
pub mod state;
pub mod state_file;
mod too_big;
mod transport;
mod values;

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

pub(crate) use reasons::register as register_reasons;

pub use config::{EspOpenConfig, EspSealConfig};
pub use open::EspOpen;
pub use seal::EspSeal;

use self::open::OpenPlan;
use self::sa::Association;
use self::seal::SealPlan;
use self::state_file::StateFile;
use xdpfwd_pipeline::{ResourceError, StagePlan};

/// The plans that are of one type.
fn as_plans<P: StagePlan>(plans: &[Arc<dyn StagePlan>]) -> impl Iterator<Item = &P> {
    plans.iter().filter_map(|plan| {
        let plan: &dyn Any = &**plan;
        plan.downcast_ref::<P>()
    })
}

/// The state file at a path: the one that another stage has open, or opened now.
fn state(path: &Path, others: &[Arc<dyn StagePlan>]) -> Result<Arc<StateFile>, ResourceError> {
    let seals = as_plans::<SealPlan>(others).filter_map(|plan| plan.0.state.load_full());
    let opens = as_plans::<OpenPlan>(others).filter_map(|plan| plan.0.state.load_full());
    match seals.chain(opens).find(|state| state.is(path)) {
        Some(state) => Ok(state),
        None => StateFile::open(path).map_err(|error| ResourceError(error.to_string())),
    }
}

/// The SAs of stages of one direction, each with its state file.
type InUse<'a> = Vec<(Arc<StateFile>, &'a Association)>;

fn sealing(others: &[Arc<dyn StagePlan>]) -> InUse<'_> {
    let plans = as_plans::<SealPlan>(others).filter_map(|plan| Some((plan.0.state.load_full()?, &plan.0.sas)));
    plans.flat_map(|(state, sas)| sas.iter().map(move |sa| (Arc::clone(&state), &sa.sa))).collect()
}

fn opening(others: &[Arc<dyn StagePlan>]) -> InUse<'_> {
    let plans = as_plans::<OpenPlan>(others).filter_map(|plan| Some((plan.0.state.load_full()?, &plan.0.sas)));
    plans.flat_map(|(state, sas)| sas.iter().map(move |sa| (Arc::clone(&state), &sa.sa))).collect()
}

/// A key stays with the file that has its numbers, as another one does not know which were used, or received; and with its direction, as
/// the peer has used its numbers in the other one.
fn stay(path: &Path, own: &Association, same: &InUse<'_>, other: &InUse<'_>) -> Result<(), ResourceError> {
    let spi = own.spi;
    if let Some((state, _)) = same.iter().find(|(state, sa)| sa.identity == own.identity && !state.is(path)) {
        return Err(ResourceError(format!(
            "the key of SA {spi:#x} is in use with the state file {}, which has its numbers: leave it there, or take a new key \
             (`xdpfwd esp new-key`)",
            state.path().display()
        )));
    }
    if other.iter().any(|(_, sa)| sa.identity == own.identity) {
        return Err(ResourceError(format!(
            "the key of SA {spi:#x} is in use in the other direction, where the peer has its numbers: take a new key \
             (`xdpfwd esp new-key`)"
        )));
    }
    Ok(())
}

/// RFC 8221, section 4, forbids static keys in production: every start warns of them.
fn warn_of_static_keys<'a>(sas: impl Iterator<Item = &'a Association>) {
    for sa in sas {
        tracing::warn!(
            spi = format_args!("{:#x}", sa.spi),
            transform = sa.transform.name(),
            fingerprint = %sa.fingerprint,
            "lab = true: the key of this SA is static, which is for laboratories only (RFC 8221, 4)"
        );
    }
}

/// What a stage does, for a person.
fn summary<'a>(does: &str, sas: impl Iterator<Item = &'a Association>) -> String {
    /// SAs that are named.
    const NAMED: usize = 3;
    let all: Vec<String> =
        sas.map(|sa| format!("{:#x} ({} {})", sa.spi, sa.transform.name(), sa.mode.name())).collect();
    let more = all.len().saturating_sub(NAMED);
    let named = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{does} ESP: SA {named}{rest}")
}
