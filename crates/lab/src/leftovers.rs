//! Kernel objects that a forwarder may leave behind.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use libbpf_rs::query::{LinkInfoIter, MapInfoIter, ProgInfoIter};

use crate::{Error, Namespace, require_root, tool};

/// BPF programs, maps and links, by ID. The kernel reuses an ID only after about two billion
/// objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BpfObjects(BTreeSet<(&'static str, u32)>);

impl BpfObjects {
    /// Returns the objects that a process has open; none if the process does not exist.
    ///
    /// # Errors
    ///
    /// Not root.
    pub fn of_process(pid: u32) -> Result<Self, Error> {
        require_root("listing the BPF objects of a process")?;
        let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
        let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
        Ok(Self(texts.flat_map(|text| Self::ids_in_fdinfo(&text)).collect()))
    }

    fn ids_in_fdinfo(fdinfo: &str) -> Vec<(&'static str, u32)> {
        // The fdinfo of a link also contains its program's ID.
        let kinds = [("program", "prog_id:"), ("map", "map_id:"), ("link", "link_id:")];
        let id = |key| fdinfo.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
        kinds.into_iter().filter_map(|(kind, key)| Some((kind, id(key)?))).collect()
    }

    /// Returns all BPF objects of the system.
    ///
    /// # Errors
    ///
    /// Not root.
    pub fn all() -> Result<Self, Error> {
        require_root("listing BPF objects")?;
        let programs = ProgInfoIter::default().map(|program| ("program", program.id));
        let maps = MapInfoIter::default().map(|map| ("map", map.id));
        let links = LinkInfoIter::default().map(|link| ("link", link.id));
        Ok(Self(programs.chain(maps).chain(links).collect()))
    }

    /// Adds the objects of `others`.
    pub fn add(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Returns the objects that are not in `others`.
    #[must_use]
    pub fn without(&self, others: &Self) -> Self {
        Self(self.0.difference(&others.0).copied().collect())
    }

    /// Returns the number of objects.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Waits until none of the objects exists: the kernel frees them shortly after the last close.
    ///
    /// # Errors
    ///
    /// Not root, or an object still exists after `deadline`.
    pub fn wait_until_gone(&self, deadline: Duration) -> Result<(), Error> {
        poll_until_gone(deadline, "check `bpftool prog` and `bpftool link`", || {
            let remaining: Vec<_> = self.0.intersection(&Self::all()?.0).copied().collect();
            Ok((!remaining.is_empty()).then(|| format!("the kernel to free {remaining:?}")))
        })
    }
}

/// Detects when the kernel has freed a network namespace. A socket keeps its namespace alive until
/// the kernel frees the socket, which may be some time after the last process has closed it.
///
/// The guard connects a second namespace by a veth pair. The kernel removes one end together with
/// the guarded namespace, and then the other end too.
#[derive(Debug)]
pub struct NamespaceGuard(Namespace);

impl NamespaceGuard {
    /// Creates a guard of `namespace`.
    ///
    /// # Errors
    ///
    /// Not root, or the error of `ip`.
    pub fn new(namespace: &Namespace) -> Result<Self, Error> {
        let guard_namespace = Namespace::create("guard")?;
        namespace.ip(&[
            "link",
            "add",
            "guard",
            "type",
            "veth",
            "peer",
            "name",
            "guard",
            "netns",
            guard_namespace.name(),
        ])?;
        Ok(Self(guard_namespace))
    }

    /// Waits until the kernel has freed the namespace.
    ///
    /// # Errors
    ///
    /// The error of `ip`, or the namespace still exists after `deadline`.
    pub fn wait_until_gone(&self, deadline: Duration) -> Result<(), Error> {
        poll_until_gone(deadline, "a process or a socket still uses the namespace", || {
            let links = tool::ip(&["-n", self.0.name(), "link", "show"])?;
            Ok(links.contains("guard").then(|| "the kernel to free a network namespace".into()))
        })
    }
}

/// Returns the number of user-space pages that the kernel has pinned for all processes, including
/// those of UMEMs.
///
/// # Errors
///
/// /proc/vmstat cannot be read or lacks the counters.
pub fn pinned_pages() -> Result<u64, Error> {
    let path = Path::new("/proc/vmstat");
    let text =
        fs::read_to_string(path).map_err(Error::io(format!("reading {}", path.display())))?;
    let value =
        |key| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
    let (acquired, released) = (value("nr_foll_pin_acquired "), value("nr_foll_pin_released "));
    let count =
        acquired.zip(released).map(|(acquired, released)| acquired.saturating_sub(released));
    count.ok_or_else(|| {
        Error::io("reading /proc/vmstat")(std::io::Error::other(
            "the file has no counters nr_foll_pin_acquired and nr_foll_pin_released",
        ))
    })
}

/// Polls `pending` until it returns `None`. Until then, `pending` describes the awaited event, for
/// the error after `deadline`.
fn poll_until_gone(
    deadline: Duration,
    hint: &str,
    mut pending: impl FnMut() -> Result<Option<String>, Error>,
) -> Result<(), Error> {
    let start = Instant::now();
    while let Some(event) = pending()? {
        if start.elapsed() > deadline {
            return Err(Error::Timeout {
                event,
                seconds: deadline.as_secs_f64(),
                hint: hint.into(),
            });
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::BpfObjects;

    #[test]
    fn ids_in_fdinfo_returns_object_ids() {
        let link =
            "pos:\t0\nlink_type:\txdp\nlink_id:\t3\nprog_tag:\tab\nprog_id:\t12\nifindex:\t2\n";
        assert_eq!(BpfObjects::ids_in_fdinfo(link), [("program", 12), ("link", 3)]);
        assert_eq!(BpfObjects::ids_in_fdinfo("map_type:\t17\nmap_id:\t5\n"), [("map", 5)]);
        assert_eq!(BpfObjects::ids_in_fdinfo("pos:\t0\nflags:\t02\n"), []);
    }
}
