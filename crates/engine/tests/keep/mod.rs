//! A second implementation of the `keep` rules. The tests compare the XDP program with it.

pub(crate) mod oracle;
