//! The suites: test binaries of this workspace that want a kernel, or interfaces, that the host has not.

use anyhow::{Result, bail};

use crate::kernel::Kernel;
use crate::nic::{self, Nic};

/// One suite.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// The package and the test target of it. The target has `test = false`: plain `cargo test` leaves it out, as it would
    /// fail on the host.
    pub(crate) package: &'static str,
    pub(crate) test: &'static str,
    /// The kernels that it runs on, by series.
    pub(crate) kernels: &'static [&'static str],
    /// Whether it wants the cables of [`nic::all`].
    pub(crate) cables: bool,
    /// What the kernel is told besides.
    pub(crate) boot: &'static str,
}

/// All of them. A new one is a line here and a test target.
pub(crate) const ALL: &[Suite] = &[
    Suite {
        name: "zero-copy",
        about: "AF_XDP modes on virtio-net and igb: got, read back, forwarding, falling back",
        package: "xdpfwd",
        test: "vm_zero_copy",
        kernels: &["7.2", "6.12"],
        cables: true,
        boot: "",
    },
    Suite {
        name: "doctor",
        about: "what xdpfwd doctor says of drivers that the lab has not, and its fixes done",
        package: "xdpfwd",
        test: "vm_doctor",
        kernels: &["7.2", "6.12"],
        cables: true,
        boot: "",
    },
    Suite {
        name: "isolated",
        about: "what xdpfwd doctor says of a core that was isolated as it had asked for",
        package: "xdpfwd",
        test: "vm_isolated",
        kernels: &["7.2"],
        cables: false,
        boot: "isolcpus=1 nohz_full=1 rcu_nocbs=1",
    },
    Suite {
        name: "esp",
        about: "ESP against Linux's own: modes, transforms, replay, limits, numbers beyond 32 bits",
        package: "xdpfwd",
        test: "vm_esp",
        kernels: &["7.2", "6.12"],
        cables: false,
        boot: "",
    },
];

impl Suite {
    pub(crate) fn runs_on(&self, kernel: &Kernel) -> bool {
        self.kernels.contains(&&*kernel.series)
    }

    pub(crate) fn nics(&self) -> Vec<Nic> {
        if self.cables { nic::all() } else { Vec::new() }
    }
}

/// Those with these names; all, if none is named.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<&'static Suite>> {
    if names.is_empty() {
        return Ok(ALL.iter().collect());
    }
    names
        .iter()
        .map(|name| match ALL.iter().find(|suite| suite.name == name) {
            Some(suite) => Ok(suite),
            None => {
                let known: Vec<_> = ALL.iter().map(|suite| suite.name).collect();
                bail!("no suite {name:?}: there are {}", known.join(", "))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel;

    #[test]
    fn every_suite_has_a_kernel_that_is_pinned() {
        let pinned = kernel::pinned().unwrap();
        for suite in ALL {
            assert!(!suite.kernels.is_empty(), "{}", suite.name);
            for series in suite.kernels {
                assert!(pinned.iter().any(|kernel| kernel.series == *series), "{}: {series}", suite.name);
            }
        }
    }

    #[test]
    fn a_name_that_is_not_known_is_answered_with_those_that_are() {
        let error = chosen(&["zero".into()]).unwrap_err().to_string();
        assert_eq!(error, r#"no suite "zero": there are zero-copy, doctor, isolated, esp"#);
        assert_eq!(chosen(&[]).unwrap().len(), ALL.len());
    }
}
