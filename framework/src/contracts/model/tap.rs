//! Taps: where a network can be asked for its features, and the shapes of those.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

/// The two values of a layer at which a feature can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// The layer's output, after its activation.
    Output,
    /// The value before that activation.
    PreActivation,
}

/// A tap by name: `"stage2"`, or `"stage2:pre"` for the value before the activation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TapRef {
    /// The tap's name in the [`Signature`](super::Signature).
    pub name: String,
    /// Which of its values.
    pub form: Form,
}

impl TapRef {
    /// The tap's output.
    pub fn output(name: impl Into<String>) -> Self {
        TapRef { name: name.into(), form: Form::Output }
    }

    /// The tap's value before its activation.
    pub fn pre_activation(name: impl Into<String>) -> Self {
        TapRef { name: name.into(), form: Form::PreActivation }
    }
}

impl fmt::Display for TapRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form {
            Form::Output => f.write_str(&self.name),
            Form::PreActivation => write!(f, "{}:pre", self.name),
        }
    }
}

impl FromStr for TapRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None => Ok(TapRef::output(text)),
            Some((name, "pre")) => Ok(TapRef::pre_activation(name)),
            Some((_, form)) => Err(format!("a tap is \"name\" or \"name:pre\", not \"name:{form}\"")),
        }
    }
}

impl Serialize for TapRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TapRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The shape of a tap without the batch. In JSON it is a list of its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TapShape {
    /// A map, `[C, H, W]`.
    Map {
        /// Channels.
        c: i64,
        /// Height.
        h: i64,
        /// Width.
        w: i64,
    },
    /// A sequence of tokens, `[N, D]`, such as the patches of an image.
    Tokens {
        /// Tokens.
        n: i64,
        /// The width of each.
        d: i64,
    },
    /// A vector, `[D]`.
    Vector {
        /// Its width.
        d: i64,
    },
}

impl TapShape {
    /// The shape of these sizes; nothing unless there are one, two or three.
    pub fn of(sizes: &[i64]) -> Option<Self> {
        match *sizes {
            [c, h, w] => Some(TapShape::Map { c, h, w }),
            [n, d] => Some(TapShape::Tokens { n, d }),
            [d] => Some(TapShape::Vector { d }),
            _ => None,
        }
    }

    /// The sizes: `[C, H, W]`, `[N, D]` or `[D]`.
    pub fn sizes(&self) -> Vec<i64> {
        match *self {
            TapShape::Map { c, h, w } => vec![c, h, w],
            TapShape::Tokens { n, d } => vec![n, d],
            TapShape::Vector { d } => vec![d],
        }
    }

    /// The sizes for so many samples: `[B, …]`.
    pub fn of_batch(&self, samples: i64) -> Vec<i64> {
        [vec![samples], self.sizes()].concat()
    }

    /// The features of one position: the channels of a map, the width of a token or of a vector.
    pub fn channels(&self) -> i64 {
        match *self {
            TapShape::Map { c, .. } => c,
            TapShape::Tokens { d, .. } | TapShape::Vector { d } => d,
        }
    }

    /// How many positions there are: the pixels of a map, the tokens of a sequence, 1 for a vector.
    pub fn positions(&self) -> i64 {
        match *self {
            TapShape::Map { h, w, .. } => h * w,
            TapShape::Tokens { n, .. } => n,
            TapShape::Vector { .. } => 1,
        }
    }

    /// The numbers of one sample: the width of the flattened feature.
    pub fn elements(&self) -> i64 {
        self.channels() * self.positions()
    }

    /// The height of a map; 1 for tokens and vectors, which have no rows.
    pub fn height(&self) -> i64 {
        match *self {
            TapShape::Map { h, .. } => h,
            TapShape::Tokens { .. } | TapShape::Vector { .. } => 1,
        }
    }

    /// Whether it is a map.
    pub fn is_map(&self) -> bool {
        matches!(self, TapShape::Map { .. })
    }

    /// Whether it is a vector.
    pub fn is_vector(&self) -> bool {
        matches!(self, TapShape::Vector { .. })
    }

    /// What it is, in words with an article: `a map`, `a sequence of tokens`, `a vector`.
    pub fn name(&self) -> &'static str {
        match self {
            TapShape::Map { .. } => "a map",
            TapShape::Tokens { .. } => "a sequence of tokens",
            TapShape::Vector { .. } => "a vector",
        }
    }

    /// The features of this shape, `[B, …]`, averaged over space or over the tokens: `[B, channels]`.
    pub fn pooled(&self, features: &Tensor) -> Tensor {
        match self {
            TapShape::Map { .. } => features.flatten(2, -1).mean_dim([2_i64].as_slice(), false, None::<Kind>),
            TapShape::Tokens { .. } => features.mean_dim([1_i64].as_slice(), false, None::<Kind>),
            TapShape::Vector { .. } => features.shallow_clone(),
        }
    }
}

/// `64×8×8`
impl fmt::Display for TapShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.sizes().iter().map(i64::to_string).collect();
        f.write_str(&sizes.join("×"))
    }
}

impl Serialize for TapShape {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.sizes().serialize(serializer)
    }
}

/// The affine part of a BatchNorm, by the names of its parameters in the state dict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BatchNormInfo {
    /// The scale γ, `[C]`.
    pub weight: String,
    /// The shift β, `[C]`.
    pub bias: String,
}

impl BatchNormInfo {
    /// The BatchNorm at `path`.
    pub fn new(path: &nn::Path<'_>) -> Self {
        BatchNormInfo { weight: path.path("weight"), bias: path.path("bias") }
    }
}

/// One tap of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TapInfo {
    /// Its name: `stem`, `stage1`, …, `pooled`.
    pub name: String,
    /// Its shape without the batch.
    pub shape: TapShape,
    /// Whether `name:pre` exists.
    pub pre_activation: bool,
    /// The BatchNorm over all channels that `name:pre` comes out of, if the network lends it. Nothing but what is added to
    /// its output, as in a residual block, lies between the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_norm: Option<BatchNormInfo>,
}

impl TapInfo {
    /// A tap of that shape, without a value before its activation.
    pub fn new(name: &str, shape: TapShape) -> Self {
        TapInfo { name: name.to_owned(), shape, pre_activation: false, batch_norm: None }
    }

    /// A map, `[C, H, W]`.
    pub fn map(name: &str, [c, h, w]: [i64; 3]) -> Self {
        TapInfo::new(name, TapShape::Map { c, h, w })
    }

    /// A sequence of `n` tokens of width `d`.
    pub fn tokens(name: &str, n: i64, d: i64) -> Self {
        TapInfo::new(name, TapShape::Tokens { n, d })
    }

    /// A vector of width `d`.
    pub fn vector(name: &str, d: i64) -> Self {
        TapInfo::new(name, TapShape::Vector { d })
    }

    /// The same with a value before its activation, `name:pre`.
    #[must_use]
    pub fn with_pre_activation(self) -> Self {
        TapInfo { pre_activation: true, ..self }
    }

    /// The same with a value before its activation that comes out of this BatchNorm.
    #[must_use]
    pub fn behind(self, batch_norm: BatchNormInfo) -> Self {
        TapInfo { pre_activation: true, batch_norm: Some(batch_norm), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn a_shape_tells_channels_from_positions() {
        let map = TapShape::Map { c: 3, h: 2, w: 4 };
        let tokens = TapShape::Tokens { n: 8, d: 3 };
        let vector = TapShape::Vector { d: 3 };
        for (shape, positions, height) in [(map, 8, 2), (tokens, 8, 1), (vector, 1, 1)] {
            assert_eq!((shape.channels(), shape.positions(), shape.height()), (3, positions, height));
            assert_eq!(shape.elements(), shape.sizes().iter().product::<i64>());
            assert_eq!(TapShape::of(&shape.sizes()), Some(shape));
            assert_eq!(serde_json::to_string(&shape).unwrap(), serde_json::to_string(&shape.sizes()).unwrap());
        }
        assert_eq!(map.to_string(), "3×2×4");
        assert_eq!((TapShape::of(&[]), TapShape::of(&[1, 2, 3, 4])), (None, None));
    }

    #[test]
    fn what_is_pooled_has_the_channels_left() {
        fn read(pooled: Tensor) -> Vec<f64> {
            Vec::<f64>::try_from(pooled.flatten(0, -1)).unwrap()
        }

        // [1, 2, 2]: as a vector of two tokens of width 2, (0, 1) and (2, 3).
        let values = Tensor::arange(4, (Kind::Double, Device::Cpu));
        assert_eq!(read(TapShape::Tokens { n: 2, d: 2 }.pooled(&values.view([1, 2, 2]))), [1.0, 2.0]);
        assert_eq!(read(TapShape::Map { c: 2, h: 1, w: 2 }.pooled(&values.view([1, 2, 1, 2]))), [0.5, 2.5]);
        assert_eq!(read(TapShape::Vector { d: 4 }.pooled(&values.view([1, 4]))), [0.0, 1.0, 2.0, 3.0]);
    }
}
