//! What is no settings is an error in words, at the place.

use super::expand;

fn error(code: &str) -> String {
    let error = expand(&syn::parse_str(code).unwrap()).unwrap_err();
    error.into_iter().map(|error| error.to_string()).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_no_settings_is_refused() {
    for (code, message) in [
        ("enum A { X }", "settings are a struct with a named field for each of them, not an enum or a union"),
        ("struct A;", "write `{}` behind the name: a plugin without settings is an empty table in a file"),
        ("struct A(f64);", "settings need names: make this a struct with named fields"),
        ("struct A<T> { x: T }", "settings have no generic parameters: each must have one type in a file"),
        (
            "struct A { #[setting(default = 1.0)] x: f64 }",
            "`x` has no documentation, which is what listings say of a setting: add `/// …`",
        ),
        (
            "struct A { #[doc = \"X.\"] x: f64 }",
            "`x` has no default: write #[setting(default = …)], or #[setting(example = …)] if a file must set it",
        ),
        (
            "struct A { #[doc = \"X.\"] #[setting(default = 1, example = 2)] x: i64 }",
            "`x` has a default, which is what listings show: remove the example",
        ),
        (
            "struct A { #[doc = \"X.\"] #[setting(defalt = 1)] x: i64 }",
            "a setting has no `defalt`: known are default, example, range and fields",
        ),
        ("struct A { #[doc = \"X.\"] #[setting(default = 1, default = 2)] x: i64 }", "`default` stands here twice"),
        ("struct A { #[doc = \"X.\"] #[setting(default = )] x: i64 }", "`default =` needs a value"),
        (
            "struct A { #[doc = \"X.\"] #[serde(default)] x: i64 }",
            "settings are read and written as #[derive(Settings)] says: use #[setting(…)]",
        ),
    ] {
        assert_eq!(error(code), message, "{code}");
    }
}

#[test]
fn every_fault_is_told_at_once() {
    let both = error("struct A { #[doc = \"X.\"] x: f64, #[doc = \"Y.\"] y: f64 }");
    assert_eq!(both.lines().count(), 2, "{both}");
}

#[test]
fn there_is_a_default_if_every_setting_has_one() {
    for (field, expected) in
        [("#[setting(default = 1)] x: i64", true), ("#[setting(example = 1)] x: i64", false), ("x: Option<i64>", true)]
    {
        let code = format!("struct A {{ #[doc = \"X.\"] {field} }}");
        let written = expand(&syn::parse_str(&code).unwrap()).unwrap().to_string();
        assert_eq!(written.contains(":: core :: default :: Default for A"), expected, "{field}");
    }
}
