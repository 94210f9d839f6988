//! Packets of a capture to which the filter cannot be applied.

use std::borrow::Cow;

/// Why a packet is skipped.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Skip {
    pub(crate) text: String,
    /// The reason by which the packet is counted. It contains no offset or interface, so that a
    /// capture has only a limited number of reasons.
    pub(crate) reason: Cow<'static, str>,
}

impl Skip {
    pub(super) fn new(text: String, reason: &'static str) -> Self {
        Self { text, reason: reason.into() }
    }

    /// Uses `text` as reason. A capture must have few different texts.
    pub(super) fn counted(text: impl Into<Cow<'static, str>>) -> Self {
        let reason = text.into();
        Self { text: reason.clone().into_owned(), reason }
    }
}
