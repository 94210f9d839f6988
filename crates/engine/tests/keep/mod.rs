//! A second implementation of the `keep` rules, to compare the XDP program with.

pub(crate) mod oracle;
