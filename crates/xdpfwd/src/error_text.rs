//! Errors as text.

use std::iter;

/// Returns an error and its causes in one line, without causes that it already contains.
pub(crate) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = iter::successors(Some(error), |error| error.source());
    chain.fold(String::new(), |text, cause| match cause.to_string() {
        cause if text.is_empty() => cause,
        cause if text.contains(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use xdpfwd_engine::StartError;

    use super::*;

    #[test]
    fn text_names_each_cause_once() {
        let cause = io::Error::other("no room");
        let start_error = StartError::Io { what: "eventfd", source: cause };
        let error = anyhow::Error::new(start_error).context("cannot start");
        assert_eq!(with_causes(error.as_ref()), "cannot start: eventfd: no room");
    }
}
