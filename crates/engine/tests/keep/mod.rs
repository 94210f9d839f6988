//! The expected results of root_keep.rs: a second implementation of the `keep` rules. (frames.py
//! makes frames, with the rules that must keep each.)

pub(crate) mod oracle;
