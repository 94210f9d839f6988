//! Packets of a capture that cannot be judged.

use std::borrow::Cow;

/// Why a packet is skipped.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Skip {
    pub(crate) text: String,
    /// The reason by which the packet is counted. A capture can have only a limited number of
    /// different ones: they contain no offsets and no interfaces.
    pub(crate) reason: Cow<'static, str>,
}

impl Skip {
    pub(super) fn new(text: String, reason: &'static str) -> Self {
        Self { text, reason: reason.into() }
    }

    /// A reason of which a capture can have only few.
    pub(super) fn counted(text: impl Into<Cow<'static, str>>) -> Self {
        let reason = text.into();
        Self { text: reason.clone().into_owned(), reason }
    }
}
