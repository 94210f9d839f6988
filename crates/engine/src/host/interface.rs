//! Network interfaces of this host.

use std::fs;
use std::io;
use std::path::PathBuf;

use nix::net::if_::{if_nameindex, if_nametoindex};

use crate::host::link::Link;

#[derive(Clone, Debug)]
pub(crate) struct Interface {
    /// The configured name, which may be an alternative name.
    pub(crate) name: String,
    /// The name by which the interface was last seen.
    pub(crate) link_name: String,
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
            Ok(index) => {
                let link = Link::read(index).ok();
                let link_name = link.map_or_else(|| name.to_owned(), |link| link.name);
                Ok(Self { name: name.to_owned(), link_name, index })
            }
            Err(_) => Err(NoInterface {
                port: port.to_owned(),
                interface: name.to_owned(),
                present: interface_names(),
            }),
        }
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
#[derive(Debug)]
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

impl DeferredInterrupts {
    /// Restores the settings, or forgets them if the interface does not exist: another may have its
    /// name.
    pub(crate) fn end(mut self, exists: bool) {
        if !exists {
            self.0.clear();
        }
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
