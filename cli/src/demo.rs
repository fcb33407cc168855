//! stub
use crate::args::DemoArgs;
use crate::failure::Failure;
pub(crate) fn run(_args: &DemoArgs) -> Result<(), Failure> {
    Ok(())
}
