//! Switches of libtorch that its binding has no functions for: TF32, and autocast on the CPU. Both are plain functions of
//! libtorch, which is in the process already: they are found there by name.

use std::sync::OnceLock;

use libloading::os::unix::Library;

/// libtorch's switches, each a C++ function under its mangled name (Itanium C++ ABI; PyTorch 2.11).
pub(crate) struct Switches {
    /// `at::Context& at::globalContext()`
    context: unsafe extern "C" fn() -> *mut std::ffi::c_void,
    /// `void at::Context::setAllowTF32CuDNN(bool)`
    tf32_cudnn: unsafe extern "C" fn(*mut std::ffi::c_void, bool),
    /// `void at::Context::setAllowTF32CuBLAS(bool)`
    tf32_cublas: unsafe extern "C" fn(*mut std::ffi::c_void, bool),
    /// `void at::autocast::set_autocast_enabled(c10::DeviceType, bool)`
    autocast_enabled: unsafe extern "C" fn(i8, bool),
    /// `void at::autocast::set_autocast_dtype(c10::DeviceType, c10::ScalarType)`
    autocast_dtype: unsafe extern "C" fn(i8, i8),
    /// `void at::autocast::clear_cache()`
    clear_cache: unsafe extern "C" fn(),
}

/// c10::ScalarType::BFloat16
const BFLOAT16: i8 = 15;

impl Switches {
    /// Those of this process's libtorch.
    ///
    /// # Errors
    /// With the function that this libtorch lacks.
    pub fn get() -> Result<&'static Self, String> {
        static SWITCHES: OnceLock<Result<Switches, String>> = OnceLock::new();
        SWITCHES.get_or_init(Switches::find).as_ref().map_err(Clone::clone)
    }

    fn find() -> Result<Self, String> {
        let process = Library::this();
        macro_rules! find {
            ($name:literal) => {
                // SAFETY: the type is that of the declaration quoted at the field; enumerations of one byte and bool are
                // passed as such, a reference as a pointer, and a member function takes `this` first.
                *unsafe { process.get($name.as_bytes()) }
                    .map_err(|error| format!("this libtorch lacks {}: {error}", $name))?
            };
        }
        Ok(Switches {
            context: find!("_ZN2at13globalContextEv"),
            tf32_cudnn: find!("_ZN2at7Context17setAllowTF32CuDNNEb"),
            tf32_cublas: find!("_ZN2at7Context18setAllowTF32CuBLASEb"),
            autocast_enabled: find!("_ZN2at8autocast20set_autocast_enabledEN3c1010DeviceTypeEb"),
            autocast_dtype: find!("_ZN2at8autocast18set_autocast_dtypeEN3c1010DeviceTypeENS1_10ScalarTypeE"),
            clear_cache: find!("_ZN2at8autocast11clear_cacheEv"),
        })
    }

    /// Allows convolutions and matrix products of the whole process to use TF32, or not.
    pub fn tf32(&self, on: bool) {
        // SAFETY: as in `find`; the context lives as long as the process.
        unsafe {
            let context = (self.context)();
            (self.tf32_cudnn)(context, on);
            (self.tf32_cublas)(context, on);
        }
    }

    /// Switches autocast to bfloat16 on or off for this thread. `device` is the number of a `c10::DeviceType`.
    pub fn autocast(&self, device: i8, on: bool) {
        // SAFETY: as in `find`; the functions change state of this thread and take any of these values.
        unsafe {
            if on {
                (self.autocast_dtype)(device, BFLOAT16);
            }
            (self.autocast_enabled)(device, on);
            if !on {
                // Weights that were cast for this pass must not serve the next one, in which they are others.
                (self.clear_cache)();
            }
        }
    }
}
