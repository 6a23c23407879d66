//! What a critic must do.

use limbeck::critic::{Critic, CriticConfig, CriticSite, MUTUAL_INFORMATION, Scores, Side};
use limbeck::distiller::Terms;
use limbeck::error::{Error, Result};
use limbeck::seed::Seed;
use limbeck::weights;
use tch::{Device, Kind, Tensor, nn};

use crate::data::noise;
use crate::memory::memory_is_steady;
use crate::settings::read;
use crate::tensors::{distance, is_finite, same};
use crate::trial::{Trial, ensure};

/// Anchors, negatives of each, and the width of the embeddings.
const B: i64 = 6;
const K: i64 = 10;
const D: i64 = 8;
const SITE: CriticSite = CriticSite { embedding_width: D, samples: 40 };
const SIDES: [Side; 2] = [Side::Student, Side::Teacher];
/// Relative distances.
const EXACT: f64 = 1e-9;
const FLOAT32: f64 = 1e-4;

pub fn check(trial: &mut Trial, table: &toml::Table) {
    let Some(config) = trial.value("it can be built", || read::<Box<dyn CriticConfig>>(table)) else { return };
    let config = config.as_ref();
    if !trial.check("scores have a row for each anchor and a column for each candidate", || shapes(config)) {
        return;
    }
    trial.check("one seed gives the same twice", || is_reproducible(config));
    trial.check("a pair has one score, in a bank and among pairs", || pairs_agree(config));
    let factors = "a score that `factors` is linear in the candidate";
    match LiveCritic::new(config, Kind::Double).map(|live| live.critic.factors()) {
        Ok(false) => trial.skip(factors, "the critic says that its score is no dot product"),
        _ => drop(trial.check(factors, || is_linear(config))),
    }
    trial.check("gradients reach both embeddings and every parameter", || gradients(config));
    trial.check("there is one finite loss, for extreme scores too", || finite(config));
    trial.check("masked scores do not count", || ignores_masked(config));
    trial.check("a bound on the mutual information is given for fair negatives only", || bound(config));
    trial.check("the order of anchors and of negatives does not matter", || ignores_order(config));
    trial.check("float32 agrees with float64", || {
        let found = LiveCritic::new(config, Kind::Float)?.losses(&scores(Kind::Float))?;
        let expected = LiveCritic::new(config, Kind::Double)?.losses(&scores(Kind::Double))?;
        near(&found, &expected, FLOAT32, "in float32")
    });
    trial.check("everything that it remembers is registered on `params`", || remembers_in_variables(config));
    trial.check("memory does not grow", || keeps_nothing(config));
}

/// A critic with its variables.
struct LiveCritic {
    critic: Box<dyn Critic>,
    store: nn::VarStore,
}

impl LiveCritic {
    fn new(config: &dyn CriticConfig, kind: Kind) -> Result<Self> {
        let mut store = nn::VarStore::new(Device::Cpu);
        let critic = {
            let _drawing = Seed::new(0).stream("critic").seed_libtorch();
            config.build(&SITE, &store.root())?
        };
        weights::check_names(&store)?;
        if kind == Kind::Double {
            store.double();
        }
        Ok(LiveCritic { critic, store })
    }

    /// The loss of both sides.
    fn losses(&mut self, scores: &Scores) -> Result<[Tensor; 2]> {
        let [a, b] = SIDES.map(|side| self.critic.loss(side, scores).and_then(|terms| loss(&terms)));
        Ok([a?, b?])
    }
}

fn loss(terms: &Terms) -> Result<Tensor> {
    match terms.losses() {
        [(_, loss)] if loss.numel() == 1 => Ok(loss.reshape([])),
        [(name, loss)] => Err(Error::run(format!("`{name}` has shape {:?}, a loss is a scalar", loss.size()))),
        losses => Err(Error::run(format!("there are {} losses instead of one", losses.len()))),
    }
}

/// Unit vectors.
fn embeddings(name: &str, shape: &[i64], kind: Kind) -> Tensor {
    let x = noise(name, shape, -1.0, 1.0);
    (&x / x.norm_scalaropt_dim(2.0, [-1], true)).to_kind(kind)
}

fn scores(kind: Kind) -> Scores {
    Scores {
        positive: noise("positive", &[B], -1.0, 6.0).to_kind(kind),
        negative: noise("negative", &[B, K], -6.0, 4.0).to_kind(kind),
        mask: None,
        fair: true,
    }
}

fn near(found: &[Tensor; 2], expected: &[Tensor; 2], allowed: f64, when: &str) -> Result<()> {
    for (side, (a, b)) in SIDES.iter().zip(found.iter().zip(expected)) {
        let apart = distance(a, b, 0.0);
        ensure(apart <= allowed, || {
            let (a, b) = (a.double_value(&[]), b.double_value(&[]));
            format!("{when} the loss of the {}'s anchors is {a:e} instead of {b:e}", side.name())
        })?;
    }
    Ok(())
}

fn shapes(config: &dyn CriticConfig) -> Result<()> {
    let live = LiveCritic::new(config, Kind::Float)?;
    let anchors = embeddings("anchors", &[B, D], Kind::Float);
    for (shape, candidates) in [([B, 3 * K], vec![3 * K, D]), ([B, K], vec![B, K, D])] {
        for side in SIDES {
            let found = live.critic.score(side, &anchors, &embeddings("candidates", &candidates, Kind::Float))?.size();
            ensure(found == shape, || format!("[{B}, {D}] × {candidates:?} gave {found:?} instead of {shape:?}"))?;
        }
    }
    Ok(())
}

fn is_reproducible(config: &dyn CriticConfig) -> Result<()> {
    let (first, second) = (LiveCritic::new(config, Kind::Float)?, LiveCritic::new(config, Kind::Float)?);
    for ((name, a), (_, b)) in weights::variables(&first.store).iter().zip(&weights::variables(&second.store)) {
        ensure(same(&a.detach(), &b.detach()), || {
            format!("`{name}` begins with other values each time: initialise it by libtorch's generator")
        })?;
    }
    Ok(())
}

fn pairs_agree(config: &dyn CriticConfig) -> Result<()> {
    let live = LiveCritic::new(config, Kind::Double)?;
    let (anchors, bank) = (embeddings("anchors", &[B, D], Kind::Double), embeddings("bank", &[K, D], Kind::Double));
    for side in SIDES {
        let by_bank = live.critic.score(side, &anchors, &bank)?;
        let by_pairs = live.critic.score(side, &anchors, &bank.unsqueeze(0).expand([B, K, D], false))?;
        let apart = distance(&by_pairs, &by_bank, 0.0);
        ensure(apart <= EXACT, || {
            format!("scores of the {}'s anchors by pairs are {apart:.1e} from those by a bank", side.name())
        })?;
    }
    Ok(())
}

fn is_linear(config: &dyn CriticConfig) -> Result<()> {
    let live = LiveCritic::new(config, Kind::Double)?;
    let anchors = embeddings("anchors", &[B, D], Kind::Double);
    let [a, b] = ["a", "b"].map(|name| embeddings(name, &[K, D], Kind::Double));
    for side in SIDES {
        let of_sum = live.critic.score(side, &anchors, &(&a * 2.0 + &b))?;
        let sum = live.critic.score(side, &anchors, &a)? * 2.0 + live.critic.score(side, &anchors, &b)?;
        let apart = distance(&of_sum, &sum, 0.0);
        ensure(apart <= EXACT, || {
            "the score of a sum of candidates is not the sum of their scores: let `factors` be false".to_owned()
        })?;
    }
    Ok(())
}

fn gradients(config: &dyn CriticConfig) -> Result<()> {
    let mut live = LiveCritic::new(config, Kind::Float)?;
    let trainable: Vec<(String, Tensor)> =
        weights::variables(&live.store).into_iter().filter(|(_, t)| t.requires_grad()).collect();
    for side in SIDES {
        let [anchors, positive] =
            ["anchors", "positive"].map(|n| embeddings(n, &[B, D], Kind::Float).set_requires_grad(true));
        let candidates = embeddings("candidates", &[K, D], Kind::Float).set_requires_grad(true);
        let scores = Scores {
            positive: live.critic.score(side, &anchors, &positive.unsqueeze(1))?.squeeze_dim(1),
            negative: live.critic.score(side, &anchors, &candidates)?,
            mask: None,
            fair: true,
        };
        loss(&live.critic.loss(side, &scores)?)?.backward();
        for (name, tensor) in [("anchors", anchors), ("positives", positive), ("negatives", candidates)] {
            let gradient = tensor.grad();
            ensure(gradient.defined() && gradient.abs().max().double_value(&[]) > 0.0, || {
                format!("no gradient reaches the {name} of the {}'s side: is something detached?", side.name())
            })?;
            ensure(is_finite(&gradient), || format!("the gradient of the {name} is not finite"))?;
        }
    }
    let unreached: Vec<String> =
        trainable.into_iter().filter(|(_, variable)| !variable.grad().defined()).map(|(name, _)| name).collect();
    ensure(unreached.is_empty(), || format!("no loss reaches {}, which would not train", unreached.join(", ")))
}

fn finite(config: &dyn CriticConfig) -> Result<()> {
    for (positive, negative) in [(0.0, 0.0), (40.0, -40.0), (-40.0, 40.0), (40.0, 40.0), (-40.0, -40.0)] {
        let scores = Scores {
            positive: Tensor::full([B], positive, (Kind::Float, Device::Cpu)).set_requires_grad(true),
            negative: Tensor::full([B, K], negative, (Kind::Float, Device::Cpu)).set_requires_grad(true),
            mask: None,
            fair: true,
        };
        let mut live = LiveCritic::new(config, Kind::Float)?;
        // What is normalised by the first batch sees usual scores first.
        let _ = live.losses(&self::scores(Kind::Float))?;
        for loss in live.losses(&scores)? {
            let value = loss.double_value(&[]);
            ensure(value.is_finite(), || {
                format!("where positives score {positive} and negatives {negative}, the loss is {value}")
            })?;
            loss.backward();
        }
        ensure(is_finite(&scores.positive.grad()) && is_finite(&scores.negative.grad()), || {
            format!("where positives score {positive} and negatives {negative}, the gradient is not finite")
        })?;
    }
    Ok(())
}

/// The losses of the usual scores, where the negatives behind the mask score `hidden`.
fn losses_with_hidden(config: &dyn CriticConfig, mask: &Tensor, hidden: f64) -> Result<[Tensor; 2]> {
    let usual = scores(Kind::Double);
    let negative = usual.negative.masked_fill(&mask.logical_not(), hidden);
    LiveCritic::new(config, Kind::Double)?.losses(&Scores { negative, mask: Some(mask.shallow_clone()), ..usual })
}

fn ignores_masked(config: &dyn CriticConfig) -> Result<()> {
    let mask = noise("mask", &[B, K], -1.0, 1.0).gt(-0.5);
    let (high, low) = (losses_with_hidden(config, &mask, 5.0)?, losses_with_hidden(config, &mask, -5.0)?);
    near(&high, &low, EXACT, "with other scores behind the mask")
}

fn bound(config: &dyn CriticConfig) -> Result<()> {
    for fair in [true, false] {
        let mut live = LiveCritic::new(config, Kind::Float)?;
        if !fair && live.critic.needs_fair_negatives() {
            continue;
        }
        for side in SIDES {
            let terms = live.critic.loss(side, &Scores { fair, ..scores(Kind::Float) })?;
            for (name, value) in terms.metrics() {
                ensure(fair || name != MUTUAL_INFORMATION, || {
                    "`mutual_information` is reported of negatives that were chosen by their scores: nothing bounds it then"
                        .to_owned()
                })?;
                ensure(value.numel() == 1 && is_finite(value), || format!("metric `{name}` is no finite scalar"))?;
            }
        }
    }
    Ok(())
}

fn ignores_order(config: &dyn CriticConfig) -> Result<()> {
    let usual = scores(Kind::Double);
    let shuffled =
        Scores { positive: usual.positive.flip([0]), negative: usual.negative.flip([0, 1]), mask: None, fair: true };
    let found = LiveCritic::new(config, Kind::Double)?.losses(&shuffled)?;
    let expected = LiveCritic::new(config, Kind::Double)?.losses(&usual)?;
    near(&found, &expected, EXACT, "in another order")
}

fn remembers_in_variables(config: &dyn CriticConfig) -> Result<()> {
    let (mut first, mut second) = (LiveCritic::new(config, Kind::Float)?, LiveCritic::new(config, Kind::Float)?);
    let _ = first.losses(&scores(Kind::Float))?;
    tch::no_grad(|| {
        for ((_, mut to), (_, from)) in
            weights::variables(&second.store).into_iter().zip(weights::variables(&first.store))
        {
            to.copy_(&from);
        }
    });
    let later = Scores { positive: noise("later", &[B], -2.0, 2.0).to_kind(Kind::Float), ..scores(Kind::Float) };
    near(&second.losses(&later)?, &first.losses(&later)?, 0.0, "after its variables were restored")
}

fn keeps_nothing(config: &dyn CriticConfig) -> Result<()> {
    // As large as in training: of less the process's memory would not tell.
    let (anchors, negatives) = (64, 1024);
    let scores = Scores {
        positive: noise("positive", &[anchors], -1.0, 6.0).to_kind(Kind::Float),
        negative: noise("negative", &[anchors, negatives], -6.0, 4.0).to_kind(Kind::Float),
        mask: None,
        fair: true,
    };
    let mut live = LiveCritic::new(config, Kind::Float)?;
    memory_is_steady((4 * anchors * negatives) as usize, || live.losses(&scores).map(drop))
}
