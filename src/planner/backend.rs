//! A planner's backend: the CPU backend, or a device that is kept open.

use crate::choice::{DeviceChoice, DeviceInfo};
#[cfg(feature = "gpu")]
use crate::engine::keeper::Keeper;
use crate::error::Error;

/// It makes the plans of a planner.
pub enum Backend {
    Cpu,
    #[cfg(feature = "gpu")]
    Device(Box<Keeper>),
    /// `Auto` means a device that cannot be opened.
    #[cfg(feature = "gpu")]
    Refused(Error),
}

/// The backend of a device that was opened, or of the fault.
#[cfg(feature = "gpu")]
pub fn opened(opened: Result<Option<Keeper>, Error>, auto: bool) -> Result<(Backend, DeviceInfo), Error> {
    match opened {
        Ok(Some(keeper)) => {
            let info = keeper.info().clone();
            Ok((Backend::Device(Box::new(keeper)), info))
        }
        Ok(None) => Ok((Backend::Cpu, DeviceInfo::cpu())),
        Err(error @ Error::Device { .. }) if auto => Ok((Backend::Refused(error), DeviceInfo::cpu())),
        Err(error) => Err(error),
    }
}

/// Opens the device of a choice.
#[cfg(feature = "gpu")]
pub async fn open(choice: DeviceChoice) -> Result<(Backend, DeviceInfo), Error> {
    let auto = choice == DeviceChoice::Auto;
    let opening = crate::engine::device::Opening::new(choice);
    opened(Keeper::open(opening, super::gpu::shaders()).await, auto)
}

/// Opens the device of a choice and waits for it.
#[cfg(feature = "gpu")]
pub fn open_now(choice: DeviceChoice) -> Result<(Backend, DeviceInfo), Error> {
    crate::edge::now(open(choice))
}

/// The CPU backend, all there is without the feature `gpu`.
#[cfg(not(feature = "gpu"))]
pub fn open_now(choice: DeviceChoice) -> Result<(Backend, DeviceInfo), Error> {
    match choice {
        DeviceChoice::Auto | DeviceChoice::Cpu => Ok((Backend::Cpu, DeviceInfo::cpu())),
        other => Err(Error::NoDevice {
            wanted: other.to_string(),
            found: vec!["the CPU backend alone, since this program was built without the feature gpu".into()],
        }),
    }
}

/// [`open_now`]: there is nothing to wait for.
#[cfg(not(feature = "gpu"))]
pub async fn open(choice: DeviceChoice) -> Result<(Backend, DeviceInfo), Error> {
    open_now(choice)
}
