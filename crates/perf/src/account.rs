//! The accounts that time is charged to, and the groups of kernel functions.

use std::time::Duration;

/// What a core spends time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// User-space code of a worker.
    User,
    /// Kernel code in a worker's thread: system calls, page faults, returns from interrupts.
    SystemCall,
    /// Softirqs. On a core without a worker: only those of the network.
    Softirq,
    /// Softirqs inside a worker's system call that do the receive work of the other end of a veth.
    /// With a real NIC, another machine does this work.
    FarEnd,
    /// The idle task.
    Idle,
    /// Other programs, and kernel code that belongs to no other account.
    Other,
}

impl Account {
    /// All accounts, in the order of reports.
    pub const ALL: [Self; 6] =
        [Self::User, Self::SystemCall, Self::Softirq, Self::FarEnd, Self::Idle, Self::Other];

    /// Returns the name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::SystemCall => "system_call",
            Self::Softirq => "softirq",
            Self::FarEnd => "far_end",
            Self::Idle => "idle",
            Self::Other => "other",
        }
    }

    /// Returns whether the samples of the account are divided into [`Group`]s.
    pub fn has_groups(self) -> bool {
        matches!(self, Self::SystemCall | Self::Softirq | Self::FarEnd)
    }
}

/// A group of kernel functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// AF_XDP: delivering packets to sockets.
    AfXdpReceive,
    /// AF_XDP: taking packets from TX rings.
    AfXdpTransmit,
    /// Packet sockets, in both directions.
    PacketSocket,
    /// Queueing disciplines and the transmit functions of drivers.
    DriverTransmit,
    /// Allocating and freeing socket buffers and their memory.
    SocketBuffers,
    /// NAPI, the receive functions of drivers, and protocols.
    NetworkStack,
    /// XDP programs.
    XdpProgram,
    /// Copying bytes.
    Copy,
    /// Waking and switching threads.
    Scheduler,
    /// Everything else.
    Other,
}

impl Group {
    /// All groups, in the order of reports.
    pub const ALL: [Self; 10] = [
        Self::AfXdpReceive,
        Self::AfXdpTransmit,
        Self::PacketSocket,
        Self::DriverTransmit,
        Self::SocketBuffers,
        Self::NetworkStack,
        Self::XdpProgram,
        Self::Copy,
        Self::Scheduler,
        Self::Other,
    ];

    /// Returns the name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::AfXdpReceive => "af_xdp_receive",
            Self::AfXdpTransmit => "af_xdp_transmit",
            Self::PacketSocket => "packet_socket",
            Self::DriverTransmit => "driver_transmit",
            Self::SocketBuffers => "socket_buffers",
            Self::NetworkStack => "network_stack",
            Self::XdpProgram => "xdp_program",
            Self::Copy => "copy",
            Self::Scheduler => "scheduler",
            Self::Other => "other",
        }
    }
}

/// Samples of one core.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    accounts: [u64; Account::ALL.len()],
    groups: [[u64; Group::ALL.len()]; Account::ALL.len()],
}

impl Samples {
    /// Adds a sample. `group` counts only if the account has groups.
    pub fn add(&mut self, account: Account, group: Group) {
        self.accounts[account as usize] += 1;
        if account.has_groups() {
            self.groups[account as usize][group as usize] += 1;
        }
    }

    /// Returns the samples of an account.
    pub fn account(&self, account: Account) -> u64 {
        self.accounts[account as usize]
    }

    /// Returns the samples of a group within an account.
    pub fn group(&self, account: Account, group: Group) -> u64 {
        self.groups[account as usize][group as usize]
    }

    /// Returns all samples.
    pub fn total(&self) -> u64 {
        self.accounts.iter().sum()
    }
}

/// The time of one core, by account. No time ever decreases.
#[derive(Clone, Debug, Default)]
pub struct CoreUsage {
    /// The core.
    pub core: usize,
    /// Time by account, in the order of [`Account::ALL`].
    pub accounts: [Duration; Account::ALL.len()],
    groups: [[Duration; Group::ALL.len()]; Account::ALL.len()],
    /// The samples from which the times are computed; none if the times were measured exactly.
    pub samples: Samples,
}

impl CoreUsage {
    /// Creates the usage of a core from times that were measured exactly, or from zeros.
    pub(crate) fn new(core: usize, accounts: [Duration; Account::ALL.len()]) -> Self {
        Self { core, accounts, ..Self::default() }
    }

    /// Divides `time` among the accounts and groups of the samples that were taken in it. Without
    /// samples, does nothing.
    pub(crate) fn charge(&mut self, time: Duration, samples: &Samples) {
        let total = samples.total();
        if total == 0 {
            return;
        }
        let share = |count: u64| time.mul_f64(count as f64 / total as f64);
        for account in Account::ALL {
            let index = account as usize;
            self.accounts[index] += share(samples.account(account));
            self.samples.accounts[index] += samples.accounts[index];
            for group in Group::ALL {
                self.groups[index][group as usize] += share(samples.group(account, group));
                self.samples.groups[index][group as usize] += samples.group(account, group);
            }
        }
    }

    /// Returns the time of an account.
    pub fn account(&self, account: Account) -> Duration {
        self.accounts[account as usize]
    }

    /// Returns the time of a group within an account; zero if the times were measured exactly.
    pub fn group(&self, account: Account, group: Group) -> Duration {
        self.groups[account as usize][group as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_adds_up_to_sampled_time_and_groups_to_their_account() {
        let mut samples = Samples::default();
        for (account, group, count) in [
            (Account::User, Group::Other, 3),
            (Account::SystemCall, Group::Copy, 2),
            (Account::SystemCall, Group::AfXdpTransmit, 4),
            (Account::Idle, Group::Scheduler, 1),
        ] {
            (0..count).for_each(|_| samples.add(account, group));
        }
        let mut usage = CoreUsage::default();
        usage.charge(Duration::from_secs(10), &samples);
        assert_eq!(usage.account(Account::SystemCall), Duration::from_secs(6));
        assert_eq!(usage.group(Account::SystemCall, Group::Copy), Duration::from_secs(2));
        assert_eq!(usage.group(Account::Idle, Group::Scheduler), Duration::ZERO);
        let total: Duration = usage.accounts.iter().sum();
        assert_eq!(total, Duration::from_secs(10));
    }

    #[test]
    fn charge_without_samples_does_nothing() {
        let mut usage = CoreUsage::default();
        usage.charge(Duration::from_secs(1), &Samples::default());
        assert_eq!(usage.accounts.iter().sum::<Duration>(), Duration::ZERO);
    }

    /// Reports are compared with earlier ones, so what was charged must not change.
    #[test]
    fn later_samples_of_other_accounts_reduce_no_time() {
        let mut usage = CoreUsage::default();
        let mut first = Samples::default();
        first.add(Account::SystemCall, Group::Copy);
        usage.charge(Duration::from_secs(1), &first);
        let mut second = Samples::default();
        (0..100).for_each(|_| second.add(Account::Idle, Group::Other));
        usage.charge(Duration::from_millis(10), &second);
        assert_eq!(usage.account(Account::SystemCall), Duration::from_secs(1));
        assert_eq!(usage.group(Account::SystemCall, Group::Copy), Duration::from_secs(1));
        assert_eq!(usage.account(Account::Idle), Duration::from_millis(10));
        assert_eq!(usage.samples.total(), 101);
    }

    #[test]
    fn positions_equal_discriminants() {
        assert!(Account::ALL.iter().enumerate().all(|(at, account)| *account as usize == at));
        assert!(Group::ALL.iter().enumerate().all(|(at, group)| *group as usize == at));
    }
}
