//! The plans of `esp-seal` and `esp-open`. On the control thread, a plan acquires its state file,
//! shares the state of SAs with other plans, logs warnings, and returns the inspection table.

use std::any::Any;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use xdpfwd_ipsec::Ivs;
use xdpfwd_pipeline::{
    ExclusiveResource, Inspectable, Maintained, PlanDiagnostic, ResourceError, ResourceOwner, Table,
};
use xdpfwd_wire::icmp;

use super::bypass::Bypass;
use super::private_file::{has_swap, lock_memory};
use super::sa::{self, Association, Inbound, Outbound, SecurityAssociation};
use super::spi::SpiTable;
use super::state_file::{ClosedState, IvRange, StateFile};

pub(super) struct Plan<D: StageDirection>(pub(super) Arc<Settings<D>>);

/// The settings and SAs that an ESP stage's workers share.
pub(super) struct Settings<D: StageDirection> {
    pub(super) sas: Vec<D::Sa>,
    pub(super) bypass: Bypass,
    pub(super) tcp_mss: Option<u16>,
    pub(super) state_path: PathBuf,
    /// `None` before `acquire` and after `release`.
    pub(super) state: ArcSwapOption<StateFile>,
    /// The state file after `release`, to report its fault.
    pub(super) closed: OnceLock<ClosedState>,
    /// Also set by an `acquire` that failed; stays set after `release`.
    pub(super) was_acquired: AtomicBool,
    /// The SAs' keys, as resources that no other SA may use.
    pub(super) exclusive_keys: Vec<ExclusiveResource>,
    pub(super) key_files: Vec<PathBuf>,
    pub(super) warnings: Vec<PlanDiagnostic>,
    pub(super) direction: D,
}

/// The direction of an ESP stage, with the settings that only this direction has.
pub(super) trait StageDirection: Sized + Send + Sync + 'static {
    type Sa: SecurityAssociation;
    type Opposite: StageDirection;
    /// The verb in the stage's summary.
    const VERB: &'static str;
    /// Whether a stage of this direction may appear at most once over all paths.
    const IS_EXCLUSIVE: bool;

    fn maintain(&self, _state_path: &Path) {}
}

pub(super) struct Seal {
    /// Maximum length of an encapsulated packet, in bytes.
    pub(super) mtu: usize,
    pub(super) icmp_sources: icmp::Sources,
    /// Maximum ICMP messages per second, over all workers.
    pub(super) icmp_rate: u32,
    /// Whether a worker has found no free IV range since the last `maintain`.
    pub(super) lacks_iv_range: AtomicBool,
}

pub(super) struct Open {
    pub(super) by_spi: SpiTable,
    pub(super) udp_ports: Vec<u16>,
}

impl StageDirection for Seal {
    type Sa = Outbound;
    type Opposite = Open;
    const VERB: &'static str = "seals";
    const IS_EXCLUSIVE: bool = false;

    fn maintain(&self, state_path: &Path) {
        if self.lacks_iv_range.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                state_file = %state_path.display(),
                "a worker has no IV range, so it drops packets as state_file; a state file has {} \
                 ranges, one for each worker and path that seals; configure another state file, \
                 and other keys, for some paths",
                Ivs::WORKERS
            );
        }
    }
}

impl StageDirection for Open {
    type Sa = Inbound;
    type Opposite = Seal;
    const VERB: &'static str = "opens";
    /// An anti-replay window belongs to one worker of one stage.
    const IS_EXCLUSIVE: bool = true;
}

impl Settings<Seal> {
    /// Returns `None` if no range is free. Never waits.
    pub(super) fn iv_range(&self) -> Option<IvRange> {
        self.state.load().as_ref().and_then(StateFile::iv_range)
    }
}

impl<D: StageDirection> Plan<D> {
    /// Describes the stage in one line.
    pub(super) fn describe(&self) -> String {
        const MAX_NAMED: usize = 3;
        let name = |sa: &D::Sa| {
            let Association { spi, transform, mode, .. } = sa.association();
            let mode: &str = mode.into();
            format!("{spi:#x} ({} {mode})", transform.name())
        };
        let sas = &self.0.sas;
        let named = sas.iter().take(MAX_NAMED).map(name).collect::<Vec<_>>().join(", ");
        let others = match sas.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{} ESP: SA {named}{others}", D::VERB)
    }

    pub(super) fn file_names(&self) -> Vec<PathBuf> {
        let Settings { key_files, state_path, .. } = &*self.0;
        key_files.iter().chain([state_path]).cloned().collect()
    }

    /// Returns a key for each SA. SAs with equal keys drop the same packets.
    pub(super) fn verdict_keys(&self) -> Vec<String> {
        self.0.sas.iter().map(D::Sa::verdict_key).collect()
    }
}

impl<D: StageDirection> ResourceOwner for Plan<D> {
    fn acquire(&self, others: &[&dyn Any]) -> Result<(), ResourceError> {
        let Settings { sas, state_path, was_acquired, .. } = &*self.0;
        // The SAs keep the numbers of the file that was acquired first, which may be closed by now.
        if was_acquired.swap(true, Ordering::Relaxed) {
            let message = "the plan of an ESP stage can acquire its state file only once; plan the \
                           stage again";
            return Err(ResourceError(message.to_owned()));
        }
        let (same_direction, opposite_direction) =
            (sas_in_use::<D>(others), sas_in_use::<D::Opposite>(others));
        for sa in sas {
            check_key(state_path, sa.association(), &same_direction, &opposite_direction)?;
        }
        check_memory_lock()?;
        let state = state_file::<D>(state_path, others)?;
        for sa in sas {
            let others = plans::<D>(others).flat_map(|plan| &plan.0.sas);
            sa.acquire(&state, others).map_err(|error| ResourceError(error.to_string()))?;
        }
        self.0.state.store(Some(state));
        warn_of_static_keys(sas.iter().map(D::Sa::association));
        Ok(())
    }

    fn release(&self) {
        if let Some(state) = self.0.state.swap(None) {
            let _ = self.0.closed.set(state.close());
        }
    }

    fn fault(&self) -> Option<String> {
        match (self.0.state.load().as_ref(), self.0.closed.get()) {
            (Some(state), _) => state.fault(),
            (None, closed) => closed?.fault(),
        }
    }

    fn exclusive_resources(&self) -> Vec<ExclusiveResource> {
        self.0.exclusive_keys.clone()
    }

    fn is_exclusive(&self) -> bool {
        D::IS_EXCLUSIVE
    }
}

impl<D: StageDirection> Maintained for Plan<D> {
    fn maintain(&self) {
        self.0.sas.iter().for_each(D::Sa::maintain);
        self.0.direction.maintain(&self.0.state_path);
    }
}

impl<D: StageDirection> Inspectable for Plan<D> {
    fn tables(&self, _: &[u64]) -> Vec<Table> {
        let fault = self.fault();
        let status = |sa: &D::Sa| sa.status().with_fault(fault.clone());
        vec![sa::table(self.0.sas.iter().map(status))]
    }
}

impl<D: StageDirection> fmt::Debug for Plan<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Plan").field(&self.describe()).finish()
    }
}

fn plans<'p, D: StageDirection>(plans: &[&'p dyn Any]) -> impl Iterator<Item = &'p Plan<D>> {
    plans.iter().filter_map(|plan| plan.downcast_ref())
}

fn state_files<D: StageDirection>(others: &[&dyn Any]) -> impl Iterator<Item = Arc<StateFile>> {
    plans::<D>(others).filter_map(|plan| plan.0.state.load_full())
}

/// Returns the file that a plan among `others` has open, or opens it.
fn state_file<D: StageDirection>(
    path: &Path,
    others: &[&dyn Any],
) -> Result<Arc<StateFile>, ResourceError> {
    let mut open = state_files::<D>(others).chain(state_files::<D::Opposite>(others));
    match open.find(|state| state.is_at(path)) {
        Some(state) => Ok(state),
        None => StateFile::open(path).map_err(|error| ResourceError(error.to_string())),
    }
}

/// Each SA with its open state file.
type SasInUse<'a> = Vec<(Arc<StateFile>, &'a Association)>;

fn sas_in_use<'p, D: StageDirection>(others: &[&'p dyn Any]) -> SasInUse<'p> {
    let plans =
        plans::<D>(others).filter_map(|plan| Some((plan.0.state.load_full()?, &plan.0.sas)));
    plans
        .flat_map(|(state, sas)| sas.iter().map(move |sa| (Arc::clone(&state), sa.association())))
        .collect()
}

/// Checks that an SA's key is not in use with another state file, or in the opposite direction.
/// Otherwise sequence numbers and IVs could repeat: only the other file records the used ones, and
/// in the opposite direction, the peer assigns them.
fn check_key(
    path: &Path,
    new: &Association,
    same_direction: &SasInUse<'_>,
    opposite_direction: &SasInUse<'_>,
) -> Result<(), ResourceError> {
    let spi = new.spi;
    let in_other_file =
        same_direction.iter().find(|(state, sa)| sa.identity == new.identity && !state.is_at(path));
    if let Some((state, _)) = in_other_file {
        return Err(ResourceError(format!(
            "the key of SA {spi:#x} is in use with the state file {}, which records the used \
             sequence numbers; keep that state file, or create a new key (xdpfwd esp new-key)",
            state.path().display()
        )));
    }
    if opposite_direction.iter().any(|(_, sa)| sa.identity == new.identity) {
        return Err(ResourceError(format!(
            "the key of SA {spi:#x} is in use in the other direction, where the peer assigns the \
             sequence numbers; create a new key (xdpfwd esp new-key)"
        )));
    }
    Ok(())
}

/// Locks the keys in memory again, because the code that reads the key files ignores a failure to
/// lock them. Returns an error only if the machine has swap space.
fn check_memory_lock() -> Result<(), ResourceError> {
    let Err(error) = lock_memory() else { return Ok(()) };
    let message = format!(
        "the keys cannot be locked in memory, so they could be written to swap space: {error}; \
         grant the capability cap_ipc_lock, or run: ulimit -l unlimited (systemd: \
         LimitMEMLOCK=infinity)"
    );
    if has_swap() {
        return Err(ResourceError(message));
    }
    tracing::warn!("{message}. This machine has no swap space now");
    Ok(())
}

/// Logs a warning for each SA: RFC 8221, section 4, forbids static keys in production.
fn warn_of_static_keys<'a>(sas: impl Iterator<Item = &'a Association>) {
    for sa in sas {
        tracing::warn!(
            spi = format_args!("{:#x}", sa.spi),
            transform = sa.transform.name(),
            fingerprint = %sa.fingerprint,
            "the key of this SA is static, which is for laboratories only (RFC 8221, 4)"
        );
    }
}
