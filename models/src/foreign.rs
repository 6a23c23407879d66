//! What teachers from elsewhere have in common: outputs that the experiment file names.

use limbeck::prelude::*;

/// The name of the logits among the outputs.
pub(crate) const LOGITS: &str = "logits";

/// Reads `names` as taps: the logits are none of them, and each comes once.
pub(crate) fn taps<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Vec<TapRef>> {
    let mut taps: Vec<TapRef> = Vec::new();
    for name in names.into_iter().filter(|name| *name != LOGITS) {
        let tap: TapRef = name.parse().map_err(Error::plan)?;
        if taps.contains(&tap) {
            return Err(Error::plan(format!("the output `{name}` is named twice")));
        }
        taps.push(tap);
    }
    Ok(taps)
}

/// The signature of a network with these logits `[N, classes]` and taps `[N, …]`, in order.
pub(crate) fn signature(spec: &ModelSpec, logits: &Tensor, named: &[(TapRef, Tensor)]) -> Result<Signature> {
    let [_, classes] = logits.size()[..] else {
        return Err(Error::plan(format!("the logits must have the shape [samples, classes], not {:?}", logits.size())));
    };
    let mut taps: Vec<TapInfo> = Vec::new();
    for (tap, value) in named.iter().filter(|(tap, _)| tap.form == Form::Output) {
        let sizes = &value.size()[1..];
        let pre = named.iter().find(|(other, _)| *other == TapRef::pre_activation(&tap.name));
        if let Some((pre, value)) = pre.filter(|(_, value)| value.size()[1..] != *sizes) {
            return Err(Error::plan(format!(
                "`{pre}` has the shape {:?}, and `{tap}` has {sizes:?}",
                &value.size()[1..]
            )));
        }
        let Some(shape) = TapShape::of(sizes) else {
            return Err(Error::plan(format!(
                "`{tap}` has the shape {sizes:?} for each sample: a tap is a map [C, H, W], a sequence of tokens [N, D] or a \
                 vector [D]"
            )));
        };
        taps.push(TapInfo { pre_activation: pre.is_some(), ..TapInfo::new(&tap.name, shape) });
    }
    match named.iter().find(|(tap, _)| !taps.iter().any(|info| info.name == tap.name)) {
        None => Ok(Signature::new(&ModelSpec { classes, ..*spec }, taps, Vec::new())),
        Some((tap, _)) => Err(Error::plan(format!("`{tap}` needs an output `{}` beside it", tap.name))),
    }
}
