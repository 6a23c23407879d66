//! `fitnet`: hints from a middle layer.
//!
//! Romero, Ballas, Kahou, Chassang, Gatta, Bengio. *FitNets: Hints for Thin Deep Nets*. ICLR 2015, arXiv:1412.6550,
//! equation 3; trained jointly with the labels, as the benchmark of the CRD paper does.
//!
//! A convolutional regressor r (convolution, BatchNorm, ReLU) takes the student's hint layer to the teacher's shape:
//!
//! L = mean (r(s) − t)².
//!
//! The convolution depends on the heights: half, 3×3 with stride 2; twice, a transposed 4×4 with stride 2; a student's map
//! that is higher, or as high, a kernel of 1 + difference without padding.
//!
//! *Taps*: the stage `hint_layer` of both. *Cost*: one convolution. *State*: the regressor. *Published weight*: 100, beside
//! a cross-entropy of 1: the method `fitnet`.

use limbeck::checks::only_maps;
use limbeck::prelude::*;

use crate::conv_reg::ConvReg;

limbeck::plugin! {
    distiller "fitnet": FitNet,
    summary: "hints: a regression from the student's middle layer to the teacher's",
    citation: "Romero, Ballas, Kahou, Chassang, Gatta, Bengio. FitNets: Hints for Thin Deep Nets. ICLR 2015, arXiv:1412.6550, equation 3",
    page: include_str!("fitnet.rs"),
    method "fitnet": MethodConfig::new(1.0).term(100.0, FitNet::default()),
    summary: "cross-entropy and a hint from a middle layer",
}

/// Hints from a middle layer.
#[derive(Clone, Debug, Settings)]
pub struct FitNet {
    /// Which tap, counted from the stem (0) to the last stage.
    #[setting(default = 2)]
    pub hint_layer: usize,
}

impl FitNet {
    fn hint<'a>(&self, side: &str, signature: &'a Signature) -> Result<&'a [TapInfo]> {
        // Stages count from 1, whether there is a stem before them or not.
        let (maps, first) = (signature.layers(), usize::from(signature.stem().is_none()));
        let chosen = self.hint_layer.checked_sub(first).and_then(|index| maps.get(index..=index));
        chosen.ok_or_else(|| {
            let layers: Vec<String> =
                maps.iter().enumerate().map(|(i, tap)| format!("{} ({})", i + first, tap.name)).collect();
            Error::plan(format!(
                "fitnet: hint_layer {} does not exist, the {side} has {}",
                self.hint_layer,
                layers.join(", ")
            ))
        })
    }
}

#[typetag::serde(name = "fitnet")]
impl DistillerConfig for FitNet {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        let (student, teacher) = (self.hint("student", site.student)?, self.hint("teacher", site.teacher)?);
        let taps = only_maps("fitnet", site.pair(student, teacher, Form::Output)?)?;
        let pair = taps.single()?;
        ConvReg::check("fitnet", pair.student_shape, pair.teacher_shape)?;
        Ok(taps)
    }

    fn build(&self, site: &Site<'_>, params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        let taps = self.taps(site)?;
        let pair = taps.single()?;
        let regressor = ConvReg::new("fitnet", params, pair.student_shape, pair.teacher_shape)?;
        Ok(Box::new(LiveFitNet { regressor }))
    }
}

#[derive(Debug)]
struct LiveFitNet {
    regressor: ConvReg,
}

impl Distiller for LiveFitNet {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let (student, teacher) = step.pair()?;
        let hint = self.regressor.forward(student).relu();
        Ok(Terms::of("hint", (hint - teacher).square().mean(None::<Kind>)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::pairs_without_stem;

    #[test]
    fn a_teacher_without_a_stem_is_paired_stage_by_stage() {
        let (pairs, dropped) = pairs_without_stem(&FitNet::default());
        assert_eq!(pairs, ["stage2"].map(|name| (name.to_owned(), name.to_owned())));
        assert_eq!(dropped, Vec::<String>::new());
    }
}
