//! The rules of selection, on made-up lists of devices.

use super::*;

fn device(name: &str, backend: &str, kind: &str) -> DeviceInfo {
    DeviceInfo {
        name: name.to_string(),
        backend: backend.to_string(),
        kind: kind.to_string(),
        driver: format!("{name} driver"),
        is_software: kind == "software",
        ..DeviceInfo::cpu()
    }
}

fn unusable(mut info: DeviceInfo) -> DeviceInfo {
    info.unusable_because = Some("it has no compute shaders".to_string());
    info
}

/// A GPU, and a software driver on two APIs.
fn workstation() -> Vec<DeviceInfo> {
    vec![
        device("Radeon 7", "vulkan", "discrete"),
        device("Soft Pipe", "vulkan", "software"),
        device("Soft Pipe", "gl", "software"),
    ]
}

/// A server without a GPU: an adapter that cannot be used, and a software driver.
fn server() -> Vec<DeviceInfo> {
    vec![unusable(device("Old GL", "gl", "integrated")), device("Soft Pipe", "vulkan", "software")]
}

#[test]
fn auto_takes_a_real_gpu_else_the_cpu_backend() {
    assert_eq!(select(&DeviceChoice::Auto, &workstation(), None), Ok(Some(0)));
    assert_eq!(select(&DeviceChoice::Auto, &server(), None), Ok(None));
    assert_eq!(select(&DeviceChoice::Auto, &[], None), Ok(None));
    assert_eq!(select(&DeviceChoice::Auto, &[device("Mystery", "gl", "other")], None), Ok(None));
}

#[test]
fn gpu_takes_any_usable_adapter_and_never_the_cpu_backend() {
    assert_eq!(select(&DeviceChoice::Gpu, &workstation(), None), Ok(Some(0)));
    assert_eq!(select(&DeviceChoice::Gpu, &server(), None), Ok(Some(1)));
    let error = select(&DeviceChoice::Gpu, &[], None).unwrap_err();
    assert_eq!(error.to_string(), "device gpu is not here; found: none");
}

#[test]
fn cpu_is_the_cpu_backend_whatever_the_environment_names() {
    assert_eq!(select(&DeviceChoice::Cpu, &workstation(), Some("radeon")), Ok(None));
}

#[test]
fn the_environment_narrows_auto_and_gpu_alone() {
    let with = |choice: DeviceChoice, name| select(&choice, &workstation(), Some(name));
    assert_eq!(with(DeviceChoice::Gpu, "soft PIPE"), Ok(Some(1)));
    assert_eq!(with(DeviceChoice::Auto, "radeon"), Ok(Some(0)));
    assert_eq!(with(DeviceChoice::Auto, "soft"), Ok(None));
    let error = with(DeviceChoice::Gpu, "GeForce").unwrap_err().to_string();
    assert!(
        error.starts_with("device gpu with WGPU_ADAPTER_NAME=GeForce is not here; found: 0: Rad"),
        "{error}"
    );
    // As in wgpu, the variable is matched with the name alone.
    assert!(with(DeviceChoice::Gpu, "vulkan").is_err());
    assert_eq!(with(DeviceChoice::Index(2), "radeon"), Ok(Some(2)));
    assert_eq!(with(DeviceChoice::Name("pipe".into()), "radeon"), Ok(Some(1)));
}

#[test]
fn names_are_parts_of_name_backend_and_driver_in_any_case() {
    let by_name = |name: &str| select(&DeviceChoice::Name(name.to_string()), &workstation(), None);
    assert_eq!(by_name("SOFT"), Ok(Some(1)));
    assert_eq!(by_name("pipe gl"), Ok(Some(2)));
    assert_eq!(by_name("vulkan radeon 7 driver"), Ok(Some(0)));
    let found = ["0: Radeon 7 (vulkan)", "1: Soft Pipe (vulkan)", "2: Soft Pipe (gl)"].map(String::from);
    assert_eq!(
        by_name("GeForce"),
        Err(Error::NoDevice { wanted: "GeForce".to_string(), found: found.to_vec() })
    );
}

#[test]
fn an_index_counts_the_list() {
    assert_eq!(select(&DeviceChoice::Index(2), &workstation(), None), Ok(Some(2)));
    let error = select(&DeviceChoice::Index(3), &workstation(), None).unwrap_err();
    assert!(matches!(error, Error::NoDevice { wanted, found } if wanted == "3" && found.len() == 3));
}

#[test]
fn an_unusable_adapter_is_refused_with_its_reason() {
    let reason = "device Old GL (gl) failed: it has no compute shaders";
    for choice in [DeviceChoice::Index(0), DeviceChoice::Name("old".into())] {
        assert_eq!(select(&choice, &server(), None).unwrap_err().to_string(), reason);
    }
    assert_eq!(select(&DeviceChoice::Gpu, &server(), Some("old")).unwrap_err().to_string(), reason);
}

#[test]
fn a_driver_before_a_software_driver_is_software_where_it_tells() {
    use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu, VirtualGpu};
    let kind = |kind, name: &str, driver: &str, vendor, vector| {
        let mut info = wgpu::AdapterInfo::new(kind, wgpu::Backend::Dx12);
        (info.name, info.driver, info.vendor) = (name.into(), driver.into(), vendor);
        info.subgroup_max_size = vector;
        kind_of(&info)
    };
    assert_eq!(
        kind(VirtualGpu, "Virtio-GPU Venus (llvmpipe (LLVM 19.1.7, 256 bits))", "venus", 0x1af4, 8),
        Cpu
    );
    assert_eq!(kind(IntegratedGpu, "ANGLE (Microsoft Basic Render Driver)", "", 0x1414, 4), Cpu);
    assert_eq!(kind(DiscreteGpu, "a GPU", "SwiftShader driver", 0, 4), Cpu);
    // Wine's vkd3d on lavapipe, and the card whose name it has.
    assert_eq!(kind(IntegratedGpu, "NVIDIA GeForce GTX 470", "9.21.13.9135", 0x10de, 8), Cpu);
    assert_eq!(kind(DiscreteGpu, "NVIDIA GeForce GTX 470", "9.21.13.9135", 0x10de, 32), DiscreteGpu);
    // Vectors of 8 lanes are no news of others, and on GLES they are not told: wgpu says 4 to 128.
    assert_eq!(kind(IntegratedGpu, "Intel(R) UHD Graphics 630", "Intel", 0x8086, 8), IntegratedGpu);
    assert_eq!(kind(DiscreteGpu, "NVIDIA H100", "NVIDIA", 0x10de, 128), DiscreteGpu);
    assert_eq!(kind(DiscreteGpu, "NVIDIA H100", "", 0x10de, 0), DiscreteGpu);
    assert_eq!(
        kind(DiscreteGpu, "AMD Radeon RX 7900", "radv Mesa 25.0.7 (LLVM 19.1.7)", 0x1002, 64),
        DiscreteGpu
    );
}

#[test]
fn limits_below_webgpus_defaults_make_an_adapter_unusable() {
    let adapter = wgpu::AdapterInfo::new(wgpu::DeviceType::Other, wgpu::Backend::Gl);
    let webgpu = compute_limits(&wgpu::Limits::default(), &adapter);
    assert_eq!(too_low(&webgpu), None);
    for (name, needed) in NEEDED {
        let mut low = webgpu.clone();
        low.iter_mut().find(|limit| limit.0 == name).unwrap().1 = needed - 1;
        assert_eq!(too_low(&low), Some(format!("its {name} {} is less than {needed}", needed - 1)));
    }
}

#[test]
fn what_an_old_api_lacks_makes_an_adapter_unusable() {
    let all = wgpu::DownlevelFlags::all();
    assert_eq!(lacks(all), None);
    let without = |flag| lacks(all - flag);
    assert_eq!(without(wgpu::DownlevelFlags::COMPUTE_SHADERS).as_deref(), Some("it has no compute shaders"));
    assert_eq!(
        without(wgpu::DownlevelFlags::INDIRECT_EXECUTION).as_deref(),
        Some("it has no indirect dispatches")
    );
}

#[test]
fn choices_are_read_as_they_are_written() {
    for text in ["auto", "cpu", "gpu", "3", "NVIDIA H100"] {
        assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
    }
    assert_eq!(" GPU ".parse(), Ok(DeviceChoice::Gpu));
    assert!("  ".parse::<DeviceChoice>().is_err());
}

#[test]
fn of_each_kind_the_first_fault_is_kept_and_a_loss_is_for_good() {
    let fault = Fault::default();
    assert_eq!((fault.get(), fault.lost()), (None, None));
    let shared = fault.clone();
    std::thread::spawn(move || shared.refuse("no memory".to_string())).join().unwrap();
    fault.refuse("no buffer".to_string());
    assert_eq!((fault.get().as_deref(), fault.lost()), (Some("no memory"), None));
    fault.forgive();
    assert_eq!(fault.get(), None);
    fault.refuse("refused".to_string());
    fault.lose("lost".to_string());
    fault.lose("lost again".to_string());
    fault.forgive();
    assert_eq!((fault.get().as_deref(), fault.lost().as_deref()), (Some("lost"), Some("lost")));
}

/// The adapter that `gpu` means. Its absence is a failure unless the environment allows it, as in `tests/device`.
fn open_gpu() -> Option<OpenDevice> {
    match pollster::block_on(Opening::new(DeviceChoice::Gpu).open()) {
        Ok(open) => Some(open.expect("gpu is never the CPU backend")),
        Err(error) if std::env::var("EPLB_ALLOW_NO_ADAPTER").as_deref() == Ok("1") => {
            eprintln!("not run: {error}");
            None
        }
        Err(error) => panic!("{error}; EPLB_ALLOW_NO_ADAPTER=1 goes without"),
    }
}

#[test]
fn refused_work_is_recorded_instead_of_a_panic() {
    let Some(open) = open_gpu() else { return };
    assert_eq!((&open.info.unusable_because, open.fault.get()), (&None, None));
    let too_large = open.device.limits().max_buffer_size + 4;
    let _ = open.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("too large"),
        size: too_large,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let reason = open.fault.get().expect("the handler is called before create_buffer returns");
    assert!(reason.contains(&too_large.to_string()) && !reason.contains('\n'), "{reason}");
}

#[test]
fn a_device_that_is_destroyed_is_lost() {
    let Some(open) = open_gpu() else { return };
    open.device.destroy();
    open.device.poll(wgpu::PollType::Poll).unwrap();
    let reason = open.fault.lost().expect("the callback has been called");
    assert!(reason.starts_with("device lost: "), "{reason}");
}

#[test]
fn cpu_opens_no_device() {
    assert!(pollster::block_on(Opening::new(DeviceChoice::Cpu).open()).unwrap().is_none());
}
