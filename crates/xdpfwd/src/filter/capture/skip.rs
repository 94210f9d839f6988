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

    /// Uses the reason as text. A capture must have few different reasons.
    pub(super) fn from_reason(reason: impl Into<Cow<'static, str>>) -> Self {
        let reason = reason.into();
        Self { text: reason.clone().into_owned(), reason }
    }
}
