//! The suites: test binaries that need a kernel or interfaces which the host lacks.

use anyhow::{Result, bail};

use crate::kernel::Kernel;
use crate::nic::{self, Nic};

/// One suite.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// The test target. It has `test = false`, so that plain `cargo test` leaves it out: it would
    /// fail on the host.
    pub(crate) test: &'static str,
    /// The kernels that it runs on.
    pub(crate) kernels: &'static [On],
    /// Whether it needs the cables of [`nic::all`].
    pub(crate) cables: bool,
    /// Additional kernel parameters.
    pub(crate) boot: &'static str,
}

/// A kernel that a suite runs on.
#[derive(Debug)]
pub(crate) struct On {
    /// The first two numbers of its release.
    pub(crate) series: &'static str,
    /// The part of the suite that CI runs on it. `make vmtest` runs the whole suite on each kernel.
    pub(crate) ci: InCi,
}

/// The part of a suite that CI runs on a kernel (`xdpfwd-vm run --ci`).
#[derive(Debug)]
pub(crate) enum InCi {
    /// Every test.
    Whole,
    /// The tests with these names.
    Tests(&'static [&'static str]),
    /// No test.
    Nothing,
}

/// All suites. CI runs each suite on its main kernel: emulation is slow, and the other combinations
/// rarely find more. The longest suites are first, which shortens parallel runs. A new suite is an
/// entry here and a test target.
pub(crate) const ALL: &[Suite] = &[
    Suite {
        name: "zero-copy",
        about: "AF_XDP modes on virtio-net and igb: got, read back, forwarding, falling back",
        test: "vm_zero_copy",
        kernels: &[
            On { series: "7.2", ci: InCi::Whole },
            // Tests the fallback from zero-copy and the older verifier, which rejects programs that
            // newer kernels accept: loads each XDP program with and without a filter, and with and
            // without `keep`.
            On {
                series: "6.12",
                ci: InCi::Tests(&[
                    "auto_gets_the_best_mode_on_every_pair_of_drivers",
                    "a_filter_in_the_kernel_drops_and_is_exchanged",
                    "programs_with_rules_of_keep_pass_the_verifier",
                    "a_port_without_zero_copy_takes_the_others_along_and_is_named",
                    "zero_copy_that_is_demanded_and_cannot_be_had_is_refused_with_the_reason",
                ]),
            },
        ],
        cables: true,
        boot: "",
    },
    Suite {
        name: "esp",
        about: "ESP against Linux's own: modes, transforms, replay, limits, numbers beyond 32 bits",
        test: "vm_esp",
        kernels: &[On { series: "7.2", ci: InCi::Whole }, On { series: "6.12", ci: InCi::Nothing }],
        cables: false,
        boot: "",
    },
    Suite {
        name: "doctor",
        about: "what xdpfwd doctor says of drivers that the lab has not, and its fixes done",
        test: "vm_doctor",
        kernels: &[On { series: "7.2", ci: InCi::Whole }, On { series: "6.12", ci: InCi::Nothing }],
        cables: true,
        boot: "",
    },
    Suite {
        name: "isolated",
        about: "what xdpfwd doctor says of a core that was isolated as it had asked for",
        test: "vm_isolated",
        kernels: &[On { series: "7.2", ci: InCi::Whole }],
        cables: false,
        boot: "isolcpus=1 nohz_full=1 rcu_nocbs=1",
    },
];

impl Suite {
    /// Returns the suite's entry for a kernel, if the suite runs on it.
    pub(crate) fn on(&self, kernel: &Kernel) -> Option<&'static On> {
        self.kernels.iter().find(|on| on.series == kernel.series)
    }

    pub(crate) fn nics(&self) -> Vec<Nic> {
        if self.cables { nic::all() } else { Vec::new() }
    }
}

/// Returns the suites with these names, or all if `names` is empty.
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
    fn every_suite_runs_on_pinned_kernels() {
        let pinned = kernel::pinned().unwrap();
        for suite in ALL {
            assert!(!suite.kernels.is_empty(), "{}", suite.name);
            for on in suite.kernels {
                assert!(
                    pinned.iter().any(|kernel| kernel.series == on.series),
                    "{}: {}",
                    suite.name,
                    on.series
                );
            }
        }
    }

    #[test]
    fn ci_runs_all_tests_of_every_suite() {
        for suite in ALL {
            assert!(suite.kernels.iter().any(|on| matches!(on.ci, InCi::Whole)), "{}", suite.name);
        }
    }

    #[test]
    fn every_kernel_boots_in_ci() {
        for kernel in kernel::pinned().unwrap() {
            let boots = ALL
                .iter()
                .filter_map(|suite| suite.on(&kernel))
                .any(|on| !matches!(on.ci, InCi::Nothing));
            assert!(boots, "{}", kernel.series);
        }
    }

    #[test]
    fn unknown_suite_error_lists_known_suites() {
        let error = chosen(&["zero".into()]).unwrap_err().to_string();
        assert_eq!(error, r#"no suite "zero": there are zero-copy, esp, doctor, isolated"#);
        assert_eq!(chosen(&[]).unwrap().len(), ALL.len());
    }
}
