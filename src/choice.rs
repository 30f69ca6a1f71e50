//! Which device computes the plans, and what there is to know of one. How adapters are found and opened is the business
//! of `engine`.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// Which device computes the plans.
///
/// Every choice gives the same plan; it decides only how long that takes.
///
/// ```
/// use eplb_wgpu::DeviceChoice;
/// assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
/// assert_eq!("2".parse(), Ok(DeviceChoice::Index(2)));
/// assert_eq!("llvmpipe".parse(), Ok(DeviceChoice::Name("llvmpipe".to_string())));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// The first usable GPU (discrete, integrated or virtual), else the CPU backend, which is faster than a
    /// software driver on the same processor. `WGPU_ADAPTER_NAME` narrows the choice.
    #[default]
    Auto,
    /// The CPU backend, which touches no driver.
    Cpu,
    /// The first usable adapter, a software driver where there is no GPU. `WGPU_ADAPTER_NAME` narrows the
    /// choice.
    Gpu,
    /// By position in [`crate::devices`].
    Index(usize),
    /// The first usable adapter with these characters, in any case, in its `name backend driver`.
    Name(String),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    /// `auto`, `cpu`, `gpu` in any case, a position in [`crate::devices`], or else a part of a name.
    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        match text.to_lowercase().as_str() {
            "" => {
                Err(Error::invalid("device", "\"\"", "is not auto, cpu, gpu, a number or a part of a name"))
            }
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "gpu" => Ok(DeviceChoice::Gpu),
            _ => Ok(match text.parse() {
                Ok(index) => DeviceChoice::Index(index),
                Err(_) => DeviceChoice::Name(text.to_string()),
            }),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Gpu => f.write_str("gpu"),
            DeviceChoice::Index(index) => write!(f, "{index}"),
            DeviceChoice::Name(name) => f.write_str(name),
        }
    }
}

/// One device, as its driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// The name the driver gives it; `CPU backend` for the CPU backend.
    pub name: String,
    /// wgpu's name of the graphics API (`vulkan`, `metal`, `dx12`, `gl`), or `cpu`.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`; `cpu` for the CPU backend.
    pub kind: String,
    /// The driver; empty where the graphics API does not tell.
    pub driver: String,
    /// The driver's version and whatever else it says of itself; may be empty.
    pub driver_info: String,
    /// Whether the shaders run on the processor. A driver may say that it is a GPU and hand its work to a software driver: it
    /// counts as software where its name or its description names one, or where it calls itself an NVIDIA card and has
    /// vectors shorter than any such card's. Where nothing shows it, the driver is believed.
    pub is_software: bool,
    /// Why it cannot run the shaders, where it cannot; such a device is never chosen.
    pub unusable_because: Option<String>,
    /// wgpu's names of the features it has.
    pub features: Vec<String>,
    /// wgpu's names of the limits that matter to compute shaders, with their values; the number of threads of
    /// the CPU backend.
    pub limits: Vec<(&'static str, u64)>,
}

impl DeviceInfo {
    /// The CPU backend.
    pub(crate) fn cpu() -> Self {
        Self {
            name: "CPU backend".to_string(),
            backend: "cpu".to_string(),
            kind: "cpu".to_string(),
            driver: String::new(),
            driver_info: String::new(),
            is_software: false,
            unusable_because: None,
            features: Vec::new(),
            limits: vec![("threads", rayon::current_num_threads() as u64)],
        }
    }

    /// Name and backend: `name (backend)`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} ({})", self.name, self.backend)
    }

    /// An error of this device.
    #[cfg(feature = "gpu")]
    pub(crate) fn failed(&self, reason: &str) -> Error {
        Error::Device { device: self.label(), reason: reason.to_string() }
    }

    /// A GPU of its own, as far as the driver tells. `other` is not: on the GL backend it is anything. A browser says no more
    /// of a GPU, but tells software apart.
    #[cfg(feature = "gpu")]
    pub(crate) fn is_real_gpu(&self) -> bool {
        match self.kind.as_str() {
            "discrete" | "integrated" | "virtual" => true,
            "other" => self.backend == "webgpu",
            _ => false,
        }
    }
}

/// Every adapter here: none, since the library is built without the feature `gpu`.
#[cfg(not(feature = "gpu"))]
#[must_use]
pub fn devices() -> Vec<DeviceInfo> {
    Vec::new()
}

/// [`devices`], for callers with an executor.
#[cfg(not(feature = "gpu"))]
pub async fn devices_async() -> Vec<DeviceInfo> {
    devices()
}

/// The device that [`DeviceChoice::Auto`] means here: the CPU backend, since the library is built without the feature
/// `gpu`.
#[cfg(not(feature = "gpu"))]
#[must_use]
pub fn auto_device() -> DeviceInfo {
    DeviceInfo::cpu()
}
