//! Distillation methods, critics and negative samplers for Limbeck: one thing per file, and the file is its manual page.
//!
//! | file | kind | what |
//! |---|---|---|
//! | [`vanilla`] | method `vanilla` | the labels alone: what distillation is compared with |
//! | [`kd`] | distiller `kd`, method `kd` | soft targets |
//! | [`lskd`] | distiller and method `lskd` | soft targets of standardised logits |
//! | [`dkd`] | distiller and method `dkd` | decoupled soft targets |
//! | [`dist`] | distiller and method `dist` | correlation with the teacher's probabilities |
//! | [`nkd`] | distiller and method `nkd` | normalized soft targets |
//! | [`wsld`] | distiller and method `wsld` | soft targets, weighted by how far the student is |
//! | [`ttm`] | distiller `ttm`, methods `ttm`, `wttm` | the teacher's probabilities to a power |
//! | [`fitnet`] | distiller and method `fitnet` | hints from a middle layer |
//! | [`at`] | distiller and method `at` | attention maps |
//! | [`nst`] | distiller and method `nst` | the distribution of the channels' patterns |
//! | [`ab`] | distiller and method `ab` | activation boundaries, in an initial stage |
//! | [`ft`] | distiller and method `ft` | factors of an autoencoder, after an initial stage |
//! | [`fsp`] | distiller and method `fsp` | flow matrices, in an initial stage |
//! | [`kdsvd`] | distiller and method `kdsvd` | singular vectors |
//! | [`sp`] | distiller and method `sp` | similarities within a batch |
//! | [`cc`] | distiller and method `cc` | correlations of neighbours in a batch |
//! | [`vid`] | distiller and method `vid` | variational information |
//! | [`rkd`] | distiller and method `rkd` | distances and angles among samples |
//! | [`pkt`] | distiller and method `pkt` | conditional probabilities of samples |
//! | [`ickd`] | distiller and method `ickd` | correlations of channels |
//! | [`itrd`] | distiller and method `itrd` | correlation and mutual information of features |
//! | [`crd`] | distiller `crd`, methods `crd`, `crd+kd` | contrastive representation distillation: critic × sampler × bank |
//! | [`critics::nce`] | critic `nce` | binary noise-contrastive estimation, the loss of the CRD paper |
//! | [`critics::info_nce`] | critic `info_nce` | which of K + 1 is the positive |
//! | [`critics::bilinear`] | critic `bilinear` | a trained bilinear form |
//! | [`critics::mlp`] | critic `mlp` | a network that sees both embeddings |
//! | [`negatives::other_class`] | negatives `other_class` | K samples of other classes |
//! | [`negatives::other_instance`] | negatives `other_instance` | K other samples, of any class |
//! | [`negatives::whole_bank`] | negatives `whole_bank` | all other samples |
//! | [`negatives::in_batch`] | negatives `in_batch` | the batch, without a bank |
//! | [`negatives::hardest`] | negatives `hardest` | the samples that score highest |
//!
//! A crate that uses these by name only must still link them: `use limbeck_distillers as _;`.
//!
//! # Adding one
//!
//! [`limbeck::guide`] has it at length. Write a file with three things, here or in a crate of your own (`limbeck new`), and
//! name it in a `mod` line. Nothing else changes:
//! the listing, the experiment file, the plan and the checkpoint find it through the registry.
//!
//! 1. A struct with [`#[derive(Settings)]`](limbeck::settings::Settings): what the experiment file says.
//! 2. [`limbeck::plugin!`] with its name, one line of summary and the citation; for a distiller, also the method with the
//!    published weight.
//! 3. `#[typetag::serde(name = "…")] impl DistillerConfig` (or `CriticConfig`, `NegativeSamplerConfig`), which builds the
//!    live object. Whatever that object learns or remembers is a tensor registered on `params`, changed in place.

pub mod ab;
pub mod at;
pub mod bank;
pub mod cc;
mod classes;
mod conv_reg;
pub mod crd;
pub mod critics;
pub mod dist;
pub mod dkd;
pub mod embedding;
pub mod fitnet;
pub mod fsp;
pub mod ft;
pub mod ickd;
pub mod itrd;
pub mod kd;
pub mod kdsvd;
pub mod lskd;
pub mod negatives;
pub mod nkd;
pub mod nst;
pub mod pkt;
pub mod rkd;
pub mod sp;
mod tensor;
pub mod ttm;
pub mod vanilla;
pub mod vid;
pub mod wsld;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod refusals;

#[cfg(test)]
mod tests {
    use limbeck::experiment::MethodConfig;
    use limbeck::registry::{self, Role};

    #[test]
    fn every_entry_agrees_with_its_type() {
        registry::check().unwrap();
    }

    /// The weight of the cross-entropy, and each term's distiller and weight.
    fn weights(name: &str) -> (f64, Vec<(String, f64)>) {
        let method: MethodConfig =
            registry::find(Role::Method, name).unwrap().default_table().unwrap().try_into().unwrap();
        let terms = method.terms.iter().map(|term| (term.distiller.typetag_name().to_owned(), term.weight));
        (method.cross_entropy, terms.collect())
    }

    #[test]
    fn built_in_methods_have_their_published_weights() {
        assert_eq!(weights("vanilla"), (1.0, vec![]));
        assert_eq!(weights("kd"), (0.1, vec![("kd".to_owned(), 0.9)]));
        let published = [
            ("fitnet", 100.0),
            ("at", 1000.0),
            ("sp", 3000.0),
            ("cc", 0.02),
            ("vid", 1.0),
            ("rkd", 1.0),
            ("pkt", 30_000.0),
            ("nst", 50.0),
            ("ab", 1.0),
            ("ft", 200.0),
            ("fsp", 50.0),
            ("kdsvd", 1.0),
            ("dkd", 1.0),
            ("dist", 1.0),
            ("nkd", 1.0),
            ("wsld", 2.25),
            ("ttm", 45.0),
            ("ickd", 2.5),
            ("itrd", 1.0),
        ];
        for (name, weight) in published {
            assert_eq!(weights(name), (1.0, vec![(name.to_owned(), weight)]));
        }
        assert_eq!(weights("lskd"), (0.1, vec![("lskd".to_owned(), 9.0)]));
        assert_eq!(weights("wttm"), (1.0, vec![("ttm".to_owned(), 4.0)]));
        assert_eq!(weights("crd"), (1.0, vec![("crd".to_owned(), 0.8)]));
        assert_eq!(weights("crd+kd"), (1.0, vec![("kd".to_owned(), 1.0), ("crd".to_owned(), 0.8)]));
    }
}
