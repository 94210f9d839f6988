//! The test suites: test binaries that need a kernel or network interfaces that the host lacks.

use anyhow::{Result, bail};

use crate::kernel::Kernel;
use crate::nic::{self, Nic};

#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Cargo's test target. Targets named `vm_*` have `test = false`, so that `cargo test` does not
    /// run them on the host.
    pub(crate) test_target: &'static str,
    /// Binaries of other packages that the tests run. (Cargo builds those of the same package.)
    pub(crate) programs: &'static [&'static str],
    pub(crate) kernels: &'static [SuiteKernel],
    pub(crate) needs_nics: bool,
    pub(crate) kernel_parameters: &'static str,
}

#[derive(Debug)]
pub(crate) struct SuiteKernel {
    /// As in [`Kernel::series`].
    pub(crate) series: &'static str,
    /// The tests that CI runs on this kernel; `make vmtest` runs all tests.
    pub(crate) ci: CiTests,
}

/// The tests of a suite that `xdpfwd-vm run --ci` runs on a kernel.
#[derive(Debug)]
pub(crate) enum CiTests {
    All,
    Only(&'static [&'static str]),
    None,
}

/// All kernels; CI runs the suite on the newest.
const NEWEST_IN_CI: &[SuiteKernel] = &[
    SuiteKernel { series: "7.2", ci: CiTests::All },
    SuiteKernel { series: "6.12", ci: CiTests::None },
];

/// All kernels; CI does not run the suite.
const NOT_IN_CI: &[SuiteKernel] = &[
    SuiteKernel { series: "7.2", ci: CiTests::None },
    SuiteKernel { series: "6.12", ci: CiTests::None },
];

/// All suites. The slowest come first, which shortens parallel runs. CI runs all tests of most
/// suites on one kernel, and at most a few tests on other kernels: emulation is slow, and tests on
/// other kernels rarely find more bugs. To add a suite, add an entry here and a test target.
pub(crate) const ALL: &[Suite] = &[
    Suite {
        name: "zero-copy",
        about: "AF_XDP modes on virtio-net and igb: selection, reported mode, forwarding, fallback",
        test_target: "vm_zero_copy",
        programs: &[],
        kernels: &[
            SuiteKernel { series: "7.2", ci: CiTests::All },
            // These tests cover the fallback to copy mode. They also load each XDP program, with
            // and without a filter and `keep`, because the verifier of Linux 6.12 rejects programs
            // that newer kernels accept.
            SuiteKernel {
                series: "6.12",
                ci: CiTests::Only(&[
                    "auto_selects_best_mode_on_each_pair_of_drivers",
                    "kernel_filter_drops_and_is_replaced_on_reload",
                    "kernel_ledger_measures_in_both_modes",
                    "programs_with_keep_rules_pass_the_verifier",
                    "port_without_zero_copy_limits_all_ports_and_is_reported",
                    "unavailable_zero_copy_is_rejected_with_reason",
                ]),
            },
        ],
        needs_nics: true,
        kernel_parameters: "",
    },
    Suite {
        name: "esp",
        about: "ESP against Linux: modes, transforms, replay, limits, extended sequence numbers",
        test_target: "vm_esp",
        programs: &[],
        kernels: NEWEST_IN_CI,
        needs_nics: false,
        kernel_parameters: "",
    },
    Suite {
        name: "packet",
        about: "ports on packet sockets: ping, iperf3, overload, system calls, queueing disciplines",
        test_target: "root_packet",
        programs: &[],
        kernels: NOT_IN_CI,
        needs_nics: false,
        kernel_parameters: "",
    },
    Suite {
        name: "doctor",
        about: "findings and fixes of xdpfwd doctor for drivers that the lab does not have",
        test_target: "vm_doctor",
        programs: &[],
        kernels: NEWEST_IN_CI,
        needs_nics: true,
        kernel_parameters: "",
    },
    Suite {
        name: "pktgen",
        about: "the kernel's packet generator in the lab: counts, rates, sizes, flows, queues",
        test_target: "vm_pktgen",
        programs: &[],
        kernels: NOT_IN_CI,
        needs_nics: false,
        kernel_parameters: "",
    },
    Suite {
        name: "nic",
        about: "`xdpfwd-bench nic` on igb and virtio-net, with live frames and pktgen",
        test_target: "vm_nic",
        programs: &["xdpfwd"],
        kernels: &[SuiteKernel { series: "7.2", ci: CiTests::None }],
        needs_nics: true,
        kernel_parameters: "",
    },
    Suite {
        name: "isolated",
        about: "findings of xdpfwd doctor for a core that is isolated as recommended",
        test_target: "vm_isolated",
        programs: &[],
        kernels: &[SuiteKernel { series: "7.2", ci: CiTests::All }],
        needs_nics: false,
        kernel_parameters: "isolcpus=1 nohz_full=1 rcu_nocbs=1",
    },
];

impl Suite {
    pub(crate) fn suite_kernel(&self, kernel: &Kernel) -> Option<&'static SuiteKernel> {
        self.kernels.iter().find(|suite_kernel| suite_kernel.series == kernel.series)
    }

    pub(crate) fn nics(&self) -> Vec<Nic> {
        if self.needs_nics { nic::all() } else { Vec::new() }
    }
}

/// Returns all suites if `names` is empty.
pub(crate) fn select(names: &[String]) -> Result<Vec<&'static Suite>> {
    if names.is_empty() {
        return Ok(ALL.iter().collect());
    }
    names
        .iter()
        .map(|name| match ALL.iter().find(|suite| suite.name == name) {
            Some(suite) => Ok(suite),
            None => {
                let known: Vec<_> = ALL.iter().map(|suite| suite.name).collect();
                bail!("unknown suite {name:?}; use {}", known.join(", "))
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
            assert!(!suite.kernels.is_empty(), "suite {} has no kernel", suite.name);
            for suite_kernel in suite.kernels {
                assert!(
                    pinned.iter().any(|kernel| kernel.series == suite_kernel.series),
                    "suite {}: Linux {} is not pinned",
                    suite.name,
                    suite_kernel.series
                );
            }
        }
    }

    #[test]
    fn ci_runs_all_tests_of_every_suite_with_few_exceptions() {
        // The tests of `packet` also run on the host. Those of the benchmarks' traffic take minutes
        // under emulation.
        const EXCEPTIONS: [&str; 3] = ["packet", "pktgen", "nic"];
        for suite in ALL {
            let is_in_ci =
                suite.kernels.iter().any(|suite_kernel| matches!(suite_kernel.ci, CiTests::All));
            assert_eq!(is_in_ci, !EXCEPTIONS.contains(&suite.name), "suite {}", suite.name);
        }
    }

    #[test]
    fn every_kernel_boots_in_ci() {
        for kernel in kernel::pinned().unwrap() {
            let boots = ALL
                .iter()
                .filter_map(|suite| suite.suite_kernel(&kernel))
                .any(|suite_kernel| !matches!(suite_kernel.ci, CiTests::None));
            assert!(boots, "CI never boots Linux {}", kernel.series);
        }
    }

    #[test]
    fn unknown_suite_error_lists_known_suites() {
        let error = select(&["zero".into()]).unwrap_err().to_string();
        assert_eq!(
            error,
            r#"unknown suite "zero"; use zero-copy, esp, packet, doctor, pktgen, nic, isolated"#
        );
        assert_eq!(select(&[]).unwrap().len(), ALL.len());
    }
}
