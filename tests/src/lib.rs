//! What the tests that cross packages share.

/// The repository's front page, for its code.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct FrontPage;
