//! The kernel's side of attaching, so that tests can do without.

use ipnet::IpNet;
use rmesh_router::attach::{self, AttachError, Attachment, Request, TargetSpec};
use rmesh_router::kernel::Bridge;

use crate::failure::{Failure, FailureKind};

/// Makes and removes the interfaces of containers. Every call may block for some milliseconds.
pub(crate) trait Ports: Send + Sync {
    /// See [`attach::attach`].
    fn attach(&self, request: &Request) -> Result<Attachment, AttachError>;
    /// See [`attach::detach`].
    fn detach(&self, attachment: &Attachment) -> Result<(), AttachError>;
    /// See [`attach::is_present`].
    fn is_present(&self, attachment: &Attachment) -> bool;
    /// See [`attach::carried`].
    fn carried(&self, attachment: &Attachment) -> Result<Option<Vec<IpNet>>, AttachError>;
    /// See [`attach::netns_inode`].
    fn netns_inode(&self, target: &TargetSpec) -> Result<u64, AttachError>;
}

/// The real ones.
pub(crate) struct KernelPorts(pub(crate) Bridge);

impl Ports for KernelPorts {
    fn attach(&self, request: &Request) -> Result<Attachment, AttachError> {
        attach::attach(&self.0, request)
    }

    fn detach(&self, attachment: &Attachment) -> Result<(), AttachError> {
        attach::detach(attachment)
    }

    fn is_present(&self, attachment: &Attachment) -> bool {
        attach::is_present(&self.0, attachment)
    }

    fn carried(&self, attachment: &Attachment) -> Result<Option<Vec<IpNet>>, AttachError> {
        attach::carried(attachment)
    }

    fn netns_inode(&self, target: &TargetSpec) -> Result<u64, AttachError> {
        attach::netns_inode(target)
    }
}

/// A kernel's refusal in the API's words.
pub(crate) fn failure(what: String, error: &AttachError) -> Failure {
    let kind = match error {
        AttachError::TargetSyntax { .. }
        | AttachError::Address { .. }
        | AttachError::TooManyAddresses { .. }
        | AttachError::Mac { .. }
        | AttachError::NotANamespace { .. }
        | AttachError::OwnNamespace { .. } => FailureKind::Usage,
        AttachError::NoSuchNamespace { .. }
        | AttachError::NoSuchPath { .. }
        | AttachError::ProcessGone { .. } => FailureKind::Missing,
        AttachError::InterfaceTaken { .. } => FailureKind::Conflict,
        AttachError::NotUp { .. } => FailureKind::Timeout,
        _ => FailureKind::Failed,
    };
    let todo = match kind {
        FailureKind::Missing => "name a running container: see `ip netns list`, or use pid:N",
        _ => "",
    };
    Failure::new(kind, what, error).todo(todo)
}
