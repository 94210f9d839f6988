//! CPU time of threads.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// A thread of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread {
    pid: u32,
    pub(crate) tid: u32,
}

impl Thread {
    /// Returns the threads of a process whose names start with one of `names`.
    pub(crate) fn find(pid: u32, names: &[&str]) -> Result<Vec<Self>> {
        let folder = format!("/proc/{pid}/task");
        let tasks = fs::read_dir(&folder).with_context(|| format!("reading {folder}"))?;
        let threads = tasks.flatten().filter(|task| {
            fs::read_to_string(task.path().join("comm"))
                .is_ok_and(|name| names.iter().any(|start| name.starts_with(start)))
        });
        let threads = threads.filter_map(|task| task.file_name().to_str()?.parse().ok());
        Ok(threads.map(|tid| Self { pid, tid }).collect())
    }

    /// Returns all threads of a process.
    pub(crate) fn of_process(pid: u32) -> Result<Vec<Self>> {
        Self::find(pid, &[""])
    }

    /// Returns the workers of an xdpfwd, at least one.
    pub(crate) fn workers(pid: u32) -> Result<Vec<Self>> {
        let workers = Self::find(pid, &["worker"])?;
        if workers.is_empty() {
            anyhow::bail!("xdpfwd (pid {pid}) has no thread whose name starts with \"worker\"");
        }
        Ok(workers)
    }

    /// Returns the kernel's thread that runs the softirqs of a core when there are too many for the
    /// interrupted thread; `None` if this process does not see it.
    pub(crate) fn softirqs(core: usize) -> Option<Self> {
        let name = format!("ksoftirqd/{core}\n");
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        pids.filter_map(|folder| {
            let pid = folder.file_name().to_str()?.parse().ok()?;
            let comm = fs::read_to_string(folder.path().join("comm")).ok()?;
            (comm == name).then_some(Self { pid, tid: pid })
        })
        .next()
    }

    /// Returns the CPU time, including interrupts, without the time for which other threads or, if
    /// the hypervisor tells, other virtual machines had the core. The kernel updates it at each
    /// context switch and at each tick, every few milliseconds.
    pub(crate) fn cpu_time(self) -> Result<Duration> {
        let file = format!("/proc/{}/task/{}/schedstat", self.pid, self.tid);
        let text = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
        let nanoseconds = text.split_whitespace().next().and_then(|number| number.parse().ok());
        Ok(Duration::from_nanos(nanoseconds.with_context(|| format!("{file} has no number"))?))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Instant};

    use super::*;

    #[test]
    fn cpu_time_of_named_thread_grows_while_it_works() {
        let (stop, stopped) = mpsc::channel::<()>();
        let work = move || while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {};
        let worker = thread::Builder::new().name("worker-test".into()).spawn(work).unwrap();
        let find = || Thread::find(std::process::id(), &["worker-t"]).unwrap();
        let start = Instant::now();
        let wait = || {
            assert!(start.elapsed() < Duration::from_secs(30), "no thread, or no CPU time");
            thread::yield_now();
        };
        // The new thread gives itself its name.
        while find().is_empty() {
            wait();
        }
        let [thread] = find()[..] else { panic!("expected one thread") };
        let before = thread.cpu_time().unwrap();
        while thread.cpu_time().unwrap() <= before {
            wait();
        }
        drop(stop);
        worker.join().unwrap();
        assert!(Thread::find(std::process::id(), &["no such thread"]).unwrap().is_empty());
    }

    #[test]
    fn threads_of_process_contain_its_main_thread() {
        let pid = std::process::id();
        assert!(Thread::of_process(pid).unwrap().iter().any(|thread| thread.tid == pid));
        assert!(Thread::of_process(u32::MAX).is_err());
    }
}
