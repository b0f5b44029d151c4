//! The adapters that wgpu finds, in an order that is fixed for the life of the process.

use std::sync::OnceLock;

use pyo3::prelude::*;
use wgpu::{Backend, Backends, DeviceType, Instance};

use crate::failure::Failure;

/// A device as one graphics interface shows it.
///
/// A device that two interfaces reach (for example Vulkan and Gl) is listed once for each.
#[pyclass(
    frozen,
    get_all,
    eq,
    hash,
    skip_from_py_object,
    module = "rwkvperf_web_rwkv"
)]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Adapter {
    /// Position in `adapters()`.
    index: usize,
    /// The device's name, as its driver gives it.
    name: String,
    /// "discrete-gpu", "integrated-gpu", "virtual-gpu", "cpu" or "other".
    kind: &'static str,
    /// "vulkan", "metal", "dx12" or "gl".
    backend: &'static str,
    /// The driver's name; empty where the interface does not report it.
    driver: String,
    /// The driver's version, as the driver writes it; empty where the interface does not report it.
    driver_info: String,
    /// PCI vendor id; 0 where the interface does not report it.
    vendor: u32,
    /// PCI device id; 0 where the interface does not report it.
    device: u32,
    /// PCI address such as "0000:01:00.0"; None where the interface does not report it.
    pci_bus_id: Option<String>,
}

impl Adapter {
    fn new(index: usize, info: wgpu::AdapterInfo) -> Self {
        Self {
            index,
            name: info.name,
            kind: kind_name(info.device_type),
            backend: info.backend.to_str(),
            driver: info.driver,
            driver_info: info.driver_info,
            vendor: info.vendor,
            device: info.device,
            pci_bus_id: Some(info.device_pci_bus_id).filter(|id| !id.is_empty()),
        }
    }

    /// "adapter 0 (NVIDIA H200, vulkan)", for error sentences.
    pub fn label(&self) -> String {
        format!("adapter {} ({}, {})", self.index, self.name, self.backend)
    }
}

#[pymethods]
impl Adapter {
    fn __repr__(&self) -> String {
        format!(
            "Adapter(index={}, name={:?}, kind={:?}, backend={:?}, driver={:?}, driver_info={:?})",
            self.index, self.name, self.kind, self.backend, self.driver, self.driver_info
        )
    }
}

/// An adapter with the handle that opens it.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub adapter: Adapter,
    pub handle: wgpu::Adapter,
}

/// Every adapter of this machine, in a stable order: see [`rank`].
///
/// They are enumerated once per process, so that an index means the same device for the life of the process.
pub fn all() -> &'static [Candidate] {
    static ALL: OnceLock<Vec<Candidate>> = OnceLock::new();
    ALL.get_or_init(enumerate)
}

/// The adapter at `index` of [`all`].
pub fn pick(index: i64) -> Result<Candidate, Failure> {
    let candidates = all();
    usize::try_from(index)
        .ok()
        .and_then(|index| candidates.get(index))
        .cloned()
        .ok_or_else(|| out_of_range(index, candidates.len()))
}

fn out_of_range(index: i64, count: usize) -> Failure {
    match count {
        0 => Failure::Engine(
            "wgpu finds no adapter on this machine: install a Vulkan driver (Mesa's llvmpipe runs on any processor)"
                .into(),
        ),
        _ => Failure::Value(format!(
            "adapter is {index}, but adapters() lists 0 to {} on this machine",
            count - 1
        )),
    }
}

fn enumerate() -> Vec<Candidate> {
    let instance = Instance::default();
    let handles = crate::engine::wait(instance.enumerate_adapters(Backends::all()));
    let mut pairs: Vec<_> = handles
        .into_iter()
        .map(|handle| (handle.get_info(), handle))
        .collect();
    pairs.sort_by_key(|(info, _)| rank(info.backend, info.device_type));
    pairs
        .into_iter()
        .enumerate()
        .map(|(index, (info, handle))| Candidate {
            adapter: Adapter::new(index, info),
            handle,
        })
        .collect()
}

/// Sort key: Vulkan, then Metal, Direct3D 12, Gl; within one interface the fastest kind first. Adapters of equal rank
/// keep the driver's own order (the sort is stable).
const fn rank(backend: Backend, kind: DeviceType) -> (u8, u8) {
    let backend = match backend {
        Backend::Vulkan => 0,
        Backend::Metal => 1,
        Backend::Dx12 => 2,
        Backend::Gl => 3,
        Backend::BrowserWebGpu => 4,
        Backend::Noop => 5,
    };
    let kind = match kind {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    };
    (backend, kind)
}

const fn kind_name(kind: DeviceType) -> &'static str {
    match kind {
        DeviceType::DiscreteGpu => "discrete-gpu",
        DeviceType::IntegratedGpu => "integrated-gpu",
        DeviceType::VirtualGpu => "virtual-gpu",
        DeviceType::Cpu => "cpu",
        DeviceType::Other => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vulkan_comes_first_and_the_fastest_kind_before_the_others() {
        let mut pairs = [
            (Backend::Gl, DeviceType::DiscreteGpu),
            (Backend::Vulkan, DeviceType::Cpu),
            (Backend::Dx12, DeviceType::DiscreteGpu),
            (Backend::Vulkan, DeviceType::IntegratedGpu),
            (Backend::Vulkan, DeviceType::DiscreteGpu),
        ];
        pairs.sort_by_key(|(backend, kind)| rank(*backend, *kind));
        assert_eq!(
            pairs,
            [
                (Backend::Vulkan, DeviceType::DiscreteGpu),
                (Backend::Vulkan, DeviceType::IntegratedGpu),
                (Backend::Vulkan, DeviceType::Cpu),
                (Backend::Dx12, DeviceType::DiscreteGpu),
                (Backend::Gl, DeviceType::DiscreteGpu),
            ]
        );
    }

    #[test]
    fn interface_names_are_the_documented_ones() {
        let names =
            [Backend::Vulkan, Backend::Metal, Backend::Dx12, Backend::Gl].map(Backend::to_str);
        assert_eq!(names, ["vulkan", "metal", "dx12", "gl"]);
    }

    #[test]
    fn an_index_out_of_range_names_the_range() {
        assert_eq!(
            out_of_range(-1, 2),
            Failure::Value("adapter is -1, but adapters() lists 0 to 1 on this machine".into())
        );
        assert!(matches!(out_of_range(0, 0), Failure::Engine(text) if text.contains("no adapter")));
    }
}
