//! Port names in a stage's configuration.

use serde::Deserialize;
use serde_spanned::Spanned;

use crate::plan::{PlanCx, PlanError};
use crate::ports::PortInfo;

/// The name of a port in a stage's configuration, as in `to = "wan"`.
///
/// ```
/// use xdpfwd_pipeline::{PlanCx, PlanError, PortId, PortName};
///
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Steer { to: PortName }
///
/// fn plan(steer: &Steer, cx: &PlanCx<'_>) -> Result<PortId, PlanError> {
///     Ok(steer.to.resolve(cx)?.id)
/// }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct PortName(Spanned<String>);

impl PortName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        self.0.get_ref()
    }

    /// Returns the port with this name, or an error with the location and the names of all ports.
    pub fn resolve<'a>(&self, cx: &PlanCx<'a>) -> Result<&'a PortInfo, PlanError> {
        cx.ports.by_name(self.as_str()).ok_or_else(|| {
            let known = cx.ports.names();
            PlanError::at(
                &self.0,
                format!("no port is called {:?}; the ports are: {known}", self.as_str()),
            )
        })
    }
}
