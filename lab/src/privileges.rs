//! Whether this process may build a lab, and how to start it so that it may.

use std::fs::OpenOptions;

use rustix::thread::{CapabilitySet, capabilities};

use crate::LabError;

/// Checks that this process can make network namespaces, mount them and open TAP devices.
///
/// # Errors
/// [`LabError::Privileges`], whose text is complete: it names what is missing and the command to use.
pub fn require_privileges() -> Result<(), LabError> {
    let needed = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
    if !capabilities(None).is_ok_and(|sets| sets.effective.contains(needed)) {
        return Err(missing(
            "this needs network namespaces (CAP_NET_ADMIN and CAP_SYS_ADMIN)",
        ));
    }
    match OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
    {
        Ok(_) => Ok(()),
        Err(error) => Err(missing(&format!(
            "this needs /dev/net/tun, which does not open ({error})"
        ))),
    }
}

/// The one message, with the command that fits this program: a test or `rmesh` itself.
fn missing(what: &str) -> LabError {
    let as_test = std::env::var_os("CARGO_MANIFEST_DIR").is_some()
        && std::env::current_exe()
            .is_ok_and(|path| path.parent().is_some_and(|p| p.ends_with("deps")));
    let command = if as_test {
        "cargo test --workspace".to_owned()
    } else {
        std::env::args().collect::<Vec<_>>().join(" ")
    };
    LabError::Privileges(format!(
        "{what}. Run it as root:\n    sudo -E env \"PATH=$PATH\" {command}\n\
         or, where /dev/net/tun is accessible to all, in a user namespace:\n    \
         unshare --user --map-root-user --net --mount {command}"
    ))
}
