//! `mlp`: a network that sees both embeddings.
//!
//! Poole, Ozair, van den Oord, Alemi, Tucker. *On Variational Bounds of Mutual Information*. ICML 2019, section 3: the
//! joint (concatenated) critic, against the separable one of a dot product.
//!
//! With unit embeddings v1 of the student and v2 of the teacher, both `[D]`, and H hidden units,
//!
//! s = wᵀ ReLU(W₁ v1 + W₂ v2 + b),
//!
//! which is a hidden layer on the concatenation. The loss on the scores is that of `info_nce` or `nce`, with its bound on
//! the mutual information. A bias of s would change neither: a softmax does not see it, and Z takes it up.
//!
//! *Cost*: the score is no dot product, so each of the B · K pairs has H hidden units of its own, 4 B K H bytes several
//! times over: 0.5 GB at B 64, K 16 384, H 128. Take fewer negatives than with a dot product, or `in_batch`. *State*:
//! `critic.student.weight`, `critic.teacher.{weight, bias}`, `critic.out.weight`; with `loss = "nce"` that critic's Z.

use limbeck::prelude::*;

use super::{Loss, LossKind};

limbeck::plugin! {
    critic "mlp": Mlp,
    summary: "a network that sees both embeddings; for fewer negatives",
    citation: "Poole, Ozair, van den Oord, Alemi, Tucker. On Variational Bounds of Mutual Information. ICML 2019, section 3",
    page: include_str!("mlp.rs"),
}

/// A network with one hidden layer.
#[derive(Clone, Debug, Settings)]
pub struct Mlp {
    /// "info_nce" or "nce": the loss of the critic of that name.
    #[setting(default = LossKind::InfoNce)]
    pub loss: LossKind,
    /// H: units of the hidden layer.
    #[setting(default = 128, range = 1..=65_536)]
    pub hidden: i64,
}

#[typetag::serde(name = "mlp")]
impl CriticConfig for Mlp {
    fn build(&self, site: &CriticSite, params: &nn::Path<'_>) -> Result<Box<dyn Critic>> {
        let (root, width) = (params / "critic", site.embedding_width);
        Ok(Box::new(LiveMlp {
            student: nn::linear_without_bias(&root / "student", width, self.hidden),
            teacher: nn::linear(&root / "teacher", width, self.hidden),
            out: nn::linear_without_bias(&root / "out", self.hidden, 1),
            loss: Loss::new(self.loss, site, params),
        }))
    }
}

#[derive(Debug)]
struct LiveMlp {
    student: nn::Linear,
    /// With the bias of both.
    teacher: nn::Linear,
    out: nn::Linear,
    loss: Loss,
}

impl Critic for LiveMlp {
    fn factors(&self) -> bool {
        false
    }

    fn needs_fair_negatives(&self) -> bool {
        self.loss.needs_fair_negatives()
    }

    fn score(&self, side: Side, anchors: &Tensor, candidates: &Tensor) -> Result<Tensor> {
        let (of_anchor, of_candidate) = match side {
            Side::Student => (&self.student, &self.teacher),
            Side::Teacher => (&self.teacher, &self.student),
        };
        let hidden = anchors.apply(of_anchor).unsqueeze(1) + candidates.apply(of_candidate);
        Ok(hidden.relu().apply(&self.out).squeeze_dim(-1))
    }

    fn loss(&mut self, side: Side, scores: &Scores) -> Result<Terms> {
        Ok(self.loss.terms(side, scores))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::wave;

    const SITE: CriticSite = CriticSite { embedding_width: 4, samples: 50 };

    #[test]
    fn the_network_sees_each_pair_whichever_side_is_the_anchor() {
        let mut store = nn::VarStore::new(Device::Cpu);
        let critic = Mlp { hidden: 7, ..Mlp::default() }.build(&SITE, &store.root()).unwrap();
        store.double();
        let (v1, v2) = (wave(&[3, 4], 0.2), wave(&[5, 4], 1.1));
        let variables = store.variables();
        let both = Tensor::cat(&[&variables["critic.student.weight"], &variables["critic.teacher.weight"]], 1);
        let of_student = critic.score(Side::Student, &v1, &v2).unwrap();
        let of_teacher = critic.score(Side::Teacher, &v2, &v1).unwrap();
        let each = v2.unsqueeze(0).expand([3, 5, 4], false).contiguous();
        let gathered = critic.score(Side::Student, &v1, &each).unwrap();
        assert_eq!((of_student.size(), of_teacher.size(), gathered.size()), (vec![3, 5], vec![5, 3], vec![3, 5]));
        for (i, j) in (0..3).flat_map(|i| (0..5).map(move |j| (i, j))) {
            let pair = Tensor::cat(&[v1.get(i), v2.get(j)], 0);
            let hidden = (both.matmul(&pair) + &variables["critic.teacher.bias"]).clamp_min(0.0);
            let expected = variables["critic.out.weight"].get(0).dot(&hidden).double_value(&[]);
            for found in
                [of_student.double_value(&[i, j]), of_teacher.double_value(&[j, i]), gathered.double_value(&[i, j])]
            {
                assert!((found - expected).abs() < 1e-12, "{i}, {j}: {found} {expected}");
            }
        }
    }
}
