//! The name of this program in its messages.

use std::io::{self, Write as _};
use std::sync::OnceLock;

use crate::error_text::with_causes;

static NAME: OnceLock<&'static str> = OnceLock::new();

/// Sets the name. Only the first call has an effect.
pub(crate) fn set_name(name: &'static str) {
    let _ = NAME.set(name);
}

/// Returns the name, which is `xdpfwd` if no name was set.
pub(crate) fn name() -> &'static str {
    NAME.get().copied().unwrap_or("xdpfwd")
}

pub(crate) fn print_error(error: &(dyn std::error::Error + 'static)) {
    // Ignore write errors, because the exit status also reports the failure.
    let _ = writeln!(io::stderr(), "{}: {}", name(), with_causes(error));
}
