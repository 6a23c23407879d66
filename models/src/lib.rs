//! Networks for Limbeck, one family per file, with named taps and PyTorch's parameter names.
//!
//! Link this crate (`use limbeck_models as _;`) and an experiment can say `model = { kind = "resnet8x4" }`.
//!
//! | file | kinds |
//! |---|---|
//! | [`resnet`] | `resnet8` … `resnet110`, `resnet8x4`, `resnet32x4`: residual networks for small images |
//!
//! # Adding a network
//! A family is one file with three parts:
//! 1. the recipe: a struct with `#[serde(deny_unknown_fields)]`, its [`plugin!`](limbeck::plugin) entry, and
//!    [`ModelConfig::build`](limbeck::model::ModelConfig::build), which refuses inputs that the network cannot take;
//! 2. the network: layers from [`tch::nn`], registered under the names of the published PyTorch implementation, so that
//!    its checkpoints load as they are, and initialised as that implementation does (tch's own defaults differ);
//! 3. the [`Signature`](limbeck::model::Signature), computed from the recipe and the
//!    [`ModelSpec`](limbeck::model::ModelSpec) without running anything: taps with their shapes, and groups.
//!
//! Inputs and weights arrive in channels_last memory and should stay so: avoid `contiguous` and `view` on maps. A value
//! that was handed to the [`Recorder`](limbeck::model::Recorder) must not be changed in place afterwards.

mod conv_bn;
pub mod resnet;
