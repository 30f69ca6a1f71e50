//! Keeps a device open: lends it to one call after the other, and opens it anew after it was lost.

use std::sync::{Arc, Mutex, PoisonError};

use super::device::{DeviceInfo, Opening};
use super::gpu::Gpu;
use super::shaders::ShaderSource;
use super::turns::Turns;
use crate::error::Error;

/// How often in a row a lost device is opened again: a driver that was reset needs one, a broken one would
/// cost every call.
pub const REOPENINGS: u32 = 3;

/// A device and its shaders, through all its losses.
pub struct Keeper {
    opening: Opening,
    shaders: Vec<ShaderSource>,
    info: DeviceInfo,
    held: Turns<HeldDevice>,
}

/// The device of the moment.
struct HeldDevice {
    gpu: Option<Arc<Gpu>>,
    /// Losses since the last call that went well, attempts to open it again included.
    losses: u32,
    /// Of the last one.
    cause: String,
}

impl Keeper {
    /// Opens a device; `None` is the CPU backend.
    ///
    /// # Errors
    /// As for [`Opening::open`], and [`Error::Device`] where the device refuses a shader.
    pub async fn open(opening: Opening, shaders: Vec<ShaderSource>) -> Result<Option<Self>, Error> {
        let Some(open) = opening.open().await? else { return Ok(None) };
        let info = open.info.clone();
        let gpu = Some(Arc::new(Gpu::new(open, &shaders).await?));
        let held = Turns::new(HeldDevice { gpu, losses: 0, cause: String::new() });
        Ok(Some(Self { opening, shaders, info, held }))
    }

    /// The device as it was first opened.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Does some work on the device.
    ///
    /// # Errors
    /// Those of the work, and [`Error::Device`] where the device was lost and cannot be opened again.
    pub async fn with<T>(&self, work: impl AsyncFnOnce(&Gpu) -> Result<T, Error>) -> Result<T, Error> {
        let gpu = self.lend().await?;
        let result = work(&gpu).await;
        let mut held = self.held.turn().await;
        let current = held.gpu.as_ref().is_some_and(|held| Arc::ptr_eq(held, &gpu));
        match gpu.lost() {
            None => {
                if result.is_ok() && current {
                    held.losses = 0;
                }
            }
            Some(cause) => {
                if current {
                    *held = HeldDevice { gpu: None, losses: held.losses + 1, cause };
                }
                drop(held);
                retire(gpu);
            }
        }
        result
    }

    /// The device, opened again where it was lost.
    ///
    /// # Errors
    /// [`Error::Device`] where that fails, or has been tried too often.
    pub async fn lend(&self) -> Result<Arc<Gpu>, Error> {
        let mut held = self.held.turn().await;
        if let Some(gpu) = &held.gpu {
            return Ok(gpu.clone());
        }
        if held.losses > REOPENINGS {
            let reason = format!(
                "it was lost {} times in a row and is not opened again; the last time: {}",
                held.losses, held.cause
            );
            return Err(self.error(reason));
        }
        match self.reopen().await {
            Ok(gpu) => Ok(held.gpu.insert(Arc::new(gpu)).clone()),
            Err(error) => {
                held.losses += 1;
                held.cause = error.to_string();
                Err(self.error(format!("it was lost and cannot be opened again: {error}")))
            }
        }
    }

    async fn reopen(&self) -> Result<Gpu, Error> {
        let open = self.opening.open().await?;
        // Another device in its place is for the caller to choose.
        match open.filter(|open| open.info.label() == self.info.label()) {
            Some(open) => Gpu::new(open, &self.shaders).await,
            None => Err(self.error("it is no longer here".into())),
        }
    }

    fn error(&self, reason: String) -> Error {
        self.info.failed(&reason)
    }
}

/// Closes a lost device, once no call is left on it, in a thread of its own: a driver that hangs would keep
/// the caller.
fn retire(gpu: Arc<Gpu>) {
    let Some(gpu) = Arc::into_inner(gpu) else { return };
    // A browser never keeps the caller.
    if cfg!(target_family = "wasm") {
        return;
    }
    let gpu = Arc::new(Mutex::new(Some(gpu)));
    let shared = gpu.clone();
    let close = move || drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    if std::thread::Builder::new().name("eplb-close".into()).spawn(close).is_err() {
        // It stays open.
        std::mem::forget(gpu);
    }
}
