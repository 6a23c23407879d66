//! Distillation methods, critics and negative samplers for Limbeck: one thing per file, and the file is its manual page.
//!
//! | file | kind | what |
//! |---|---|---|
//! | [`vanilla`] | method `vanilla` | the labels alone: what distillation is compared with |
//! | [`kd`] | distiller `kd`, method `kd` | soft targets |
//! | [`crd`] | distiller `crd`, methods `crd`, `crd+kd` | contrastive representation distillation: critic × sampler × bank |
//! | [`critics::nce`] | critic `nce` | binary noise-contrastive estimation, the loss of the CRD paper |
//! | [`critics::info_nce`] | critic `info_nce` | which of K + 1 is the positive |
//! | [`negatives::other_class`] | negatives `other_class` | K samples of other classes |
//! | [`negatives::other_instance`] | negatives `other_instance` | K other samples, of any class |
//! | [`negatives::whole_bank`] | negatives `whole_bank` | all other samples |
//!
//! A crate that uses these by name only must still link them: `use limbeck_distillers as _;`.
//!
//! # Adding one
//!
//! Write a file with three things, here or in a crate of your own, and name it in a `mod` line. Nothing else changes:
//! the listing, the experiment file, the plan and the checkpoint find it through the registry.
//!
//! 1. A settings struct with `#[serde(deny_unknown_fields, default)]` and a `Default`: what the experiment file says.
//! 2. [`limbeck::plugin!`] with its name, one line of summary, the citation and the default settings as commented TOML;
//!    for a distiller, a second one for the method `name` with the published weight.
//! 3. `#[typetag::serde(name = "…")] impl DistillerConfig` (or `CriticConfig`, `NegativeSamplerConfig`), which builds the
//!    live object. Whatever that object learns or remembers is a tensor registered on `params`, changed in place.

pub mod bank;
pub mod crd;
pub mod critics;
pub mod kd;
pub mod negatives;
pub mod vanilla;

#[cfg(test)]
mod fixture;

#[cfg(test)]
mod tests {
    use limbeck::experiment::MethodConfig;
    use limbeck::registry::{self, Role};

    #[test]
    fn every_entry_agrees_with_its_type() {
        registry::check().unwrap();
    }

    #[test]
    fn built_in_methods_have_their_published_weights() {
        let weights = |name: &str| {
            let method: MethodConfig =
                registry::find(Role::Method, name).unwrap().default_table().unwrap().try_into().unwrap();
            let terms = method.terms.iter().map(|term| (term.distiller.typetag_name().to_owned(), term.weight));
            (method.cross_entropy, terms.collect::<Vec<_>>())
        };
        assert_eq!(weights("vanilla"), (1.0, vec![]));
        assert_eq!(weights("kd"), (0.1, vec![("kd".to_owned(), 0.9)]));
        assert_eq!(weights("crd"), (1.0, vec![("crd".to_owned(), 0.8)]));
        assert_eq!(weights("crd+kd"), (1.0, vec![("kd".to_owned(), 1.0), ("crd".to_owned(), 0.8)]));
    }
}
