//! The columns of the matrix: kinds of security processing.

use xdpfwd_bench::results;

/// A kind of security processing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    title: &'static str,
    /// Group of columns in charts, as in [`results::Column`].
    group: &'static str,
    /// The stages that process each packet, in this order.
    pub(crate) stages: &'static [Stage],
}

/// A security function, applied to each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Filter {
        rules: u32,
        placement: Placement,
    },
    /// A search for [`SIGNATURES`] byte patterns in the payload.
    Signatures,
    /// ESP encapsulation in tunnel mode with this transform.
    Seal(&'static str),
    /// One copy of all bytes.
    Memcpy,
}

/// Where a filter runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    User,
    Kernel,
    /// Where the path forwards packets.
    OfPath,
}

/// Number of patterns of the column `signatures`.
pub(crate) const SIGNATURES: usize = 1000;

const fn filter(rules: u32, placement: Placement) -> Stage {
    Stage::Filter { rules, placement }
}

/// All columns, in the order of tables. A new column is a new entry.
pub(crate) const COLUMNS: [Column; 13] = [
    Column { name: "none", title: "no security", group: "none", stages: &[] },
    Column {
        name: "filter-1-user",
        title: "filter, 1 rule, user space",
        group: "filter",
        stages: &[filter(1, Placement::User)],
    },
    Column {
        name: "filter-1k-user",
        title: "filter, 1,000 rules, user space",
        group: "filter",
        stages: &[filter(1_000, Placement::User)],
    },
    Column {
        name: "filter-10k-user",
        title: "filter, 10,000 rules, user space",
        group: "filter",
        stages: &[filter(10_000, Placement::User)],
    },
    Column {
        name: "filter-1-kernel",
        title: "filter, 1 rule, kernel",
        group: "filter",
        stages: &[filter(1, Placement::Kernel)],
    },
    Column {
        name: "filter-1k-kernel",
        title: "filter, 1,000 rules, kernel",
        group: "filter",
        stages: &[filter(1_000, Placement::Kernel)],
    },
    Column {
        name: "filter-10k-kernel",
        title: "filter, 10,000 rules, kernel",
        group: "filter",
        stages: &[filter(10_000, Placement::Kernel)],
    },
    Column {
        name: "signatures",
        title: "1,000 signatures",
        group: "signatures",
        stages: &[Stage::Signatures],
    },
    Column {
        name: "aes-128-gcm",
        title: "ESP, AES-128-GCM",
        group: "aead",
        stages: &[Stage::Seal("aes-128-gcm")],
    },
    Column {
        name: "aes-256-gcm",
        title: "ESP, AES-256-GCM",
        group: "aead",
        stages: &[Stage::Seal("aes-256-gcm")],
    },
    Column {
        name: "chacha20-poly1305",
        title: "ESP, ChaCha20-Poly1305",
        group: "aead",
        stages: &[Stage::Seal("chacha20-poly1305")],
    },
    Column {
        name: "filter-1k-aes-128",
        title: "filter, 1,000 rules, and ESP, AES-128-GCM",
        group: "both",
        stages: &[filter(1_000, Placement::OfPath), Stage::Seal("aes-128-gcm")],
    },
    Column {
        name: "memcpy",
        title: "one copy of each packet",
        group: "control",
        stages: &[Stage::Memcpy],
    },
];

impl Column {
    /// Returns the column in the format of results.
    pub(crate) fn describe(&self) -> results::Column {
        results::Column {
            name: self.name.into(),
            title: self.title.into(),
            group: self.group.into(),
            rules: self.filter().map(|(rules, _)| rules),
        }
    }

    /// Returns the number of rules and the placement of the filter, if there is one.
    pub(crate) fn filter(&self) -> Option<(u32, Placement)> {
        self.stages.iter().find_map(|stage| match *stage {
            Stage::Filter { rules, placement } => Some((rules, placement)),
            _ => None,
        })
    }

    /// Returns the ESP transform, if packets are encapsulated.
    pub(crate) fn transform(&self) -> Option<&'static str> {
        self.stages.iter().find_map(|stage| match *stage {
            Stage::Seal(transform) => Some(transform),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_names_are_unique() {
        let mut names: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COLUMNS.len());
    }

    #[test]
    fn column_groups_are_those_of_the_results() {
        let groups = ["none", "filter", "signatures", "aead", "both", "control"];
        for column in COLUMNS.iter().map(Column::describe) {
            assert!(groups.contains(&&*column.group), "{column:?}");
            assert_eq!(column.rules.is_some(), matches!(&*column.group, "filter" | "both"));
        }
    }
}
