//! `#[derive(Settings)]`: what `limbeck::settings::Settings` documents. Every statement about a setting stands at its field.

mod attribute;
mod field;
#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Error, Fields, Result, parse_macro_input};

use field::Field;

/// Makes a struct the settings of a plugin; `limbeck::settings::Settings` says how.
#[proc_macro_derive(Settings, attributes(setting, serde))]
pub fn settings(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let refuse = |what: &str| Err(Error::new_spanned(&input.ident, what));
    let Data::Struct(data) = &input.data else {
        return refuse("settings are a struct with a named field for each of them, not an enum or a union");
    };
    if !input.generics.params.is_empty() {
        return refuse("settings have no generic parameters: each must have one type in a file");
    }
    let named = match &data.fields {
        Fields::Named(fields) => &fields.named,
        Fields::Unit => {
            return refuse("write `{}` behind the name: a plugin without settings is an empty table in a file");
        }
        Fields::Unnamed(_) => return refuse("settings need names: make this a struct with named fields"),
    };
    let mut fields = Vec::new();
    let mut errors: Option<Error> = None;
    for field in named {
        match Field::new(field) {
            Ok(field) => fields.push(field),
            Err(error) => match &mut errors {
                Some(errors) => errors.combine(error),
                None => errors = Some(error),
            },
        }
    }
    match errors {
        Some(errors) => Err(errors),
        None => Ok(implement(input, &fields)),
    }
}

fn implement(input: &DeriveInput, fields: &[Field<'_>]) -> TokenStream {
    let name = &input.ident;
    let remote = name.to_string();
    let mirror = format_ident!("{name}InFile");
    let mirrored = fields.iter().map(Field::mirrored);
    let functions = fields.iter().map(Field::functions);
    let settings = fields.iter().map(Field::setting);
    let checks = fields.iter().map(Field::check);
    let default = default(input, fields);
    quote! {
        const _: () = {
            // What a file says, as serde reads and writes it: no other keys, and defaults where one is absent.
            #[derive(::limbeck::serde::Serialize, ::limbeck::serde::Deserialize)]
            #[serde(crate = "::limbeck::serde", remote = #remote, deny_unknown_fields)]
            struct #mirror { #(#mirrored)* }

            #(#functions)*

            #[automatically_derived]
            impl ::limbeck::serde::Serialize for #name {
                fn serialize<S: ::limbeck::serde::Serializer>(
                    &self,
                    serializer: S,
                ) -> ::core::result::Result<S::Ok, S::Error> {
                    #mirror::serialize(self, serializer)
                }
            }

            #[automatically_derived]
            impl<'de> ::limbeck::serde::Deserialize<'de> for #name {
                fn deserialize<D: ::limbeck::serde::Deserializer<'de>>(
                    deserializer: D,
                ) -> ::core::result::Result<Self, D::Error> {
                    #mirror::deserialize(deserializer)
                }
            }

            #[automatically_derived]
            impl ::limbeck::settings::Settings for #name {
                fn settings() -> ::std::vec::Vec<::limbeck::settings::Setting> {
                    ::std::vec![#(#settings),*]
                }

                fn check_ranges(&self) -> ::limbeck::error::Result<()> {
                    #(#checks)*
                    ::core::result::Result::Ok(())
                }
            }

            #default
        };
    }
}

/// `Default`, if every setting has one.
fn default(input: &DeriveInput, fields: &[Field<'_>]) -> Option<TokenStream> {
    let name = &input.ident;
    let values: Option<Vec<TokenStream>> = fields.iter().map(Field::default).collect();
    let values = values?;
    Some(quote! {
        #[automatically_derived]
        impl ::core::default::Default for #name {
            fn default() -> Self {
                #name { #(#values),* }
            }
        }
    })
}
