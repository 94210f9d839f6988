//! The XDP program on an interface.

use std::io;
use std::ops::{Deref, DerefMut};

use xsk::{AttachMode, XdpLink};

use crate::error::{StartError, lacks_native_xdp};
use crate::interface::Interface;
use crate::plan::{Mode, PortPlan};
use crate::program::XdpProgram;

/// The XDP program, loaded for an interface and attached to it. Dropping it detaches it.
pub(crate) struct Attachment {
    link: Option<XdpLink>,
    pub(crate) mode: AttachMode,
    program: XdpProgram,
}

impl Attachment {
    /// Loads and attaches the program, natively if the mode does not say otherwise. With [`Mode::Auto`], what the driver
    /// cannot do natively is done in the generic path; the error that decided is returned beside.
    pub(crate) fn new(
        port: &PortPlan,
        interface: &Interface,
        mode: Mode,
    ) -> Result<(Self, Option<io::Error>), StartError> {
        let program = XdpProgram::load(port.queues, &port.keep)?;
        let attach = |mode| program.attach(interface.index, mode);
        let (link, attached, fallback) = match mode {
            Mode::Skb => (attach(AttachMode::Skb), AttachMode::Skb, None),
            Mode::ZeroCopy | Mode::Copy => (attach(AttachMode::Native), AttachMode::Native, None),
            Mode::Auto => match attach(AttachMode::Native) {
                Err(error) if lacks_native_xdp(&error) => (attach(AttachMode::Skb), AttachMode::Skb, Some(error)),
                result => (result, AttachMode::Native, None),
            },
        };
        let link = link.map_err(|error| StartError::attach(interface, mode, error))?;
        Ok((Self { link: Some(link), mode: attached, program }, fallback))
    }

    /// Takes the program off the interface.
    pub(crate) fn detach(&mut self) {
        self.link = None;
    }
}

impl Deref for Attachment {
    type Target = XdpProgram;

    fn deref(&self) -> &XdpProgram {
        &self.program
    }
}

impl DerefMut for Attachment {
    fn deref_mut(&mut self) -> &mut XdpProgram {
        &mut self.program
    }
}
