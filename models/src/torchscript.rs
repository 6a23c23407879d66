//! A teacher that is a TorchScript file: traced or scripted, by PyTorch or by anything else.
//!
//! The file's `forward` takes `[B, C, H, W]` and returns a tensor, or a tuple or list of tensors, which may be nested. The
//! setting `outputs` names them in the order in which they come: one of them `logits`, the others taps, from the input to
//! the output of the network. `stage1:pre` is the value of `stage1` before its activation. As in every network, the first
//! tap counts as the stem and the last one as the pooled vector; methods that compare stages take those between.
//!
//! In PyTorch, for a network that returns its features with its logits:
//!
//! ```python
//! network.eval()
//! with torch.no_grad():
//!     torch.jit.trace(network, torch.zeros(2, 3, 32, 32)).save("teacher.pt")
//! ```
//!
//! The network is run once to find the shapes. It is frozen, in evaluation mode, and in float32.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use limbeck::prelude::*;
use tch::{CModule, IValue, jit, no_grad_guard};

use crate::foreign::{LOGITS, signature, taps};

limbeck::plugin! {
    model "torchscript": TorchScriptConfig,
    summary: "a teacher from a TorchScript file",
    citation: "",
}

/// The recipe of a teacher in a TorchScript file.
#[derive(Clone, Debug, Settings)]
pub struct TorchScriptConfig {
    /// Relative to the experiment file.
    #[setting(example = "teacher.pt")]
    pub path: PathBuf,
    /// What it returns, in order: `logits` and taps, as in `["stem", "stage1", "pooled", "logits"]`.
    #[setting(default = vec![LOGITS.to_owned()])]
    pub outputs: Vec<String>,
}

#[typetag::serde(name = "torchscript")]
impl ModelConfig for TorchScriptConfig {
    fn build(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Box<dyn Model>> {
        Ok(Box::new(TorchScript::load(self, path.device(), spec).map_err(|e| e.within("torchscript"))?))
    }

    fn file(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn at(&self, path: PathBuf) -> Option<Arc<dyn ModelConfig>> {
        Some(Arc::new(TorchScriptConfig { path, ..self.clone() }))
    }
}

/// A loaded file.
#[derive(Debug)]
struct TorchScript {
    path: PathBuf,
    module: CModule,
    outputs: Vec<String>,
    signature: Signature,
    parameters: i64,
}

/// The images that a network is shown to find its shapes: more than one, to tell the batch from other dimensions of one.
const TRIAL: i64 = 3;

impl TorchScript {
    fn load(config: &TorchScriptConfig, device: Device, spec: &ModelSpec) -> Result<Self> {
        let TorchScriptConfig { path, outputs } = config;
        if outputs.iter().filter(|name| *name == LOGITS).count() != 1 {
            return Err(Error::plan("`outputs` must have `logits` once"));
        }
        std::fs::metadata(path).map_err(Error::io("read", path))?;
        let unreadable = |e| Error::data(path, format!("not a TorchScript file: {}", first_line(&e)));
        let mut module = CModule::load_on_device(path, device).map_err(unreadable)?;
        module.f_set_eval()?;
        let parameters = module.named_parameters()?;
        if let Some((name, t)) = parameters.iter().find(|(_, t)| t.kind() != Kind::Float) {
            let kind = t.kind();
            return Err(Error::data(path, format!("`{name}` is {kind:?}: save the network in float32, by `.float()`")));
        }
        let signature = Signature::new(&ModelSpec { classes: 0, ..*spec }, Vec::new(), Vec::new());
        let parameters = parameters.iter().map(|(_, t)| t.numel() as i64).sum();
        let (path, outputs) = (path.clone(), outputs.clone());
        let mut model = TorchScript { path, module, outputs, signature, parameters };
        model.signature = model.explore(device, spec)?;
        Ok(model)
    }

    /// Runs the network once for its shapes.
    fn explore(&self, device: Device, spec: &ModelSpec) -> Result<Signature> {
        let _no_grad = no_grad_guard();
        let [c, h, w] = spec.input;
        let (logits, taps) = self.run(&Tensor::zeros([TRIAL, c, h, w], (Kind::Float, device)))?;
        let named = taps.iter().map(|(tap, value)| (tap.to_string(), value)).chain([(LOGITS.to_owned(), &logits)]);
        for (name, value) in named {
            if value.size().first() != Some(&TRIAL) || value.dim() < 2 {
                let found = value.size();
                return Err(
                    self.fault(format!("`{name}` has the shape {found:?} for {TRIAL} images: it must be [batch, …]"))
                );
            }
        }
        signature(spec, &logits, &taps)
    }

    /// Logits and taps.
    fn run(&self, input: &Tensor) -> Result<(Tensor, Vec<(TapRef, Tensor)>)> {
        // Otherwise the first passes compute by another plan than the later ones, and a resumed run would differ. The switch
        // belongs to the thread.
        jit::f_set_graph_executor_optimize(false)?;
        let returned = self
            .module
            .forward_is(&[IValue::Tensor(input.shallow_clone())])
            .map_err(|e| self.fault(format!("its forward pass fails: {}", first_line(&e))))?;
        let mut values = Vec::new();
        self.collect(returned, &mut values)?;
        if values.len() != self.outputs.len() {
            let (found, named) = (values.len(), self.outputs.len());
            return Err(self.fault(format!("it returns {found} tensors, and `outputs` names {named}")));
        }
        let (mut logits, mut features) = (None, Vec::new());
        for (name, value) in self.outputs.iter().zip(values) {
            if name == LOGITS { logits = Some(value) } else { features.push(value) }
        }
        let taps = taps(self.outputs.iter().map(String::as_str))?.into_iter().zip(features).collect();
        Ok((logits.ok_or_else(|| Error::plan("`outputs` must have `logits` once"))?, taps))
    }

    /// The tensors of tuples and lists, in order.
    fn collect(&self, value: IValue, into: &mut Vec<Tensor>) -> Result<()> {
        match value {
            IValue::Tensor(tensor) => into.push(tensor),
            IValue::TensorList(tensors) => into.extend(tensors),
            IValue::Tuple(values) | IValue::GenericList(values) => {
                values.into_iter().try_for_each(|value| self.collect(value, into))?;
            }
            _ => {
                return Err(
                    self.fault("it returns something else than tensors, and tuples and lists of them".to_owned())
                );
            }
        }
        Ok(())
    }

    fn fault(&self, message: String) -> Error {
        Error::data(&self.path, message)
    }
}

impl Model for TorchScript {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn forward(&self, input: &Tensor, want: &Taps, _mode: Mode<'_>) -> Result<Features> {
        let (logits, taps) = self.run(input)?;
        let taps: HashMap<TapRef, Tensor> =
            taps.into_iter().filter(|(tap, _)| want.wants(&tap.name, tap.form)).collect();
        match want.iter().find(|tap| !taps.contains_key(tap)) {
            Some(missing) => Err(Error::run(format!("this network has no tap `{missing}`"))),
            None => Ok(Features::new(logits, taps)),
        }
    }

    fn parameters(&self) -> Option<i64> {
        Some(self.parameters)
    }
}

/// libtorch's messages go on for pages: the last line that is not its stack says what happened.
fn first_line(error: &tch::TchError) -> String {
    let text = error.to_string();
    let line = text.lines().map(str::trim).find(|line| line.contains("Error: ")).or_else(|| text.lines().next());
    line.unwrap_or_default().trim().to_owned()
}
