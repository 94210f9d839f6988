//! Network interfaces of this host.

use std::fs;
use std::io;
use std::path::PathBuf;

use nix::net::if_::{if_nameindex, if_nametoindex};

use crate::host::link::Link;

#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: u32,
}

/// The error for a port whose interface does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "port {port}: no interface {interface} in this network namespace; \
     existing interfaces: {present}"
)]
pub struct NoInterface {
    /// The port.
    pub port: String,
    /// Its interface.
    pub interface: String,
    /// Existing interfaces, separated by commas.
    pub present: String,
}

impl Interface {
    /// Finds an interface. The error names `port`.
    pub(crate) fn find(port: &str, name: &str) -> Result<Self, NoInterface> {
        match if_nametoindex(name) {
            Ok(index) => Ok(Self { name: name.to_owned(), index }),
            Err(_) => Err(NoInterface {
                port: port.to_owned(),
                interface: name.to_owned(),
                present: interface_names(),
            }),
        }
    }

    /// Returns whether the interface still exists. Returns true if this cannot be determined.
    pub(crate) fn exists(&self) -> bool {
        // Search for the index: the name may have changed, but sockets and the XDP program are
        // bound to the index. (`if_indextoname` of nix returns an empty name for a missing index.)
        if_nameindex()
            .map_or(true, |all| all.iter().any(|interface| interface.index() == self.index))
    }
}

fn interface_names() -> String {
    let Ok(interfaces) = if_nameindex() else { return "unknown".into() };
    let names = interfaces.iter().map(|interface| interface.name().to_string_lossy().into_owned());
    names.collect::<Vec<_>>().join(", ")
}

/// Deferred interrupts of an interface, for preferred busy polling: sysfs files and their previous
/// NAPI settings, which are restored on drop.
/// <https://docs.kernel.org/networking/napi.html#irq-mitigation>
pub(crate) struct DeferredInterrupts(Vec<(PathBuf, String)>);

impl DeferredInterrupts {
    pub(crate) fn enable(interface: &Interface) -> io::Result<Self> {
        let folder = Link::read(interface.index)?.sysfs_folder().ok_or_else(|| {
            io::Error::other("/sys is missing or shows another network namespace")
        })?;
        let mut previous = Self(Vec::new());
        // Values of the kernel's documentation: if the worker does not poll for 200,000 ns, the
        // kernel polls, and after two polls without a packet enables interrupts.
        for (file, value) in [("napi_defer_hard_irqs", "2"), ("gro_flush_timeout", "200000")] {
            let path = folder.join(file);
            let old = fs::read_to_string(&path)?;
            fs::write(&path, value)?;
            previous.0.push((path, old.trim().to_owned()));
        }
        Ok(previous)
    }
}

impl Drop for DeferredInterrupts {
    fn drop(&mut self) {
        for (path, old) in &self.0 {
            // The interface may be gone.
            let _ = fs::write(path, old);
        }
    }
}
