//! Figures that others published, for paths that cannot be measured here: PF_RING needs kernel
//! modules and separate NIC drivers, and PFQ supports no current kernel.
//!
//! All are figures of receiving, not of forwarding: these systems are made for capturing packets.

use xdpfwd_bench::results::Published;

struct Figure {
    row: &'static str,
    /// Length in memory, without FCS; the sources count 64 bytes with FCS.
    size: &'static str,
    mpps: f64,
    machine: &'static str,
    cores: Option<u32>,
    source: &'static str,
}

const FIGURES: [Figure; 5] = [
    Figure {
        row: "PF_RING ZC, receiving only",
        size: "not stated",
        mpps: 15.0,
        machine: "not stated",
        cores: Some(1),
        source: "https://github.com/ntop/PF_RING/issues/711, 2021-04-29: a developer's estimate, \
                 15 to 20 Mpps per core, depending on the hardware",
    },
    Figure {
        row: "PF_RING with drivers of the kernel, receiving only",
        size: "not stated",
        mpps: 1.0,
        machine: "not stated",
        cores: None,
        source: "https://github.com/ntop/PF_RING/issues/711, 2021-04-29: a developer's estimate, \
                 1 to 2 Mpps",
    },
    Figure {
        row: "PF_RING ZC, receiving only",
        size: "60",
        mpps: 8.58,
        machine: "a user's, not stated; 10 GbE",
        cores: None,
        source: "https://github.com/ntop/PF_RING/issues/66, 2016-01-27: output of zpipeline at an \
                 offered 10 Gbit/s",
    },
    Figure {
        row: "PFQ, receiving only",
        size: "60",
        mpps: 12.5,
        machine: "Xeon, 6 cores of 2.66 GHz; Intel 82599",
        cores: Some(6),
        source: "https://nicolabonelli.wordpress.com/2011/04/24/introducing-pfq/, 2011-04-24",
    },
    Figure {
        row: "PFQ, receiving or sending only",
        size: "60",
        mpps: 14.8,
        machine: "CPU not stated; Intel 10 GbE, ixgbe",
        cores: None,
        source: "https://github.com/pandaychen/PFQ, README of version 6, read 2026-11-30: line \
                 rate of 10 GbE",
    },
];

/// Returns all published figures.
pub(crate) fn published() -> Vec<Published> {
    let figures = FIGURES.iter().map(|figure| Published {
        row: figure.row.into(),
        column: "none".into(),
        size: figure.size.into(),
        mpps: Some(figure.mpps),
        gbps: None,
        machine: figure.machine.into(),
        cores: figure.cores,
        source: figure.source.into(),
    });
    figures.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::columns::COLUMNS;

    #[test]
    fn published_figures_have_a_known_column_and_a_source_with_address_and_date() {
        for figure in published() {
            assert!(COLUMNS.iter().any(|column| column.name == figure.column), "{figure:?}");
            assert!(figure.source.starts_with("https://"), "{figure:?}");
            assert!(figure.source.contains(", 20") || figure.source.contains("read 20"));
            // No figure exceeds 10 GbE, which all sources are about, except per core.
            assert!(figure.mpps.is_some_and(|mpps| mpps > 0.0 && mpps <= 15.0), "{figure:?}");
        }
    }
}
