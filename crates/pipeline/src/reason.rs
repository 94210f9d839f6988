//! Drop reasons and their counters.

use std::fmt;
use std::ops::{AddAssign, Index};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Why a packet was dropped. User space counts every drop under one reason;
/// [`xdpfwd_xsk::KernelCounters`] counts the kernel's losses.
///
/// The constants are reasons of the worker, or shared by stages. A stage registers its own as
/// [`DropReason`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(u8);

/// Maximum number of reasons in a process. [`Drops`] has a counter for each, so counting never
/// allocates.
pub const MAX_REASONS: usize = 256;

/// Name and description of each registered reason, indexed by number. Empty for the numbers of the
/// predefined reasons, which [`CORE`] describes.
static REASONS: [OnceLock<(&'static str, &'static str)>; MAX_REASONS] =
    [const { OnceLock::new() }; MAX_REASONS];

/// Number of registered reasons, without the predefined ones. The lock serializes registrations.
static REGISTERED: Mutex<usize> = Mutex::new(0);

macro_rules! core_reasons {
    ($($number:literal $constant:ident $name:literal $description:literal)+) => {
        impl Reason {
            $(#[doc = $description] pub const $constant: Self = Self($number);)+
        }

        /// The predefined reasons.
        const CORE: &[(&str, &str)] = &[$(($name, $description)),+];

        // Checks that the number of each reason is its index in `CORE`.
        const _: () = {
            let mut next = 0;
            $(assert!($number == next); next += 1;)+
            assert!(next as usize == CORE.len());
        };
    };
}

core_reasons! {
    0 EGRESS_FULL "egress_full"
        "The egress queue was full: more packets arrived than the port could send."
    1 POLICY "policy" "A rule of a stage rejected a well-formed packet."
    2 TTL_EXPIRED "ttl_expired" "The TTL (RFC 791) or hop limit (RFC 8200) was used up."
    3 MALFORMED "malformed" "A header that a stage needs is truncated or contradicts itself."
    4 NOT_IP "not_ip" "The packet is not IP, and a stage accepts only IP."
    5 VLAN_STACK "vlan_stack" "The packet has more VLAN tags than are parsed."
    6 EXTENSION_CHAIN "extension_chain"
        "The packet has more IPv6 extension headers than are parsed (RFC 8200, section 4)."
    7 IP_OPTIONS "ip_options"
        "The packet has IPv4 options (RFC 791, section 3.1), and a stage rejects them."
    8 LATER_FRAGMENT "later_fragment"
        "The packet is a fragment other than the first, so it has no ports to match."
    9 RATE_LIMIT "rate_limit" "The packet exceeds a rate limit."
    10 SIGNATURE "signature"
        "A signature matched the payload, or a required signature did not match."
    11 RUNT "runt" "The frame was shorter than an Ethernet header when it was queued for sending."
    12 NO_SUCH_PORT "no_such_port"
        "A stage sent the packet to a port that this worker does not have."
    13 NO_ROOM "no_room" "A stage needed more headroom or tailroom than the frame has."
    14 HOLD_QUOTA "hold_quota"
        "A stage tried to hold more frames than the quota: a quarter of the worker's frames, for \
         all its stages together."
    15 FOREIGN_FRAME "foreign_frame" "A stage used a frame of another UMEM: a bug in the stage."
    16 SHUTDOWN "shutdown" "The worker stopped before the packet was sent."
    17 UNREGISTERED "unregistered"
        "A stage used a drop reason that it had not registered: a bug in the stage."
    18 ROUTING_HEADER "routing_header"
        "The packet has an IPv6 routing header with segments left (RFC 8200, section 4.4), and a \
         stage rejects it."
    19 PORT_DOWN "port_down"
        "The egress port was down: it had lost its interface, or was being opened again."
}

impl Reason {
    /// Registers a reason, or returns the existing one with this name and description.
    ///
    /// Call it in [`StageConfig::plan`](crate::StageConfig::plan). For a name known at compile
    /// time, a static [`DropReason`] is simpler. The name, 1 to 40 characters `[a-z0-9_]`, is the
    /// key in the report's `drops`. Reasons are never unregistered.
    pub fn register(name: &str, description: &str) -> Result<Self, ReasonError> {
        if name.is_empty()
            || name.len() > 40
            || !name.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        {
            return Err(ReasonError::Name(name.to_owned()));
        }
        let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        let count = CORE.len() + *registered;
        if let Some(existing) =
            (0..count).map(|number| Self(number as u8)).find(|reason| reason.name() == name)
        {
            return match existing.description() == description {
                true => Ok(existing),
                false => Err(ReasonError::Taken {
                    name: name.to_owned(),
                    description: existing.description(),
                }),
            };
        }
        let Some(entry) = REASONS.get(count) else {
            return Err(ReasonError::Full(name.to_owned()));
        };
        // Leaks at most `MAX_REASONS` names, as a reason lives as long as the process.
        let entry_is_new = entry
            .set((String::leak(name.to_owned()), String::leak(description.to_owned())))
            .is_ok();
        debug_assert!(entry_is_new, "the entry of the new reason was already set");
        *registered += 1;
        Ok(Self(count as u8))
    }

    /// Returns the number of the reason, unique in this process only.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Returns the name in reports.
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// Returns a sentence that explains the reason.
    pub fn description(self) -> &'static str {
        self.entry().1
    }

    fn entry(self) -> (&'static str, &'static str) {
        match CORE.get(usize::from(self.0)) {
            Some(core) => *core,
            None => REASONS[usize::from(self.0)]
                .get()
                .copied()
                .unwrap_or(("unregistered", "An unregistered reason.")),
        }
    }

    /// Returns the predefined reasons and those registered so far.
    pub fn all() -> impl Iterator<Item = Self> {
        let registered = *REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        (0..CORE.len() + registered).map(|number| Self(number as u8))
    }
}

/// Why a reason could not be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReasonError {
    /// The name is invalid.
    #[error("drop reason name {0:?} is invalid; use 1 to 40 characters out of a-z, 0-9 and _")]
    Name(String),
    /// A reason with the same name and another description exists.
    #[error(
        "drop reason {name:?} is already registered, with another description ({description:?}); \
         choose another name"
    )]
    Taken {
        /// The name.
        name: String,
        /// The description of the existing reason.
        description: &'static str,
    },
    /// All [`MAX_REASONS`] numbers are in use.
    #[error(
        "cannot register drop reason {0:?}: the process has {MAX_REASONS} drop reasons, which is \
         the limit"
    )]
    Full(String),
}

/// A stage's drop reason, declared as a static and registered when the stage is planned.
///
/// ```
/// use xdpfwd_pipeline::{DropReason, Reason};
///
/// static NO_SESSION: DropReason = DropReason::new("no_session", "No session has this TEID.");
///
/// let reason: Reason = NO_SESSION.register()?; // in `StageConfig::plan`
/// assert_eq!(reason, NO_SESSION.reason()); // on the data path
/// # Ok::<(), xdpfwd_pipeline::ReasonError>(())
/// ```
#[derive(Debug)]
pub struct DropReason {
    name: &'static str,
    description: &'static str,
    /// [`Reason::UNREGISTERED`] before `register`.
    number: AtomicU8,
}

impl DropReason {
    /// Declares a reason. See [`Reason::register`] for valid names.
    pub const fn new(name: &'static str, description: &'static str) -> Self {
        Self { name, description, number: AtomicU8::new(Reason::UNREGISTERED.0) }
    }

    /// Registers the reason. Takes a lock: call it before the first packet. Repeated calls return
    /// the same reason.
    pub fn register(&self) -> Result<Reason, ReasonError> {
        let reason = Reason::register(self.name, self.description)?;
        self.number.store(reason.0, Ordering::Relaxed);
        Ok(reason)
    }

    /// Returns the registered reason; [`Reason::UNREGISTERED`] before [`register`](Self::register).
    #[inline]
    pub fn reason(&self) -> Reason {
        Reason(self.number.load(Ordering::Relaxed))
    }

    /// Returns the name in reports.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns a sentence that explains the reason.
    pub const fn description(&self) -> &'static str {
        self.description
    }
}

impl From<&DropReason> for Reason {
    #[inline]
    fn from(reason: &DropReason) -> Self {
        reason.reason()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Drop counters, one for each reason.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Drops([u64; MAX_REASONS]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; MAX_REASONS])
    }
}

impl fmt::Debug for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().filter(|(_, count)| *count > 0)).finish()
    }
}

impl Drops {
    /// Counts one drop.
    #[inline]
    pub fn count(&mut self, reason: Reason) {
        self.0[usize::from(reason.0)] += 1;
    }

    /// Returns the sum over all reasons.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Returns [`Reason::all`] with counts, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::all().map(|reason| (reason, self[reason]))
    }
}

impl Index<Reason> for Drops {
    type Output = u64;

    fn index(&self, reason: Reason) -> &u64 {
        &self.0[usize::from(reason.0)]
    }
}

impl AddAssign for Drops {
    fn add_assign(&mut self, other: Self) {
        for (count, other_count) in self.0.iter_mut().zip(other.0) {
            *count += other_count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_unique_name_and_own_counter() {
        let mut drops = Drops::default();
        let all: Vec<Reason> = Reason::all().collect();
        for (index, reason) in all.iter().enumerate() {
            assert!(all[..index].iter().all(|other| other.name() != reason.name()));
            assert!(!reason.description().is_empty());
            drops.count(*reason);
            assert_eq!(drops[*reason], 1);
        }
        assert_eq!(drops.total(), all.len() as u64);
        assert!(all.len() >= CORE.len());
    }

    #[test]
    fn registered_reason_is_counted_and_listed() {
        static TEST_REASON: DropReason = DropReason::new("test_reason", "A reason of a test.");
        let reason = TEST_REASON.register().unwrap();
        assert_eq!(TEST_REASON.register(), Ok(reason));
        assert_eq!(Reason::register("test_reason", "A reason of a test."), Ok(reason));
        assert_eq!((reason.name(), reason.description()), ("test_reason", "A reason of a test."));
        let mut drops = Drops::default();
        drops.count(TEST_REASON.reason());
        assert!(drops.iter().any(|(listed, count)| listed == reason && count == 1));
    }

    #[test]
    fn register_rejects_invalid_and_taken_names() {
        for name in ["", "Has_Capital", "has-dash", "has space", &"x".repeat(41)] {
            assert_eq!(
                Reason::register(name, "A reason of a test."),
                Err(ReasonError::Name(name.to_owned()))
            );
        }
        let error = Reason::register("policy", "Something else.").unwrap_err();
        assert!(matches!(&error, ReasonError::Taken { name, .. } if name == "policy"), "{error}");
        assert_eq!(Reason::register("policy", Reason::POLICY.description()), Ok(Reason::POLICY));
    }
}
