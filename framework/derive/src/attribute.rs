//! What `#[setting(…)]` may say.

use proc_macro2::{TokenStream, TokenTree};
use syn::parse::{Parse, ParseStream};
use syn::{Ident, Result, Token};

/// `#[setting(default = …, range = …)]`, each an expression.
#[derive(Default)]
pub(crate) struct Attribute {
    /// The value where a file says nothing.
    pub default: Option<TokenStream>,
    /// The value that listings show of a setting without a default.
    pub example: Option<TokenStream>,
    /// What the value must be in: `positive`, `not_negative`, or a range.
    pub range: Option<TokenStream>,
    /// What the keys of a value mean that is a table.
    pub fields: Option<TokenStream>,
}

impl Parse for Attribute {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut attribute = Attribute::default();
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            input.parse::<Token![=]>()?;
            let value = up_to_comma(input)?;
            let place = match name.to_string().as_str() {
                "default" => &mut attribute.default,
                "example" => &mut attribute.example,
                "range" => &mut attribute.range,
                "fields" => &mut attribute.fields,
                other => {
                    let message = format!("a setting has no `{other}`: known are default, example, range and fields");
                    return Err(syn::Error::new(name.span(), message));
                }
            };
            if value.is_empty() {
                return Err(syn::Error::new(name.span(), format!("`{name} =` needs a value")));
            }
            if place.replace(value).is_some() {
                return Err(syn::Error::new(name.span(), format!("`{name}` stands here twice")));
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(attribute)
    }
}

/// The tokens before the next comma that stands in no bracket.
fn up_to_comma(input: ParseStream<'_>) -> Result<TokenStream> {
    let mut tokens = TokenStream::new();
    while !input.is_empty() && !input.peek(Token![,]) {
        tokens.extend([input.parse::<TokenTree>()?]);
    }
    Ok(tokens)
}
