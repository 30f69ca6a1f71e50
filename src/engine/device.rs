//! Which devices there are, which one a choice takes, and opening it.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use crate::error::Error;

/// Which device makes the plans. All give the same plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// A real GPU if there is one, else the CPU backend, which is faster than a software driver.
    #[default]
    Auto,
    /// The CPU backend.
    Cpu,
    /// Any adapter wgpu finds, real ones first, software drivers too.
    Gpu,
    /// The adapter of this index in [`devices`].
    Index(usize),
    /// The first adapter whose name, driver or backend contains this, in any case.
    Name(String),
}

impl FromStr for DeviceChoice {
    type Err = std::convert::Infallible;

    /// `auto`, `cpu`, `gpu`, an index, or a part of a name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.to_lowercase().as_str() {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "gpu" => Self::Gpu,
            other => other.parse().map_or_else(|_| Self::Name(text.to_string()), Self::Index),
        })
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu => f.write_str("gpu"),
            Self::Index(index) => write!(f, "{index}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// What is known of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Name of the adapter, or `CPU backend`.
    pub name: String,
    /// The graphics API in lower case (`vulkan`, `metal`, `dx12`, `gl`), or `cpu`.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `software`, `other`, or `cpu`.
    pub kind: String,
    /// Name of the driver.
    pub driver: String,
    /// Version of the driver.
    pub driver_info: String,
    /// Whether a driver runs the shaders on the CPU.
    pub is_software: bool,
    /// Why the device cannot be used, if it cannot.
    pub why_not: Option<String>,
    /// Optional features it has.
    pub features: Vec<String>,
    /// Limits that matter here, with their values.
    pub limits: Vec<(&'static str, u64)>,
}

impl DeviceInfo {
    /// The CPU backend.
    pub(crate) fn cpu() -> Self {
        Self {
            name: "CPU backend".into(),
            backend: "cpu".into(),
            kind: "cpu".into(),
            driver: String::new(),
            driver_info: String::new(),
            is_software: false,
            why_not: None,
            features: Vec::new(),
            limits: vec![("threads", rayon::current_num_threads() as u64)],
        }
    }

    /// Name and backend on one line.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} ({})", self.name, self.backend)
    }

    fn of(adapter: &wgpu::Adapter) -> Self {
        let info = adapter.get_info();
        let limits = adapter.limits();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        };
        // llvmpipe through GL does not say that it is software; its name does.
        let software = kind == "software" || info.name.to_lowercase().contains("llvmpipe");
        Self {
            backend: info.backend.to_str().to_lowercase(),
            kind: if software { "software" } else { kind }.into(),
            driver: info.driver,
            driver_info: info.driver_info,
            is_software: software,
            why_not: why_not(adapter, &limits),
            features: adapter.features().iter_names().map(|(name, _)| name.to_string()).collect(),
            limits: vec![
                ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
                ("max_buffer_size", limits.max_buffer_size),
                ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage.into()),
                (
                    "max_compute_invocations_per_workgroup",
                    limits.max_compute_invocations_per_workgroup.into(),
                ),
                ("max_compute_workgroups_per_dimension", limits.max_compute_workgroups_per_dimension.into()),
                ("max_compute_workgroup_storage_size", limits.max_compute_workgroup_storage_size.into()),
                ("subgroup_min_size", info.subgroup_min_size.into()),
                ("subgroup_max_size", info.subgroup_max_size.into()),
            ],
            name: info.name,
        }
    }

    /// Real GPUs first, then software drivers.
    fn rank(&self) -> u8 {
        match self.kind.as_str() {
            "discrete" => 0,
            "integrated" => 1,
            "virtual" | "other" => 2,
            _ => 3,
        }
    }
}

/// What an adapter lacks of what the shaders need.
fn why_not(adapter: &wgpu::Adapter, limits: &wgpu::Limits) -> Option<String> {
    let flags = adapter.get_downlevel_capabilities().flags;
    if !flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS) {
        return Some("no compute shaders".into());
    }
    let needs = [
        ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage, 4),
        ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup, 64),
        (
            "max_dynamic_uniform_buffers_per_pipeline_layout",
            limits.max_dynamic_uniform_buffers_per_pipeline_layout,
            1,
        ),
    ];
    needs
        .iter()
        .find(|(_, has, need)| has < need)
        .map(|(name, has, need)| format!("{name} {has} is less than {need}"))
}

/// All adapters, in wgpu's order, with what is known of each. `WGPU_BACKEND` limits the search.
async fn adapters() -> Vec<(wgpu::Adapter, DeviceInfo)> {
    let descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    let backends = wgpu::Backends::PRIMARY.union(wgpu::Backends::GL).with_env();
    let flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor { backends, flags, ..descriptor });
    let found = instance.enumerate_adapters(backends).await;
    found.into_iter().map(|adapter| (DeviceInfo::of(&adapter), adapter)).map(|(i, a)| (a, i)).collect()
}

/// Every adapter on this machine, in the order of their indices. `WGPU_BACKEND` limits the search.
#[must_use]
pub fn devices() -> Vec<DeviceInfo> {
    pollster::block_on(adapters()).into_iter().map(|(_, info)| info).collect()
}

/// What [`DeviceChoice::Auto`] takes here.
#[must_use]
pub fn auto_device() -> DeviceInfo {
    let found = devices();
    let real = found.into_iter().filter(|info| !info.is_software && info.why_not.is_none());
    real.min_by_key(DeviceInfo::rank).unwrap_or_else(DeviceInfo::cpu)
}

/// An open device and its queue.
pub struct OpenDevice {
    /// The device.
    pub device: wgpu::Device,
    /// Its queue.
    pub queue: wgpu::Queue,
    /// What is known of it.
    pub info: DeviceInfo,
    /// The first thing that went wrong with it, if anything did.
    pub fault: Fault,
}

/// Where the device's callbacks leave what went wrong.
#[derive(Clone, Default)]
pub struct Fault(Arc<Mutex<Option<String>>>);

impl Fault {
    /// Keeps the first reason.
    pub fn set(&self, reason: String) {
        let mut fault = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        fault.get_or_insert(reason);
    }

    /// The first reason, if any.
    pub fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// Opens the device of a choice; `None` is the CPU backend.
///
/// # Errors
/// [`Error::NoDevice`] where no adapter fits the choice, [`Error::Device`] where the driver refuses.
pub async fn open(choice: &DeviceChoice) -> Result<Option<OpenDevice>, Error> {
    if *choice == DeviceChoice::Cpu {
        return Ok(None);
    }
    let found = adapters().await;
    let names: Vec<String> = found.iter().map(|(_, info)| info.label()).collect();
    let wanted_name = std::env::var("WGPU_ADAPTER_NAME").ok().map(|name| name.to_lowercase());
    let named = |info: &DeviceInfo, part: &str| {
        format!("{} {} {}", info.name, info.driver, info.backend).to_lowercase().contains(part)
    };
    let honoured = |info: &DeviceInfo| wanted_name.as_ref().is_none_or(|part| named(info, part));
    let fits = |index: usize, info: &DeviceInfo| match choice {
        DeviceChoice::Cpu => false,
        DeviceChoice::Auto => info.why_not.is_none() && !info.is_software && honoured(info),
        DeviceChoice::Gpu => info.why_not.is_none() && honoured(info),
        DeviceChoice::Index(wanted) => index == *wanted,
        DeviceChoice::Name(part) => named(info, &part.to_lowercase()),
    };
    let chosen = found.into_iter().enumerate().filter(|(index, (_, info))| fits(*index, info));
    let Some((_, (adapter, info))) = chosen.min_by_key(|(index, (_, info))| (info.rank(), *index)) else {
        return match choice {
            DeviceChoice::Auto => Ok(None),
            _ => Err(Error::NoDevice { wanted: choice.to_string(), found: names }),
        };
    };
    if let Some(reason) = &info.why_not {
        return Err(Error::Device { device: info.label(), reason: reason.clone() });
    }
    let request = adapter.request_device(&wgpu::DeviceDescriptor {
        label: Some("eplb"),
        required_features: wgpu::Features::empty(),
        required_limits: adapter.limits(),
        experimental_features: wgpu::ExperimentalFeatures::disabled(),
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        trace: wgpu::Trace::Off,
    });
    let (device, queue) =
        request.await.map_err(|error| Error::Device { device: info.label(), reason: error.to_string() })?;
    let fault = Fault::default();
    let lost = fault.clone();
    device.set_device_lost_callback(move |reason, message| {
        // Dropping the device also ends here; that is no fault.
        if reason != wgpu::DeviceLostReason::Destroyed || !message.is_empty() {
            lost.set(format!("device lost ({reason:?}): {message}"));
        }
    });
    let uncaptured = fault.clone();
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| uncaptured.set(error.to_string())));
    Ok(Some(OpenDevice { device, queue, info, fault }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_read_as_they_print() {
        for text in ["auto", "cpu", "gpu", "3", "lavapipe"] {
            let choice: DeviceChoice = text.parse().unwrap();
            assert_eq!(choice.to_string(), text);
        }
    }
}
