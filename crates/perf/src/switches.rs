//! Context switches of threads.

use std::fs;
use std::io;

/// The context switches of a thread since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// The thread waited.
    pub voluntary: u64,
    /// The kernel ran another thread instead.
    pub involuntary: u64,
}

impl Switches {
    /// Reads the context switches of a thread of this process.
    pub fn of_thread(tid: u32) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/self/task/{tid}/status"))?;
        Self::parse(&status).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Adds up the context switches of all threads of a process.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        let mut sum = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end meanwhile.
            let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
            let thread = Self::parse(&status).ok_or(io::ErrorKind::InvalidData)?;
            sum.voluntary += thread.voluntary;
            sum.involuntary += thread.involuntary;
        }
        Ok(sum)
    }

    fn parse(status: &str) -> Option<Self> {
        let find =
            |name| status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Some(Self {
            voluntary: find("voluntary_ctxt_switches:")?,
            involuntary: find("nonvoluntary_ctxt_switches:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_reads_both_counters() {
        let status =
            "Name:\tworker-0\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n";
        assert_eq!(Switches::parse(status), Some(Switches { voluntary: 150, involuntary: 545 }));
        assert_eq!(Switches::parse("Name:\tx\n"), None);
    }

    #[test]
    fn switches_of_process_include_those_of_thread() {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        std::thread::sleep(std::time::Duration::from_millis(1));
        let thread = Switches::of_thread(tid).unwrap();
        let process = Switches::of_process(std::process::id()).unwrap();
        assert!(process.voluntary >= thread.voluntary && thread.voluntary > 0);
        assert!(Switches::of_process(u32::MAX).is_err());
    }

    #[test]
    fn waiting_thread_switches_voluntarily() {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let before = Switches::of_thread(tid).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            std::thread::yield_now();
            drop(sender);
        });
        let _ = receiver.recv_timeout(std::time::Duration::from_secs(10));
        other.join().unwrap();
        assert!(Switches::of_thread(tid).unwrap().voluntary >= before.voluntary);
        // A thread that waits for a time switches at least once.
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(Switches::of_thread(tid).unwrap().voluntary > before.voluntary);
    }
}
