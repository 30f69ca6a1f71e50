//! Which devices are here, which one a choice means, and how it is opened.
//!
//! The list is every adapter wgpu can see through `WGPU_BACKEND` (all of Vulkan, Metal, DX12 and GL where it
//! is not set). Its order is by kind, real GPUs first, so that `Auto` and `Gpu` are readings of the same list:
//! `Gpu` takes its first usable adapter, `Auto` its first usable real GPU, or else the CPU backend. An adapter
//! that cannot run the shaders stays in the list, with the reason, and is never chosen.
//!
//! A driver that hands its work to another one says "real GPU" of itself whatever is behind it: Wine's Direct3D 12 shows
//! lavapipe as an NVIDIA card. So [`kind_of`] counts an adapter as software, whatever kind it gives itself, where its
//! words or its vectors tell. Where nothing tells it is taken at its word.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::recording::Tuning;
pub use crate::choice::{DeviceChoice, DeviceInfo};
use crate::error::Error;

/// wgpu's own variable: a part of the name of the adapter to take, in any case.
const ADAPTER_NAME: &str = "WGPU_ADAPTER_NAME";

/// Limits that every shader may count on (the static tests hold the shaders to them): WebGPU's default ones, which an
/// adapter of the GL backend can fall short of.
const NEEDED: [(&str, u64); 4] = [
    ("max_dynamic_uniform_buffers_per_pipeline_layout", 1),
    ("max_storage_buffers_per_shader_stage", 8),
    ("max_compute_workgroup_storage_size", 16 << 10),
    ("max_compute_invocations_per_workgroup", 256),
];

/// The names of software drivers, in lower case: a driver that stands before one of them (ANGLE, Zink, a virtual
/// machine's) has it in its own words.
const SOFTWARE_DRIVERS: [&str; 5] =
    ["llvmpipe", "lavapipe", "softpipe", "swiftshader", "basic render driver"];

/// NVIDIA's number on the PCI bus, and the lanes that the vectors of all its GPUs have.
const NVIDIA: (u32, u32) = (0x10de, 32);

/// The kind of device that an adapter is: the one it says, unless it names a software driver, or is an NVIDIA card with vectors that
/// no such card has (the processor's).
fn kind_of(info: &wgpu::AdapterInfo) -> wgpu::DeviceType {
    let told = format!("{} {} {}", info.name, info.driver, info.driver_info).to_lowercase();
    let names_software = SOFTWARE_DRIVERS.iter().any(|name| told.contains(name));
    // 0 lanes are those of a driver that does not tell.
    let is_no_nvidia = info.vendor == NVIDIA.0 && (1..NVIDIA.1).contains(&info.subgroup_max_size);
    if names_software || is_no_nvidia { wgpu::DeviceType::Cpu } else { info.device_type }
}

/// The description of an adapter.
fn described(adapter: &wgpu::Adapter) -> DeviceInfo {
    let info = adapter.get_info();
    let kind = kind_of(&info);
    let limits = compute_limits(&adapter.limits(), &info);
    let unusable_because = lacks(adapter.get_downlevel_capabilities().flags).or_else(|| too_low(&limits));
    // Browsers hide the name, lest it tell visitors apart.
    let name = if info.name.is_empty() { "GPU".to_string() } else { info.name };
    DeviceInfo {
        name,
        backend: info.backend.to_str().to_string(),
        kind: kind_name(kind).to_string(),
        driver: info.driver,
        driver_info: info.driver_info,
        is_software: kind == wgpu::DeviceType::Cpu,
        unusable_because,
        features: adapter.features().iter_names().map(|(name, _)| name.to_string()).collect(),
        limits,
    }
}

/// Every adapter here, in the order that [`DeviceChoice::Index`] counts: real GPUs first.
#[must_use]
pub fn devices() -> Vec<DeviceInfo> {
    crate::edge::now(async { Ok(devices_async().await) }).unwrap_or_default()
}

/// [`devices`], for callers with an executor.
pub async fn devices_async() -> Vec<DeviceInfo> {
    found(wgpu::MemoryBudgetThresholds::default()).await.into_iter().map(|(info, _)| info).collect()
}

/// The device that [`DeviceChoice::Auto`] means here.
#[must_use]
pub fn auto_device() -> DeviceInfo {
    let devices = devices();
    let at = select(&DeviceChoice::Auto, &devices, named_adapter().as_deref()).ok().flatten();
    at.and_then(|at| devices.into_iter().nth(at)).unwrap_or_else(DeviceInfo::cpu)
}

/// A device ready for work.
#[derive(Debug)]
pub(crate) struct OpenDevice {
    /// Creates buffers and pipelines; its limits are all that the adapter offers.
    pub device: wgpu::Device,
    /// Takes the work.
    pub queue: wgpu::Queue,
    /// Its description.
    pub info: DeviceInfo,
    /// Whether the adapter says of itself that it is software. One that says it is a GPU, rightly or not, gets the shaders
    /// of a GPU: its driver is made for them.
    pub says_software: bool,
    /// How the work is shaped, where not as [`Tuning::of`] says.
    pub tuning: Option<Tuning>,
    /// A fault outside an error scope. While it is set the result of a call cannot be trusted.
    pub fault: Fault,
    /// How long to wait for one submission. (A browser waits as long as it likes, and then takes the device away.)
    #[cfg_attr(target_family = "wasm", allow(dead_code))]
    pub patience: Duration,
}

/// Where the callbacks of a device leave what went wrong; clones share it. Of each kind the first reason is
/// kept: those after it follow from it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault(Arc<Mutex<Reasons>>);

#[derive(Debug, Default)]
struct Reasons {
    lost: Option<String>,
    refused: Option<String>,
}

impl Fault {
    /// The device is lost, for good.
    pub fn lose(&self, reason: String) {
        self.reasons().lost.get_or_insert(reason);
    }

    /// The device refused some work: memory it has not got, or what wgpu finds invalid.
    pub fn refuse(&self, reason: String) {
        self.reasons().refused.get_or_insert(reason);
    }

    /// Forgets what was refused: that was the business of an earlier call.
    pub fn forgive(&self) {
        self.reasons().refused = None;
    }

    /// Why the device is lost, if it is.
    pub fn lost(&self) -> Option<String> {
        self.reasons().lost.clone()
    }

    /// The reason, if anything went wrong.
    pub fn get(&self) -> Option<String> {
        let reasons = self.reasons();
        reasons.lost.as_ref().or(reasons.refused.as_ref()).cloned()
    }

    fn reasons(&self) -> std::sync::MutexGuard<'_, Reasons> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a device may take over one submission, a few hundred short dispatches, before it is given up as
/// hung. Slow software drivers on busy machines take seconds.
const PATIENCE: Duration = Duration::from_secs(300);

/// How to open a device; tests ask for devices that fail.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    /// Which.
    pub choice: DeviceChoice,
    /// Features to have where the adapter has them.
    pub features: wgpu::Features,
    /// Limits, where not all that the adapter offers.
    pub limits: Option<wgpu::Limits>,
    /// At which share of the memory the device refuses buffers, or is lost.
    pub memory: wgpu::MemoryBudgetThresholds,
    /// How long to wait for one submission.
    pub patience: Duration,
    /// How the work is shaped, where not as the device wants it.
    pub tuning: Option<Tuning>,
}

impl Opening {
    /// The device of a choice, with all it offers.
    pub fn new(choice: DeviceChoice) -> Self {
        Self {
            choice,
            features: wgpu::Features::empty(),
            limits: None,
            memory: wgpu::MemoryBudgetThresholds::default(),
            patience: PATIENCE,
            tuning: None,
        }
    }

    /// Opens it; `None` is the CPU backend. [`DeviceChoice::Cpu`] loads no driver.
    ///
    /// # Errors
    /// [`Error::NoDevice`] where nothing here fits the choice, [`Error::Device`] where what fits cannot run the
    /// shaders or its driver refuses to open it.
    pub async fn open(&self) -> Result<Option<OpenDevice>, Error> {
        if self.choice == DeviceChoice::Cpu {
            return Ok(None);
        }
        let mut found = found(self.memory).await;
        let infos: Vec<DeviceInfo> = found.iter().map(|(info, _)| info.clone()).collect();
        match select(&self.choice, &infos, named_adapter().as_deref())? {
            Some(at) => {
                let (info, adapter) = found.swap_remove(at);
                self.open_adapter(info, &adapter).await.map(Some)
            }
            None => Ok(None),
        }
    }

    async fn open_adapter(&self, info: DeviceInfo, adapter: &wgpu::Adapter) -> Result<OpenDevice, Error> {
        let request = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("eplb"),
            required_features: adapter.features() & self.features,
            required_limits: self.limits.clone().unwrap_or_else(|| adapter.limits()),
            experimental_features: wgpu::ExperimentalFeatures::disabled(),
            // A plan needs some MiB; the other hint reserves hundreds for each device.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        });
        let (device, queue) = request
            .await
            .map_err(|error| Error::Device { device: info.label(), reason: one_line(&error.to_string()) })?;
        let fault = Fault::default();
        // wgpu's own handler of errors panics.
        let seen = fault.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            seen.refuse(one_line(&error.to_string()))
        }));
        let seen = fault.clone();
        device.set_device_lost_callback(move |reason, message| {
            let destroyed = reason == wgpu::DeviceLostReason::Destroyed;
            let message = if destroyed { "it was destroyed" } else { &message };
            seen.lose(one_line(&format!("device lost: {message}")));
        });
        let says_software = adapter.get_info().device_type == wgpu::DeviceType::Cpu;
        let &Self { patience, tuning, .. } = self;
        Ok(OpenDevice { device, queue, info, says_software, tuning, fault, patience })
    }
}

/// Opens the device that `choice` means, with timestamp queries where it has them.
///
/// # Errors
/// As for [`Opening::open`].
pub(crate) async fn open_timed(choice: &DeviceChoice) -> Result<Option<OpenDevice>, Error> {
    Opening { features: wgpu::Features::TIMESTAMP_QUERY, ..Opening::new(choice.clone()) }.open().await
}

/// Error messages are one line; wgpu's are indented paragraphs.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The adapters, described and in order. The bus and the name settle what kind and API leave open, so that
/// equal GPUs keep their positions from run to run.
async fn found(memory: wgpu::MemoryBudgetThresholds) -> Vec<(DeviceInfo, wgpu::Adapter)> {
    let mut desc = wgpu::InstanceDescriptor::new_without_display_handle();
    desc.memory_budget_thresholds = memory;
    // Without validation layers and their complaints of not being installed, unless the environment asks.
    desc.flags = wgpu::InstanceFlags::empty();
    let mut desc = desc.with_env();
    // The no-op backend computes nothing.
    desc.backends &= wgpu::Backends::PRIMARY | wgpu::Backends::GL;
    let backends = desc.backends;
    let mut adapters = wgpu::Instance::new(desc).enumerate_adapters(backends).await;
    adapters.sort_by_cached_key(sort_key);
    adapters.into_iter().map(|adapter| (described(&adapter), adapter)).collect()
}

fn sort_key(adapter: &wgpu::Adapter) -> (u8, u8, String, String) {
    let info = adapter.get_info();
    let kind = match kind_of(&info) {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    let backend = match info.backend {
        wgpu::Backend::Vulkan => 0,
        wgpu::Backend::Metal => 1,
        wgpu::Backend::Dx12 => 2,
        _ => 3,
    };
    (kind, backend, info.device_pci_bus_id, info.name)
}

fn kind_name(kind: wgpu::DeviceType) -> &'static str {
    match kind {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "other",
    }
}

fn compute_limits(limits: &wgpu::Limits, info: &wgpu::AdapterInfo) -> Vec<(&'static str, u64)> {
    vec![
        ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage.into()),
        ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
        ("max_uniform_buffer_binding_size", limits.max_uniform_buffer_binding_size),
        ("max_buffer_size", limits.max_buffer_size),
        (
            "max_dynamic_uniform_buffers_per_pipeline_layout",
            limits.max_dynamic_uniform_buffers_per_pipeline_layout.into(),
        ),
        ("min_uniform_buffer_offset_alignment", limits.min_uniform_buffer_offset_alignment.into()),
        ("min_storage_buffer_offset_alignment", limits.min_storage_buffer_offset_alignment.into()),
        ("max_compute_workgroup_storage_size", limits.max_compute_workgroup_storage_size.into()),
        ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup.into()),
        ("max_compute_workgroups_per_dimension", limits.max_compute_workgroups_per_dimension.into()),
        ("subgroup_min_size", info.subgroup_min_size.into()),
        ("subgroup_max_size", info.subgroup_max_size.into()),
    ]
}

/// The reason why an adapter of an old API cannot be used at all.
fn lacks(flags: wgpu::DownlevelFlags) -> Option<String> {
    let needed = [
        (wgpu::DownlevelFlags::COMPUTE_SHADERS, "compute shaders"),
        (wgpu::DownlevelFlags::INDIRECT_EXECUTION, "indirect dispatches"),
    ];
    let lacking = needed.iter().find(|(flag, _)| !flags.contains(*flag));
    lacking.map(|(_, what)| format!("it has no {what}"))
}

/// The first limit that is lower than the shaders need, as a reason.
fn too_low(limits: &[(&'static str, u64)]) -> Option<String> {
    NEEDED.iter().find_map(|&(name, needed)| {
        let value = limits.iter().find(|limit| limit.0 == name)?.1;
        (value < needed).then(|| format!("its {name} {value} is less than {needed}"))
    })
}

fn named_adapter() -> Option<String> {
    std::env::var(ADAPTER_NAME).ok().filter(|name| !name.is_empty())
}

/// The position in `found` of the adapter that `choice` means, none for the CPU backend. `named` is the value
/// of [`ADAPTER_NAME`]: it narrows `Auto` and `Gpu`, which leave the adapter open.
fn select(choice: &DeviceChoice, found: &[DeviceInfo], named: Option<&str>) -> Result<Option<usize>, Error> {
    let lower = |text: &str| text.to_lowercase();
    // As in wgpu, the variable is matched with the name alone.
    let honoured = |info: &DeviceInfo| named.is_none_or(|name| lower(&info.name).contains(&lower(name)));
    let (wanted, at) = match choice {
        DeviceChoice::Cpu => return Ok(None),
        DeviceChoice::Auto => {
            let fits =
                |info: &DeviceInfo| info.unusable_because.is_none() && info.is_real_gpu() && honoured(info);
            return Ok(found.iter().position(fits));
        }
        DeviceChoice::Gpu => {
            let wanted =
                named.map_or_else(|| "gpu".to_string(), |name| format!("gpu with {ADAPTER_NAME}={name}"));
            (wanted, first(found, honoured))
        }
        DeviceChoice::Index(index) => (index.to_string(), (*index < found.len()).then_some(*index)),
        DeviceChoice::Name(name) => {
            let searched =
                |info: &DeviceInfo| lower(&format!("{} {} {}", info.name, info.backend, info.driver));
            (name.clone(), first(found, |info| searched(info).contains(&lower(name))))
        }
    };
    let labels = || found.iter().enumerate().map(|(at, info)| format!("{at}: {}", info.label())).collect();
    let at = at.ok_or_else(|| Error::NoDevice { wanted, found: labels() })?;
    match &found[at].unusable_because {
        None => Ok(Some(at)),
        Some(reason) => Err(Error::Device { device: found[at].label(), reason: reason.clone() }),
    }
}

/// The first device that fits, a usable one if there is any.
fn first(found: &[DeviceInfo], fits: impl Fn(&DeviceInfo) -> bool) -> Option<usize> {
    let usable = found.iter().position(|info| info.unusable_because.is_none() && fits(info));
    usable.or_else(|| found.iter().position(fits))
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
