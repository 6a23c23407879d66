//! A teacher that is known by its outputs alone: a safetensors file of logits and taps by sample.
//!
//! `logits` is `[N, classes]` and each tap `[N, …]`, float32 or shorter, one row for each row of the data set's training
//! part, in its order, held-out samples included. The setting `taps` names those that are read, from the input to the output
//! of the network; `stage1:pre` is the value of `stage1` before its activation. What the file has beside them is not read.
//! Every value must be finite.
//!
//! Such outputs are of images as they are. The student sees augmented ones, so that the two see different crops: a student
//! can do worse by it than by asking the teacher anew (Beyer, Zhai, Royer, Markeeva, Anil, Kolesnikov. Knowledge
//! distillation: A good teacher is patient and consistent. CVPR 2022, arXiv:2106.05237, section 3.1, "fixed teacher"). The
//! plan says so, and says how often the logits name the right class, which shows whether the rows are in order.
//!
//! In PyTorch: `safetensors.torch.save_file({"logits": logits, "pooled": pooled}, "outputs.safetensors")`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use limbeck::prelude::*;
use limbeck::weights;

use crate::foreign::{LOGITS, signature, taps};

limbeck::plugin! {
    model "precomputed": PrecomputedConfig,
    summary: "a teacher by its outputs on the training samples",
    citation: "",
}

/// The recipe of a teacher whose outputs are in a file.
#[derive(Clone, Debug, Settings)]
pub struct PrecomputedConfig {
    /// Relative to the experiment file; `logits` `[N, classes]` and taps `[N, …]`.
    #[setting(example = "outputs.safetensors")]
    pub path: PathBuf,
    /// The taps to read, from input to output, as in `["stem", "stage1", "pooled"]`.
    #[setting(default = Vec::new())]
    pub taps: Vec<String>,
}

#[typetag::serde(name = "precomputed")]
impl ModelConfig for PrecomputedConfig {
    fn build(&self, _path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Box<dyn Model>> {
        Ok(Box::new(self.load(spec).map_err(|e| e.within("precomputed"))?))
    }

    fn file(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn at(&self, path: PathBuf) -> Option<Arc<dyn ModelConfig>> {
        Some(Arc::new(PrecomputedConfig { path, ..self.clone() }))
    }
}

impl PrecomputedConfig {
    fn load(&self, spec: &ModelSpec) -> Result<Precomputed> {
        let mut tensors = weights::read(&self.path)?.tensors;
        let names: Vec<String> = tensors.keys().cloned().collect();
        let mut take = |name: &str| {
            let fault = |message| Err(Error::data(&self.path, message));
            match tensors.swap_remove(name) {
                None => fault(format!("there is no `{name}`; it has {}", names.join(", "))),
                Some(t) if t.dim() < 2 => {
                    fault(format!("`{name}` has the shape {:?}: it must be [samples, …]", t.size()))
                }
                Some(t) if !t.is_floating_point() => fault(format!("`{name}` is {:?}, not floating", t.kind())),
                Some(t) => match first_bad_row(&t) {
                    None => Ok(t),
                    Some(row) => {
                        fault(format!("`{name}` is not finite in row {row}, counted from 0: compute it again"))
                    }
                },
            }
        };
        let logits = take(LOGITS)?;
        let taps = taps(self.taps.iter().map(String::as_str))?
            .into_iter()
            .map(|tap| Ok((tap.clone(), take(&tap.to_string())?)))
            .collect::<Result<Vec<_>>>()?;
        let signature = signature(spec, &logits, &taps)?;
        Ok(Precomputed { signature, outputs: Outputs::new(logits, taps.into_iter().collect())? })
    }
}

/// Rows that are looked through at a time: what marks them is as large as they are.
const ROWS: i64 = 1000;

/// The first row of `[N, …]` with a value that is not a finite number.
fn first_bad_row(tensor: &Tensor) -> Option<i64> {
    let rows = tensor.size()[0];
    (0..rows).step_by(ROWS as usize).find_map(|start| {
        let chunk = tensor.narrow(0, start, ROWS.min(rows - start));
        let bad = chunk.isfinite().flatten(1, -1).all_dim(1, false).logical_not().nonzero();
        (bad.size()[0] > 0).then(|| start + bad.int64_value(&[0, 0]))
    })
}

/// Outputs that were read.
#[derive(Debug)]
struct Precomputed {
    signature: Signature,
    outputs: Outputs,
}

impl Model for Precomputed {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn forward(&self, _input: &Tensor, _want: &Taps, _mode: Mode<'_>) -> Result<Features> {
        Err(Error::run("outputs computed beforehand are known of training samples alone, not of any image"))
    }

    fn outputs(&self) -> Option<&Outputs> {
        Some(&self.outputs)
    }
}
