//! Refusals of a device, caught where the device is asked: a browser tells of them later, by events.

use super::device::{Fault, one_line};

/// Error scopes, open until they are closed. What is refused in them is told by [`Scopes::close`] alone.
pub struct Scopes {
    // In this order they go, the last one first.
    validation: wgpu::ErrorScopeGuard,
    memory: wgpu::ErrorScopeGuard,
    /// Nobody asks what this one has caught: of a browser wgpu cannot take such errors. They are those of pipelines,
    /// whose use is then invalid.
    _internal: Option<wgpu::ErrorScopeGuard>,
}

impl Scopes {
    pub fn open(device: &wgpu::Device) -> Self {
        let internal =
            cfg!(target_family = "wasm").then(|| device.push_error_scope(wgpu::ErrorFilter::Internal));
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        Self { validation, memory, _internal: internal }
    }

    /// Leaves what was refused with the faults of the device.
    pub fn close(self, fault: &Fault) -> impl Future<Output = ()> + use<> {
        let (validation, memory) = (self.validation.pop(), self.memory.pop());
        let fault = fault.clone();
        async move {
            // Memory first: what lacks it is invalid.
            for error in [memory.await, validation.await].into_iter().flatten() {
                fault.refuse(one_line(&error.to_string()));
            }
        }
    }
}
