//! Devices: what a configuration may ask for, and how CUDA comes into a process that was not linked against it.
//!
//! Binaries link libtorch_cpu alone, so that one build starts on every host. Where there is an NVIDIA driver,
//! [`load_cuda`] loads `libtorch_cuda.so` into the running process; its kernels register themselves then. libtorch
//! answers the question "is there CUDA?" once and for all, so this has to happen before anybody asks:
//! [`DeviceSpec::resolve`] sees to it.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};
use serde::{Deserialize, Serialize};

use crate::error::DeviceError;
use crate::switches::Switches;

/// The CUDA half of libtorch.
const CUDA_LIBRARY: &str = "libtorch_cuda.so";
/// The user-space half of the NVIDIA driver.
const DRIVER_LIBRARY: &str = "libcuda.so.1";

/// A device as a configuration names it: `"auto"`, `"cpu"`, `"cuda"` (the same as `"cuda:0"`) or `"cuda:N"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceSpec {
    /// The first GPU if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU with this index.
    Cuda(usize),
}

impl DeviceSpec {
    /// The device to compute on. Loads the CUDA library if the answer may depend on it.
    ///
    /// # Errors
    /// If a GPU is asked for by name and is not there: the message says what was looked for, and where.
    pub fn resolve(self) -> Result<tch::Device, DeviceError> {
        match self {
            DeviceSpec::Cpu => Ok(tch::Device::Cpu),
            DeviceSpec::Auto => {
                let library = load_cuda();
                match cuda_devices() {
                    0 => {
                        if library.driver.is_ok() {
                            tracing::warn!("computing on the CPU although there is an NVIDIA driver: {library}");
                        }
                        Ok(tch::Device::Cpu)
                    }
                    _ => Ok(tch::Device::Cuda(0)),
                }
            }
            DeviceSpec::Cuda(index) => choose(index, cuda_devices(), load_cuda()),
        }
    }
}

/// The GPU `index` out of `count`.
fn choose(index: usize, count: usize, library: &CudaLibrary) -> Result<tch::Device, DeviceError> {
    if count == 0 {
        let none = if library.loaded.is_some() { "; it finds no GPU" } else { "" };
        return Err(DeviceError::NoCuda { index, looked_for: format!("{library}{none}") });
    }
    if index >= count {
        return Err(DeviceError::NoSuchGpu { index, count });
    }
    Ok(tch::Device::Cuda(index))
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceSpec::Auto => f.write_str("auto"),
            DeviceSpec::Cpu => f.write_str("cpu"),
            DeviceSpec::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        match name {
            "auto" => Ok(DeviceSpec::Auto),
            "cpu" => Ok(DeviceSpec::Cpu),
            "cuda" => Ok(DeviceSpec::Cuda(0)),
            _ => name
                .strip_prefix("cuda:")
                .filter(|index| index.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|index| index.parse().ok())
                .map(DeviceSpec::Cuda)
                .ok_or_else(|| DeviceError::Unknown(name.to_owned())),
        }
    }
}

impl TryFrom<String> for DeviceSpec {
    type Error = DeviceError;

    fn try_from(name: String) -> Result<Self, DeviceError> {
        name.parse()
    }
}

impl From<DeviceSpec> for String {
    fn from(spec: DeviceSpec) -> String {
        spec.to_string()
    }
}

/// What came of looking for CUDA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaLibrary {
    /// Whether the NVIDIA driver's `libcuda.so.1` can be loaded, or the loader's reason why not. Without a driver the
    /// library, a gigabyte with all it needs, is not loaded.
    pub driver: Result<(), String>,
    /// The file that was loaded.
    pub loaded: Option<PathBuf>,
    /// The files that were looked at before it and why each was not loaded.
    pub passed_over: Vec<(PathBuf, String)>,
}

impl fmt::Display for CudaLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.driver {
            Ok(()) => write!(f, "driver {DRIVER_LIBRARY}: loaded")?,
            Err(reason) => write!(f, "no NVIDIA driver ({})", reason.trim())?,
        }
        for (path, reason) in &self.passed_over {
            write!(f, "; {}: {}", path.display(), reason.trim())?;
        }
        match &self.loaded {
            Some(path) => write!(f, "; {}: loaded", path.display())?,
            None if self.driver.is_ok() => {
                write!(f, "; `make libtorch CUDA=1` fetches the CUDA libraries, and LD_LIBRARY_PATH is searched too")?;
            }
            None => {}
        }
        if self.loaded.is_some()
            && let Some(visible) = env::var_os("CUDA_VISIBLE_DEVICES")
        {
            write!(f, "; CUDA_VISIBLE_DEVICES is {visible:?}")?;
        }
        Ok(())
    }
}

/// Loads the CUDA half of libtorch into this process, at the first call; later calls return what came of it.
///
/// Looks beside the `libtorch_cpu.so` that is in use (its real place: the folder that was linked holds symlinks), then
/// along `LD_LIBRARY_PATH`. A library of another version than the `libtorch_cpu.so` in use is passed over. Never fails:
/// a host without CUDA is no error until somebody asks for a GPU.
pub fn load_cuda() -> &'static CudaLibrary {
    static LIBRARY: OnceLock<CudaLibrary> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let driver = load(Path::new(DRIVER_LIBRARY), RTLD_LOCAL);
        let folder = libtorch_folder();
        let found = find_cuda(driver, folder.as_deref(), env::var_os("LD_LIBRARY_PATH").as_deref());
        tracing::debug!("CUDA: {found}");
        for path in found.loaded.iter().filter_map(|cuda| cuda.parent()).flat_map(companions) {
            let outcome = load(&path, RTLD_GLOBAL);
            tracing::debug!("CUDA: {}: {outcome:?}", path.display());
        }
        if found.loaded.is_some()
            && let Err(error) = Switches::get().map(|switches| switches.tf32(false))
        {
            tracing::warn!("TF32 cannot be switched off: {error}");
        }
        found
    })
}

/// Loads the first `libtorch_cuda.so` of the given folders that fits, if there is a driver for it.
fn find_cuda(driver: Result<(), String>, libtorch: Option<&Path>, search_path: Option<&OsStr>) -> CudaLibrary {
    let mut found = CudaLibrary { driver, loaded: None, passed_over: Vec::new() };
    let search_path: Vec<PathBuf> = search_path.map(env::split_paths).into_iter().flatten().collect();
    let on_path: Vec<&Path> = search_path
        .iter()
        .map(PathBuf::as_path)
        .filter(|folder| folder.is_absolute() && folder.join(CUDA_LIBRARY).exists())
        .collect();
    let version = libtorch.and_then(libtorch_version);
    for folder in libtorch.into_iter().chain(on_path.iter().copied()) {
        let path = folder.join(CUDA_LIBRARY);
        let outcome = if !path.exists() {
            Err("not there".to_owned())
        } else if found.driver.is_err() {
            Err("not loaded, for want of a driver".to_owned())
        } else {
            match (&version, libtorch_version(folder)) {
                (Some(ours), Some(theirs)) if *ours != theirs => {
                    Err(format!("version {theirs}, and the libtorch in use is {ours}"))
                }
                _ => load(&path, RTLD_GLOBAL),
            }
        };
        match outcome {
            Ok(()) => {
                found.loaded = Some(path);
                break;
            }
            Err(reason) => found.passed_over.push((path, reason)),
        }
    }
    // The path can be long (cargo extends it): one word for all of it, unless something was there.
    if found.loaded.is_none() && on_path.is_empty() && !search_path.is_empty() {
        found.passed_over.push(("LD_LIBRARY_PATH".into(), format!("no {CUDA_LIBRARY} there")));
    }
    found
}

/// The libraries that CUDA's half opens later, by their bare names, where the loader would not look: its own part for linear
/// algebra, and NVIDIA's compiler, with which cuDNN makes some kernels. `folder` is that of `libtorch_cuda.so`; Python's
/// packages have NVIDIA's libraries beside torch. Whatever is not there is not needed, or found on the usual paths.
fn companions(folder: &Path) -> Vec<PathBuf> {
    let packages = folder.parent().and_then(Path::parent).map(|packages| packages.join("nvidia"));
    let folders = packages.iter().flat_map(fs::read_dir).flatten().flatten().map(|package| package.path().join("lib"));
    let mut files: Vec<PathBuf> = folders.flat_map(fs::read_dir).flatten().flatten().map(|file| file.path()).collect();
    files.sort_unstable();
    let mut companions = Vec::new();
    // In the order in which they need each other.
    for start in ["libnvJitLink.so", "libnvrtc-builtins.so", "libnvrtc.so"] {
        for path in &files {
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)) {
                companions.push(path.clone());
            }
        }
    }
    let linear_algebra = folder.join("libtorch_cuda_linalg.so");
    if linear_algebra.exists() {
        companions.push(linear_algebra);
    }
    companions
}

/// Loads a shared library for the rest of the process.
fn load(path: &Path, visibility: std::ffi::c_int) -> Result<(), String> {
    // SAFETY: loading runs the initialisers of the library. The libraries that this module loads are the NVIDIA driver,
    // libtorch's own CUDA half, of the version in use, and what both load themselves later; their initialisers are made
    // to be run at any time (Python loads them likewise). No symbol is taken out, and the library is never unloaded.
    match unsafe { Library::open(Some(path), RTLD_NOW | visibility) } {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => Err(error_text(&error)),
    }
}

/// The loader's own words, which libloading keeps as the source of its error.
fn error_text(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// How many GPUs this process can use. Loads the CUDA library first.
pub fn cuda_devices() -> usize {
    match load_cuda().loaded {
        Some(_) => usize::try_from(tch::Cuda::device_count()).unwrap_or(0),
        None => 0,
    }
}

/// Waits until the device has done all that it was told to.
pub fn synchronize(device: tch::Device) {
    if let tch::Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

/// "cpu" or "cuda": what must not change between a run's beginning and its resumption.
pub(crate) fn family(device: tch::Device) -> &'static str {
    match device {
        tch::Device::Cpu => "cpu",
        tch::Device::Cuda(_) => "cuda",
        _ => "other",
    }
}

/// The folder from which `libtorch_cpu.so` was loaded, symlinks resolved. `None` if the kernel does not say.
pub(crate) fn libtorch_folder() -> Option<PathBuf> {
    folder_in_maps(&fs::read_to_string("/proc/self/maps").ok()?)
}

/// The folder of `libtorch_cpu.so` in the text of `/proc/self/maps`, whose lines end in the path of a mapped file.
fn folder_in_maps(maps: &str) -> Option<PathBuf> {
    maps.lines()
        .filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])))
        .find(|path| path.file_name() == Some(OsStr::new("libtorch_cpu.so")))
        .and_then(Path::parent)
        .map(Path::to_owned)
}

/// The version that the libtorch or the torch package around a `lib` folder says it is: `2.11.0+cu130`.
fn libtorch_version(lib: &Path) -> Option<String> {
    let package = lib.parent()?;
    if let Ok(version) = fs::read_to_string(package.join("build-version")) {
        return Some(version.trim().to_owned());
    }
    let python = fs::read_to_string(package.join("version.py")).ok()?;
    let line = python.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
    Some(line.trim_matches(['\'', '"', ' ']).to_owned())
}

/// What there is to compute with, for `limbeck doctor` and for the record of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceReport {
    /// The version of libtorch, such as `2.11.0+cu130`.
    pub libtorch_version: Option<String>,
    /// Where `libtorch_cpu.so` was loaded from.
    pub libtorch_folder: Option<PathBuf>,
    /// What came of looking for CUDA.
    pub cuda: &'static CudaLibrary,
    /// How many GPUs this process can use.
    pub gpus: usize,
    /// How many threads one operation uses on the CPU. The last bits of a result depend on it.
    pub threads: usize,
}

impl DeviceReport {
    /// Looks. Loads the CUDA library.
    pub fn gather() -> Self {
        let cuda = load_cuda();
        let libtorch_folder = libtorch_folder();
        Self {
            libtorch_version: libtorch_folder.as_deref().and_then(libtorch_version),
            libtorch_folder,
            cuda,
            gpus: cuda_devices(),
            threads: usize::try_from(tch::get_num_threads()).unwrap_or(0),
        }
    }

    /// What was found, in words, by name.
    pub fn entries(&self) -> [(&'static str, String); 4] {
        let version = self.libtorch_version.as_deref().unwrap_or("of unknown version");
        let libtorch = match &self.libtorch_folder {
            Some(folder) => format!("{version}, {}", folder.display()),
            None => version.to_owned(),
        };
        [
            ("libtorch", libtorch),
            ("cuda", self.cuda.to_string()),
            ("gpus", self.gpus.to_string()),
            ("threads", self.threads.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_driver() -> Result<(), String> {
        Err("libcuda.so.1: cannot open shared object file".to_owned())
    }

    /// A folder `lib` with a file in the place of the CUDA library, in a package of this version.
    fn package(version: &str) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let lib = root.path().join("lib");
        fs::create_dir(&lib).unwrap();
        fs::write(lib.join(CUDA_LIBRARY), "no library").unwrap();
        fs::write(root.path().join("version.py"), format!("debug = False\n__version__ = '{version}'\n")).unwrap();
        (root, lib)
    }

    #[test]
    fn names_round_trip() {
        for (name, spec) in [
            ("auto", DeviceSpec::Auto),
            ("cpu", DeviceSpec::Cpu),
            ("cuda:0", DeviceSpec::Cuda(0)),
            ("cuda:3", DeviceSpec::Cuda(3)),
        ] {
            assert_eq!(name.parse(), Ok(spec));
            assert_eq!(spec.to_string(), name);
            assert_eq!(serde_json::to_string(&spec).unwrap(), format!("{name:?}"));
            assert_eq!(serde_json::from_str::<DeviceSpec>(&format!("{name:?}")).unwrap(), spec);
        }
        assert_eq!("cuda".parse(), Ok(DeviceSpec::Cuda(0)));
        assert_eq!(DeviceSpec::default(), DeviceSpec::Auto);
    }

    #[test]
    fn an_unknown_name_is_told_what_there_is() {
        for name in ["gpu", "CUDA", "cuda:", "cuda:-1", "cuda:+1", "cuda:one", ""] {
            assert_eq!(
                name.parse::<DeviceSpec>().unwrap_err().to_string(),
                format!(
                    "unknown device {name:?}; expected \"auto\", \"cpu\", \"cuda\" or \"cuda:N\" with the number of a GPU"
                )
            );
        }
        let error = serde_json::from_str::<DeviceSpec>("\"gpu\"").unwrap_err().to_string();
        assert!(error.starts_with("unknown device \"gpu\"; expected \"auto\""), "{error}");
    }

    #[test]
    fn without_a_driver_nothing_is_loaded_and_all_is_said() {
        let (_root, lib) = package("2.11.0+cu130");
        let empty = tempfile::tempdir().unwrap();
        let library = find_cuda(no_driver(), Some(&lib), Some(empty.path().as_os_str()));
        assert_eq!(library.loaded, None);
        assert_eq!(
            choose(1, 0, &library).unwrap_err().to_string(),
            format!(
                "device \"cuda:1\" is asked for and CUDA is not to be had: no NVIDIA driver (libcuda.so.1: cannot open \
                 shared object file); {}/libtorch_cuda.so: not loaded, for want of a driver; LD_LIBRARY_PATH: no \
                 libtorch_cuda.so there; ask for \"cpu\" or \"auto\" to do without",
                lib.display()
            )
        );
    }

    #[test]
    fn a_library_that_does_not_load_leaves_the_loaders_reason() {
        let (_root, lib) = package("2.11.0+cu130");
        let library = find_cuda(Ok(()), Some(&lib), None);
        assert_eq!(library.loaded, None);
        assert_eq!(library.passed_over.len(), 1);
        assert!(library.passed_over[0].1.contains("file too short"), "{library}");
        assert!(library.to_string().contains("`make libtorch CUDA=1` fetches the CUDA libraries"), "{library}");
    }

    #[test]
    fn a_library_of_another_version_is_passed_over() {
        let (root, ours) = package("2.11.0+cu130");
        fs::remove_file(ours.join(CUDA_LIBRARY)).unwrap();
        fs::write(root.path().join("build-version"), "2.11.0+cpu\n").unwrap();
        let (_other, theirs) = package("2.9.1+cu128");
        let library = find_cuda(Ok(()), Some(&ours), Some(theirs.as_os_str()));
        assert_eq!(library.passed_over[0].1, "not there");
        assert_eq!(library.passed_over[1].1, "version 2.9.1+cu128, and the libtorch in use is 2.11.0+cpu");
    }

    #[test]
    fn the_companions_are_loaded_in_the_order_in_which_they_need_each_other() {
        let packages = tempfile::tempdir().unwrap();
        let torch = packages.path().join("torch/lib");
        assert_eq!(companions(&torch), Vec::<PathBuf>::new());
        let files = [
            "torch/lib/libtorch_cuda_linalg.so",
            "nvidia/cu13/lib/libnvJitLink.so.13",
            "nvidia/cu13/lib/libnvrtc-builtins.so.13.0",
            "nvidia/cu13/lib/libnvrtc.so.13",
            "nvidia/cu13/lib/libcudart.so.13",
            "nvidia/cudnn/lib/libcudnn.so.9",
        ];
        for file in files.map(|file| packages.path().join(file)) {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        let found = companions(&torch);
        let found: Vec<&str> =
            found.iter().map(|path| path.strip_prefix(packages.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(found, [files[1], files[2], files[3], files[0]]);
    }

    #[test]
    fn a_gpu_beyond_the_last_is_told_the_count() {
        let library = CudaLibrary { driver: Ok(()), loaded: Some("libtorch_cuda.so".into()), passed_over: Vec::new() };
        assert_eq!(choose(1, 2, &library), Ok(tch::Device::Cuda(1)));
        let message = choose(0, 0, &library).unwrap_err().to_string();
        assert!(
            message.contains("libtorch_cuda.so: loaded") && message.contains("; it finds no GPU; ask for"),
            "{message}"
        );
        assert_eq!(
            choose(2, 2, &library).unwrap_err().to_string(),
            "device \"cuda:2\" is asked for and the number of GPUs is 2; the last one is \"cuda:1\""
        );
    }

    #[test]
    fn the_folder_of_libtorch_is_read_off_the_maps() {
        let maps = "7f00-7f01 r--p 00000000 08:01 12  /usr/lib/libc.so.6\n\
                    7f02-7f03 r-xp 00000000 08:01 13  /opt/my torch/lib/libtorch_cpu.so\n\
                    7ffd-7ffe rw-p 00000000 00:00 0   [stack]\n";
        assert_eq!(folder_in_maps(maps), Some(PathBuf::from("/opt/my torch/lib")));
        assert_eq!(folder_in_maps("7ffd-7ffe rw-p 00000000 00:00 0   [stack]"), None);
    }

    #[test]
    fn this_process_has_libtorch_and_a_device() {
        let report = DeviceReport::gather();
        assert!(report.libtorch_version.as_deref().unwrap().starts_with("2.11.0"), "{report:?}");
        assert!(report.libtorch_folder.unwrap().join("libtorch_cpu.so").is_file());
        assert!(report.threads >= 1);
        let expected = if report.gpus == 0 { tch::Device::Cpu } else { tch::Device::Cuda(0) };
        assert_eq!(DeviceSpec::Auto.resolve(), Ok(expected));
        assert_eq!(DeviceSpec::Cpu.resolve(), Ok(tch::Device::Cpu));
        let error = DeviceSpec::Cuda(report.gpus).resolve().unwrap_err().to_string();
        assert!(error.starts_with("device \"cuda:"), "{error}");
    }
}
