//! The data that checks are made with: images of noise.

use std::sync::Arc;

use limbeck::prelude::*;

pub const CLASSES: i64 = 5;
pub const SAMPLES: usize = 40;
/// What the network is built for.
pub const SPEC: ModelSpec = ModelSpec { input: [3, 16, 16], classes: CLASSES };
/// The name of the images.
pub const VIEW: &str = "image";

/// The label of every sample.
pub fn labels() -> Arc<[i64]> {
    (0..SAMPLES as i64).map(|row| row % CLASSES).collect()
}

/// Numbers in [low, high) without a pattern, float64 on the CPU, a function of the name.
pub fn noise(name: &str, shape: &[i64], low: f64, high: f64) -> Tensor {
    let mut rng = Seed::new(0).stream("conformance").stream(name).rng();
    let values: Vec<f64> = (0..shape.iter().product::<i64>()).map(|_| rng.range(low, high)).collect();
    Tensor::from_slice(&values).reshape(shape)
}

/// Images of noise.
#[derive(Debug)]
pub struct NoiseImages {
    info: DatasetInfo,
    images: Tensor,
}

impl NoiseImages {
    pub fn new() -> Self {
        let [channels, height, width] = SPEC.input;
        let images = noise("images", &[SAMPLES as i64, channels, height, width], -1.5, 1.5).to_kind(Kind::Float);
        let info = DatasetInfo {
            notes: Vec::new(),
            name: "noise".to_owned(),
            identity: "noise".to_owned(),
            class_names: (0..CLASSES).map(|class| class.to_string()).collect(),
            task: &Classification,
            train_labels: labels(),
            test_labels: (0..CLASSES).collect(),
            views: vec![ViewInfo { name: VIEW.to_owned(), shape: SPEC.input }],
        };
        NoiseImages { info, images }
    }
}

impl Dataset for NoiseImages {
    fn info(&self) -> &DatasetInfo {
        &self.info
    }

    fn batch(&self, split: Split, rows: &Rows, views: &Views, _draw: Option<Seed>) -> Result<Batch> {
        let labels = Tensor::from_slice(self.info.labels(split)).index_select(0, rows.device());
        let images = self.images.index_select(0, rows.device());
        let views = views.iter().map(|view| (view.to_owned(), images.shallow_clone())).collect();
        Ok(Batch { views, labels, targets: None })
    }
}
