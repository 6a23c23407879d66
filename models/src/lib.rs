//! Networks for Limbeck, one family per file, with named taps and PyTorch's parameter names.
//!
//! Link this crate (`use limbeck_models as _;`) and an experiment can say `model = { kind = "resnet8x4" }`.
//!
//! | file | kinds |
//! |---|---|
//! | [`resnet`] | `resnet8` … `resnet110`, `resnet8x4`, `resnet32x4`, `resnet`: residual networks for small images |
//! | [`resnet_imagenet`] | `resnet18`, `resnet34`, `resnet50`, for ImageNet; `ResNet50`, for small images |
//! | [`wrn`] | `wrn_16_1`, `wrn_16_2`, `wrn_40_1`, `wrn_40_2`, `wrn`: wide residual networks |
//! | [`vgg`] | `vgg8`, `vgg11`, `vgg13`, `vgg16`, `vgg19`, with BatchNorm |
//! | [`mobilenet_v2`] | `MobileNetV2`, of half width |
//! | [`shufflenet_v1`], [`shufflenet_v2`] | `ShuffleV1`, `ShuffleV2` |
//! | [`torchscript`], [`precomputed`] | teachers from elsewhere: as a TorchScript file, or by their outputs alone |
//!
//! # Adding a network
//! A family is one file with three parts:
//! 1. the recipe: a struct with [`#[derive(Settings)]`](limbeck::settings::Settings), its [`plugin!`](limbeck::plugin)
//!    entry, and [`ModelConfig::build`](limbeck::model::ModelConfig::build), which refuses inputs that the network cannot take;
//! 2. the network: layers from [`limbeck::nn`], registered under the names of the published PyTorch implementation, so that
//!    its checkpoints load as they are, and initialised as that implementation does;
//! 3. the [`Signature`](limbeck::model::Signature), computed from the recipe and the
//!    [`ModelSpec`](limbeck::model::ModelSpec) without running anything: taps with their shapes (maps, tokens, vectors), and
//!    groups; what the network lends to methods, that is its classifier and, for a tap's value before its activation, the
//!    BatchNorm that it comes out of; and what weight decay can spare.
//!
//! Inputs and weights arrive in channels_last memory and should stay so: avoid `contiguous` and `view` on maps. A value
//! that was handed to the [`Recorder`](limbeck::model::Recorder) must not be changed in place afterwards.

/// Declares named kinds: recipes without settings, each registered under its name.
macro_rules! kinds {
    (
        summary $summary:literal, citation $citation:expr, example $input:tt $classes:literal;
        $($config:ident $kind:literal, millions $millions:literal: $recipe:expr;)*
    ) => {$(
        limbeck::plugin! {
            model $kind: $config,
            summary: concat!($summary, ", ", $millions, " million parameters"),
            citation: $citation,
        }

        #[doc = concat!("The recipe of `", $kind, "`: ", $millions, " million parameters at ", $classes, " classes.")]
        #[derive(Clone, Debug, Settings)]
        pub struct $config {}

        #[typetag::serde(name = $kind)]
        impl ModelConfig for $config {
            fn build(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Box<dyn Model>> {
                Ok(Box::new($recipe.network(path, spec).map_err(|e| e.within($kind))?))
            }

            fn example(&self) -> ModelSpec {
                ModelSpec { input: $input, classes: $classes }
            }
        }
    )*};
}

mod foreign;
mod layers;
mod residual;
mod staged;

pub mod mobilenet_v2;
pub mod precomputed;
pub mod resnet;
pub mod resnet_imagenet;
pub mod shufflenet_v1;
pub mod shufflenet_v2;
pub mod torchscript;
pub mod vgg;
pub mod wrn;

#[cfg(test)]
mod tests;
