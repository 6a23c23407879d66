//! One setting: what its field says, and what becomes of it.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, Expr, Ident, Meta, Result, Type};

use crate::attribute::Attribute;

/// A field of the settings.
pub(crate) struct Field<'a> {
    name: &'a Ident,
    of_type: &'a Type,
    /// The lines of its documentation.
    docs: Vec<&'a Expr>,
    attribute: Attribute,
    /// Whether it is an `Option`, which a file leaves out where it is `None`.
    optional: bool,
}

impl<'a> Field<'a> {
    pub fn new(field: &'a syn::Field) -> Result<Self> {
        let Some(name) = &field.ident else { return Err(Error::new_spanned(field, "a setting needs a name")) };
        let mut attribute = Attribute::default();
        let mut docs = Vec::new();
        for written in &field.attrs {
            if written.path().is_ident("setting") {
                attribute = written.parse_args()?;
            } else if written.path().is_ident("serde") {
                let message = "settings are read and written as #[derive(Settings)] says: use #[setting(…)]";
                return Err(Error::new_spanned(written, message));
            } else if let Meta::NameValue(doc) = &written.meta
                && doc.path.is_ident("doc")
            {
                docs.push(&doc.value);
            }
        }
        if docs.is_empty() {
            let message =
                format!("`{name}` has no documentation, which is what listings say of a setting: add `/// …`");
            return Err(Error::new_spanned(name, message));
        }
        let field = Field { name, of_type: &field.ty, docs, attribute, optional: is_option(&field.ty) };
        field.consistent()?;
        Ok(field)
    }

    fn consistent(&self) -> Result<()> {
        let Field { name, attribute, .. } = self;
        match (&attribute.default, &attribute.example) {
            (Some(_), Some(example)) => {
                let message = format!("`{name}` has a default, which is what listings show: remove the example");
                Err(Error::new_spanned(example, message))
            }
            (None, None) if !self.optional => {
                let message = format!(
                    "`{name}` has no default: write #[setting(default = …)], or #[setting(example = …)] if a file must set it"
                );
                Err(Error::new_spanned(name, message))
            }
            _ => Ok(()),
        }
    }

    /// The field of the struct that serde reads and writes.
    pub fn mirrored(&self) -> TokenStream {
        let Field { name, of_type, .. } = self;
        let mut attributes = Vec::new();
        if self.attribute.default.is_some() {
            let function = self.default_function().to_string();
            attributes.push(quote!(#[serde(default = #function)]));
        } else if self.optional {
            attributes.push(quote!(#[serde(default)]));
        }
        if self.optional {
            attributes.push(quote!(#[serde(skip_serializing_if = "::core::option::Option::is_none")]));
        }
        if self.attribute.range.is_some() {
            let function = self.read_function().to_string();
            attributes.push(quote!(#[serde(deserialize_with = #function)]));
        }
        quote!(#(#attributes)* #name: #of_type,)
    }

    /// The functions that the mirror names.
    pub fn functions(&self) -> TokenStream {
        let Field { name, of_type, attribute, .. } = self;
        let mut functions = TokenStream::new();
        if let Some(default) = &attribute.default {
            let (function, value) = (self.default_function(), value(default));
            functions.extend(quote_spanned!(default.span()=> fn #function() -> #of_type { #value }));
        }
        if let Some(example) = &attribute.example {
            let (function, value) = (self.example_function(), value(example));
            functions.extend(quote_spanned!(example.span()=> fn #function() -> #of_type { #value }));
        }
        if attribute.range.is_some() {
            let (in_range, read, key) = (self.range_function(), self.read_function(), name.to_string());
            let range = self.range();
            functions.extend(quote! {
                fn #in_range(value: &#of_type) -> ::core::result::Result<(), ::std::string::String> {
                    #range
                }

                fn #read<'de, D: ::limbeck::serde::Deserializer<'de>>(
                    deserializer: D,
                ) -> ::core::result::Result<#of_type, D::Error> {
                    ::limbeck::settings::read(deserializer, #key, #in_range)
                }
            });
        }
        functions
    }

    /// Whether `value` is in the range, as an expression.
    fn range(&self) -> TokenStream {
        let range = self.attribute.range.clone().unwrap_or_default();
        match range.to_string().as_str() {
            "positive" => quote_spanned!(range.span()=> ::limbeck::settings::positive(*value)),
            "not_negative" => quote_spanned!(range.span()=> ::limbeck::settings::not_negative(*value)),
            _ => quote_spanned!(range.span()=> ::limbeck::settings::within(value, #range)),
        }
    }

    /// Its line of a listing.
    pub fn setting(&self) -> TokenStream {
        let (key, docs) = (self.name.to_string(), &self.docs);
        let value = if self.attribute.default.is_some() {
            let function = self.default_function();
            quote!(&#function())
        } else if self.attribute.example.is_some() {
            let function = self.example_function();
            quote!(&#function())
        } else {
            let of_type = self.of_type;
            quote!(&<#of_type as ::core::default::Default>::default())
        };
        let fields =
            self.attribute.fields.as_ref().map(|described| quote_spanned!(described.span()=> .with_fields(#described)));
        quote!(::limbeck::settings::Setting::new(#key, #value, &[#(#docs),*]) #fields)
    }

    /// Its part of `Settings::check_ranges`.
    pub fn check(&self) -> TokenStream {
        if self.attribute.range.is_none() {
            return TokenStream::new();
        }
        let (name, key, in_range) = (self.name, self.name.to_string(), self.range_function());
        quote!(::limbeck::settings::check(#key, #in_range(&self.#name))?;)
    }

    /// Its part of `Default`, if it has one.
    pub fn default(&self) -> Option<TokenStream> {
        let name = self.name;
        if self.attribute.default.is_some() {
            let function = self.default_function();
            return Some(quote!(#name: #function()));
        }
        self.optional.then(|| quote!(#name: ::core::option::Option::None))
    }

    fn default_function(&self) -> Ident {
        format_ident!("default_{}", self.name)
    }

    fn example_function(&self) -> Ident {
        format_ident!("example_{}", self.name)
    }

    fn range_function(&self) -> Ident {
        format_ident!("{}_in_range", self.name)
    }

    fn read_function(&self) -> Ident {
        format_ident!("read_{}", self.name)
    }
}

/// An expression of the field's type: a string in quotation marks becomes whatever owns one.
fn value(written: &TokenStream) -> TokenStream {
    match syn::parse2::<syn::LitStr>(written.clone()) {
        Ok(text) => quote_spanned!(text.span()=> ::core::convert::From::from(#text)),
        Err(_) => written.clone(),
    }
}

fn is_option(of_type: &Type) -> bool {
    let Type::Path(path) = of_type else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident == "Option")
}
